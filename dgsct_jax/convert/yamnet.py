"""YAMNet as a SavedModel of TensorFlow holds it: its variables, numbered layer by layer."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert.table import SAME, Drop, Layout, Leaf, Plan, State, Table, logits, targets
from dgsct_jax.models import yamnet as model

UNUSED = Drop('the classifier, which no encoder needs')
NAMES = 'layer-1/layer/_func/_yamnet/layer_with_weights-'
# A filter for each channel: (h, w, channels, 1) there, (h, w, 1, channels) here.
CHANNELS = Layout(lambda x, shape: x.transpose(0, 1, 3, 2), lambda y: y.transpose(0, 1, 3, 2))
KERNEL = (Leaf(('/kernel',), '/kernel', SAME),)
DEPTHWISE = (Leaf(('/depthwise_kernel',), '/kernel', CHANNELS),)
NORM = (
  Leaf(('/gamma',), '/scale', SAME),
  Leaf(('/beta',), '/bias', SAME),
  Leaf(('/moving_mean',), '/mean', SAME, 'batch_stats'),
  Leaf(('/moving_variance',), '/var', SAME, 'batch_stats'),
)
DENSE = (*KERNEL, Leaf(('/bias',), '/bias', SAME))


def _places() -> list[str]:
  """Our separable layers in their order."""
  places = [f'first/separable_{i}' for i in range(2)]
  for i, counts in enumerate(model.STAGES):
    for j, count in enumerate(counts):
      places += [f'stages_{i}/blocks_{j}/separable_{k}' for k in range(count)]
    if i < len(model.STAGES) - 1:
      places.append(f'stages_{i}/downsample/separable_0')
  return places


def _table() -> Table:
  rows: list = [('0', 'entry/conv', KERNEL), ('1', 'entry/norm', NORM)]
  for layer, place in enumerate(_places()):
    first = 2 + 4 * layer
    for part, (half, kernel) in enumerate((('depthwise', DEPTHWISE), ('pointwise', KERNEL))):
      rows.append((f'{first + 2 * part}', f'{place}/{half}/conv', kernel))
      rows.append((f'{first + 2 * part + 1}', f'{place}/{half}/norm', NORM))
  rows.append((f'{2 + 4 * len(model.LAYERS)}', 'classifier', DENSE))
  return tuple(rows)


TABLE: Table = _table()


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the network; `hint` is not needed."""
  return _plan(state, TABLE, logits)


def plan_features(state: State, hint: str = '') -> Plan:
  """The network without its classifier, as a backbone."""
  names = (f'{TABLE[-1][0]}/{part}' for part in ('kernel', 'bias'))
  rows = (*TABLE[:-1], *((name, None, UNUSED) for name in names))
  return _plan(state, rows, model.YAMNet.__call__)


def _plan(state: State, rows: Table, call: Callable[..., Any]) -> Plan:
  """Its norms have no factor; ours have, which is 1."""
  state = {name.removeprefix(NAMES): x for name, x in state.items() if name.startswith(NAMES)}
  if '0/kernel' not in state or '54/bias' not in state:
    raise ValueError(f'No YAMNet in this file: it has no {NAMES}0/kernel.')
  norms = [name.removesuffix('/beta') for name in state if name.endswith('/beta')]
  state |= {f'{name}/gamma': np.ones_like(state[f'{name}/beta']) for name in norms}
  built = model.build(classes=len(state['54/bias']))
  wave = jax.ShapeDtypeStruct((1, model.RATE), np.float32)
  return Plan('tensorflow', 'audioset', state, rows, targets(built, wave, method=call))
