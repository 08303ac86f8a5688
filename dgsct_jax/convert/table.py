"""The engine of weight conversion: tables of rows by module, read in both directions.

A row is (their module, our module, kind). '#' stands for a number, the same ones in the same order
on both sides. A kind says which tensors such a module has and how their layouts differ. A row that
drops names says why.
"""

import collections
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Num

from dgsct_jax import tree
from dgsct_jax.models import lazy

VERSION = '1'  # raise it when a table gives other numbers for the same file

State = dict[str, Num[np.ndarray, '...']]
Shapes = Mapping[str, tuple[int, ...]]


class Layout(NamedTuple):
  """How one tensor differs between PyTorch and Flax."""

  take: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]  # theirs, our shape -> ours
  give: Callable[[np.ndarray], np.ndarray]  # ours -> theirs


class Leaf(NamedTuple):
  """One tensor of a module: suffixes of its names.

  Several of theirs are parts stacked along their first axis.
  """

  theirs: tuple[str, ...]
  ours: str
  layout: Layout
  collection: str = 'params'


class Plan(NamedTuple):
  """How one file converts."""

  layout: str  # whose names they are
  variant: str  # which model
  state: State  # of that model alone, prefixes removed
  table: 'Table'
  targets: Shapes


class Drop(NamedTuple):
  """The kind of names without a place in our model; covers a name and everything below it."""

  reason: str


Kind = tuple[Leaf, ...]
Row = tuple[str, str | None, Kind | Drop]
Table = tuple[Row, ...]

WRAPPERS = ('module.', '_orig_mod.', 'model.')
STAGES = 6  # No backbone has more; each halves the sides of the grid.
SAME = Layout(lambda x, shape: x, lambda y: y)
MATRIX = Layout(lambda x, shape: x.T, lambda y: y.T)  # (out, in)
IMAGE = Layout(
  lambda x, shape: x.transpose(2, 3, 1, 0), lambda y: y.transpose(3, 2, 0, 1)
)  # (out, in, h, w)
VOXEL = Layout(  # (out, in, 1, 1, 1)
  lambda x, shape: x[:, :, 0, 0, 0].T, lambda y: y.T[:, :, None, None, None]
)
MAP = Layout(lambda x, shape: x[:, :, 0, 0].T, lambda y: y.T[:, :, None, None])  # (out, in, 1, 1)
GROUPS = Layout(  # (out, in/g, 1, 1), the outputs of a group contiguous
  lambda x, shape: x.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1),
  lambda y: y.transpose(0, 2, 1).reshape(-1, y.shape[1], 1, 1),
)
SIGNAL = Layout(lambda x, shape: x[:, 0].T, lambda y: y.T[:, None])  # (out, 1, in)
PER_HEAD = Layout(lambda x, shape: x[:, 0, 0], lambda y: y[:, None, None])  # (heads, 1, 1)


def _weight_and_bias(weight: Layout) -> Kind:
  return Leaf(('.weight',), '/kernel', weight), Leaf(('.bias',), '/bias', SAME)


def _recurrent(suffix: str, ours: str) -> Kind:
  """One direction of a torch LSTM layer; the gates i, f, g, o are stacked along the rows."""
  return (
    Leaf(('.weight_ih_l0' + suffix,), ours + '/kernel_ih', MATRIX),
    Leaf(('.weight_hh_l0' + suffix,), ours + '/kernel_hh', MATRIX),
    Leaf(('.bias_ih_l0' + suffix,), ours + '/bias_ih', SAME),
    Leaf(('.bias_hh_l0' + suffix,), ours + '/bias_hh', SAME),
  )


RAW = (Leaf(('',), '', SAME),)
DENSE = _weight_and_bias(MATRIX)
CONV = _weight_and_bias(IMAGE)
TOKEN_MAP = _weight_and_bias(MAP)  # a 1×1 convolution whose channels are tokens
POINTWISE_3D = _weight_and_bias(VOXEL)
GROUPED = _weight_and_bias(GROUPS)  # a grouped 1×1 convolution
NORM = Leaf(('.weight',), '/scale', SAME), Leaf(('.bias',), '/bias', SAME)
BATCH_NORM = NORM + (
  Leaf(('.running_mean',), '/mean', SAME, 'batch_stats'),
  Leaf(('.running_var',), '/var', SAME, 'batch_stats'),
)
BATCHES = Drop('torch counts batches, nothing reads it')
MHA = (
  Leaf(('.in_proj_weight',), '/in_proj/kernel', MATRIX),
  Leaf(('.in_proj_bias',), '/in_proj/bias', SAME),
  Leaf(('.out_proj.weight',), '/out_proj/kernel', MATRIX),
  Leaf(('.out_proj.bias',), '/out_proj/bias', SAME),
)


def packed(q: str, k: str, v: str, ours: str = 'in_proj') -> Kind:
  """Three linear layers as one."""
  parts = q, k, v
  return (
    Leaf(tuple(f'.{part}.weight' for part in parts), f'/{ours}/kernel', MATRIX),
    Leaf(tuple(f'.{part}.bias' for part in parts), f'/{ours}/bias', SAME),
  )


def split_mha(q: str, k: str, v: str, out: str) -> Kind:
  """Attention whose projections are layers of their own; `MHA` has the first three in one."""
  return (
    *packed(q, k, v),
    Leaf((f'.{out}.weight',), '/out_proj/kernel', MATRIX),
    Leaf((f'.{out}.bias',), '/out_proj/bias', SAME),
  )


ONE_WAY_LSTM = _recurrent('', '')
LSTM = _recurrent('', '/forward') + _recurrent('_reverse', '/backward')
STFT = (Leaf(('.weight',), '', SIGNAL),)
LOGIT_SCALE = (Leaf(('',), '', PER_HEAD),)


def below(state: State, prefix: str) -> State:
  """The tensors whose names begin with `prefix`, without it."""
  return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def targets(module: nn.Module, *args: Any, **kwargs: Any) -> dict[str, tuple[int, ...]]:
  """Names and shapes of a module's variables; arguments as for `module.init`. None is computed.

  Raises:
    ValueError: there is no such model; its sizes came from a file.
  """
  try:
    variables = lazy.shapes(module, *args, **kwargs)
  except Exception as error:  # A size that fits to no other fails at any place of a model.
    why = f'{type(error).__name__}: {error}'.splitlines()[0][:300]
    raise ValueError(
      f'The sizes of the tensors fit to no {type(module).__name__} ({why}).'
    ) from error
  return {name: leaf.shape for name, leaf in tree.flatten(variables).items()}


def logits(network: nn.Module, x: Any) -> Any:
  """The `method` of `targets` for a network with its classifier."""
  return network.classify(network(x))


def unwrap(state: State) -> State:
  """The state dict without what DataParallel, torch.compile or Lightning put before all names."""
  for prefix in WRAPPERS:
    if state and all(name.startswith(prefix) for name in state):
      return unwrap(below(state, prefix))
  return state


def side(state: State, default: int, *axes: tuple[str, int, int]) -> int:
  """The length that most of some axes have, each (tensor, axis, rank); `default` if there is none.

  So a model is planned even where a tensor that tells its sizes is missing or misshapen, and
  `convert` can say all that is.
  """
  lengths = collections.Counter(
    state[name].shape[axis]
    for name, axis, rank in axes
    if name in state and state[name].ndim == rank and state[name].shape[axis]
  )
  return max(lengths, key=lambda length: lengths[length], default=default)  # the first of those


def depths(names: Iterable[str], stages: str = 'layers') -> tuple[int, ...]:
  """How many blocks each stage has by the numbers in names, 'layers.#.blocks.#.'.

  Numbers that are left out count, and `convert` says what is missing. A number far beyond the
  others does not, or thousands of blocks would be planned; `convert` says that it has no use.

  Raises:
    ValueError: there is no block.
  """
  found: dict[int, set[int]] = {}
  for name in names:
    if match := re.match(re.escape(stages) + r'\.([0-9]{1,4})\.blocks\.([0-9]{1,4})\.', name):
      found.setdefault(int(match[1]), set()).add(int(match[2]))
  if not found:
    raise ValueError(f'There are no blocks in it, {stages}.0.blocks.0 and so on.')
  return tuple(_count(found.get(i, {0})) for i in range(min(_count(found), STAGES)))


def _count(numbers: Collection[int]) -> int:
  if 1 + max(numbers) <= 2 * len(numbers):
    return 1 + max(numbers)
  return max(1, next(i for i in itertools.count() if i not in numbers))


def nest(table: Table, theirs: str, ours: str) -> Table:
  """The same table below `theirs` (ends in '.' or is '') and `ours` (ends in '/' or is '')."""
  return tuple(
    (theirs + row[0], None if row[1] is None else ours + row[1], row[2]) for row in table
  )


def convert(state: State, table: Table, targets: Shapes) -> State:
  """Our tensors, in float32, from their state dict.

  Args:
    state: names to arrays; read only.
    table: rows for every name of `state` and of `targets`.
    targets: 'collection/path' to shape: all that the model has.

  Raises:
    ValueError: a target without its source, a source neither used nor dropped, a wrong shape or
      type, a value that is not finite in float32. All of them at once, from both sides.
  """
  leaves = _leaves(table)
  filled: State = {}
  used: set[str] = set()
  faults: list[str] = []
  for target, shape in targets.items():
    names, layout = _sources(leaves, target)
    used.update(names)
    wanted = _their_shape(layout, shape, len(names))
    wrong = [fault for name in names if (fault := _fault(state, name, wanted, target))]
    if wrong or not names:
      faults += wrong or [f'{target}: no row of the table fills it']
      continue
    with np.errstate(over='ignore'):  # told below
      parts = [state[name].astype(np.float32, copy=False) for name in names]
    filled[target] = layout.take(np.concatenate(parts) if len(parts) > 1 else parts[0], shape)
  gone = dropped(table, state)
  faults += [
    f'{name}: {x.shape} in the file, neither used nor dropped by the table'
    for name, x in state.items()
    if name not in used and name not in gone
  ]
  faults += [
    f'{name}: NaN or infinite values in float32'
    for name, x in state.items()
    if np.issubdtype(x.dtype, np.floating) and not _finite(x)
  ]
  if faults:
    raise ValueError(
      f'{len(faults)} faults between the {len(state)} tensors of the file and the {len(targets)} '
      'of the model:\n  ' + '\n  '.join(_shorten(faults))
    )
  return filled


def export(ours: State, table: Table) -> State:
  """Their state dict from our tensors.

  The inverse of `convert`, without the names that the table drops.
  """
  leaves = _leaves(table)
  state: State = {}
  for target, y in ours.items():
    names, layout = _sources(leaves, target)
    if not names:
      raise ValueError(f'{target}: no row of the table gives it a name.')
    theirs = layout.give(y)
    state.update(zip(names, np.split(theirs, len(names)) if len(names) > 1 else [theirs]))
  return state


def dropped(table: Table, names: Sequence[str] | State) -> dict[str, str]:
  """Those names that the table drops, with the reasons."""
  rows = [
    (_pattern(theirs, r'(\..*)?'), kind.reason)
    for theirs, _, kind in table
    if isinstance(kind, Drop)
  ]
  reasons = {
    name: next((reason for pattern, reason in rows if pattern.fullmatch(name)), None)
    for name in names
  }
  return {name: reason for name, reason in reasons.items() if reason}


def _leaves(table: Table) -> list[tuple[re.Pattern[str], tuple[str, ...], Layout]]:
  """For every tensor of every row: the pattern of our name, their names with '#', the layout."""
  return [
    (
      _pattern(f'{leaf.collection}/{ours}{leaf.ours}'),
      tuple(theirs + suffix for suffix in leaf.theirs),
      leaf.layout,
    )
    for theirs, ours, kind in table
    if not isinstance(kind, Drop)
    for leaf in kind
  ]


def _sources(
  leaves: list[tuple[re.Pattern[str], tuple[str, ...], Layout]], target: str
) -> tuple[tuple[str, ...], Layout]:
  """Names of the tensors that fill a target, () if there are none."""
  for pattern, templates, layout in leaves:
    if match := pattern.fullmatch(target):
      numbers = match.groups()
      return tuple(template.replace('#', '{}').format(*numbers) for template in templates), layout
  return (), SAME


def _pattern(name: str, end: str = '') -> re.Pattern[str]:
  return re.compile(re.escape(name).replace(r'\#', r'(\d+)') + end)


def _their_shape(layout: Layout, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
  first, *rest = layout.give(np.broadcast_to(np.float32(0), shape)).shape or (0,)
  return (first // max(parts, 1), *rest) if shape else ()


def _fault(state: State, name: str, wanted: tuple[int, ...], target: str) -> str | None:
  if name not in state:
    return f'{name}: missing in the file, {wanted} wanted for {target}'
  if state[name].shape != wanted:
    return f'{name}: {state[name].shape} in the file, {wanted} wanted for {target}'
  if not np.issubdtype(state[name].dtype, np.floating):
    return f'{name}: {state[name].dtype} in the file, a floating type wanted for {target}'
  return None


def _finite(x: Num[np.ndarray, '...']) -> bool:
  with np.errstate(over='ignore'):
    return bool(np.isfinite(x.astype(np.float32, copy=False)).all())


def _shorten(faults: list[str], most: int = 60) -> list[str]:
  """Not too many, each in one line."""
  more = [f'... and {len(faults) - most} more'] if len(faults) > most else []
  return [one_line(fault) for fault in faults[:most]] + more


def one_line(text: str, most: int = 300) -> str:
  """What a file says of itself, fit for a message."""
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
