"""Reads the text of a compiled program: operations, loops, collectives, large values.

Shapes in it are those of one device. Sizes are those of the values; a TPU pads some of them.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Operations that move nothing: other names for values that are there.
VIEWS = ('parameter', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call')
VALUE = re.compile(r'\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]')
# A value of a TPU that lies in a memory on the chip, not in HBM, which is memory 0.
ON_CHIP = re.compile(VALUE.pattern + r'\{[^}]*S\([1-9]\d*\)\}')
CALLED = re.compile(r'\b(?:calls|to_apply|body|condition|\w+_computations?)=(\{[^}]*\}|%?[\w.\-]+)')


class Operation(NamedTuple):
  """One operation of a program.

  type: of its result, a tuple if there are several.
  rest: the operands and attributes as they are written.
  """

  name: str
  type: str
  code: str
  operands: tuple[str, ...]
  rest: str

  @property
  def bytes(self) -> int:
    """Of all results."""
    return _bytes(self.type)

  @property
  def held(self) -> int:
    """The bytes of those results that lie in the main memory of a device."""
    return _bytes(ON_CHIP.sub('', self.type))

  @property
  def owner(self) -> str:
    """The path of the module that it is from, or the name of the argument; '' if not known."""
    found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.rest)
    name = found[1].replace("\\'", "'") if found else ''
    if self.code == 'parameter':
      return name
    parts = [part for part in name.split('/') if '(' not in part and ')' not in part]
    return '/'.join(part for part in parts[:-1] if part not in ('checkpoint', 'while', 'body'))


class Program(NamedTuple):
  """Computations by name, the name of the one that is run, and on how many devices."""

  computations: Mapping[str, Mapping[str, Operation]]
  entry: str
  devices: int


class Run(NamedTuple):
  """An operation as it is run. times: by loops; fused: its result does not reach memory."""

  operation: Operation
  inside: Mapping[str, Operation]
  times: int
  fused: bool


class Traffic(NamedTuple):
  """Collectives of one kind in a step.

  number: of them; bytes: of the whole values; sent: by each device, if they go round a ring.
  """

  number: int
  bytes: int
  sent: float


def read(text: str) -> Program:
  """The program whose text this is, as `jax.stages.Compiled.as_text` gives it."""
  computations: dict[str, dict[str, Operation]] = {}
  entry, inside = '', {}
  for line in re.sub(r'/\*.*?\*/', '', text).splitlines():
    if head := re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line):
      inside = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
    elif operation := _operation(line):
      inside[operation.name] = operation
  sizes = re.findall(r'\b(?:num_partitions|replica_count)=(\d+)', text.partition('\n')[0])
  return Program(computations, entry, math.prod(map(int, sizes)))


def runs(program: Program) -> Iterator[Run]:
  """All operations that are run, those of loops once with their number of times."""

  def walk(name: str, times: int, fused: bool) -> Iterator[Run]:
    inside = program.computations.get(name, {})
    for operation in inside.values():
      yield Run(operation, inside, times, fused)
      if operation.code in COLLECTIVES or operation.code.startswith(('reduce', 'scatter', 'sort')):
        continue  # what they call is run on single numbers
      many = times * (trips(operation, program) or 1)
      for found in CALLED.findall(operation.rest):
        for called in re.findall(r'[\w.\-]+', found):
          yield from walk(called, many, fused or operation.code == 'fusion')

  return walk(program.entry, 1, False)


def trips(operation: Operation, program: Program) -> int | None:
  """How often a loop runs, 1 for other operations; None if its text does not say so."""
  if operation.code != 'while':
    return 1
  if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest):
    return int(found[1])
  # Compilers for TPUs do not say it. A loop of JAX counts from 0 while it is less than its length.
  found = re.search(r'condition=%?([\w.\-]+)', operation.rest)
  condition = program.computations.get(found[1], {}) if found else {}
  *_, last = [None, *condition.values()]
  if last is None or last.code != 'compare' or 'direction=LT' not in last.rest:
    return None
  limit = condition.get(last.operands[1])
  found = re.match(r'\((\d+)\)', limit.rest) if limit and limit.code == 'constant' else None
  return int(found[1]) if found else None


def unknown_loops(program: Program) -> int:
  """The number of loops that run nobody knows how often."""
  return sum(trips(run.operation, program) is None for run in runs(program))


def flops(run: Run) -> int:
  """Of a matrix product or convolution, 0 for others: two for each product of two numbers."""
  operation = run.operation
  if operation.code not in ('dot', 'convolution'):
    return 0
  sides = [run.inside[name] for name in operation.operands[:2] if name in run.inside]
  if len(sides) < 2:
    return 0
  left, right, out = (values(x.type)[0][1] for x in (*sides, operation))
  if operation.code == 'convolution':
    return 2 * _products(operation, left, right, out)
  found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', operation.rest)
  summed = math.prod(left[int(i)] for i in found[1].split(',') if i) if found else 1
  return 2 * math.prod(out) * summed


def _products(operation: Operation, *shapes: tuple[int, ...]) -> int:
  """Those of a convolution, without those with padding and with zeros between dilated values.

  A TPU writes the products of a batch as a convolution over it, with a window as large as the
  batch, of which all places but one meet padding.

  Args:
    shapes: of what is given, of the kernel, and of the result.
  """
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', operation.rest)
  if labels is None:
    return 0
  given, kernel, made = (dict(zip(axes, shape)) for axes, shape in zip(labels.groups(), shapes))
  window = re.search(r'window=\{([^}]*)\}', operation.rest)
  fields = {
    name: text.split('x') for name, text in re.findall(r'(\w+)=(\S+)', window[1] if window else '')
  }
  count = made['b'] * made['f'] * kernel['i']
  for i, axis in enumerate(sorted(filter(str.isdigit, kernel))):
    one = {name: texts[i] for name, texts in fields.items()}
    stride, spread, gap = (int(one.get(x, 1)) for x in ('stride', 'lhs_dilate', 'rhs_dilate'))
    before = int(one.get('pad', '0').split('_')[0])
    places = np.arange(made[axis])[:, None] * stride + np.arange(kernel[axis]) * gap - before
    values_met = (places % spread == 0) & (0 <= places) & (places < given[axis] * spread)
    count *= int(values_met.sum())
  return count


def moved(run: Run) -> int:
  """The bytes that an operation reads and writes in memory."""
  operation = run.operation
  if run.fused or operation.code in VIEWS or operation.code == 'constant':
    return 0
  read = [run.inside[name].bytes for name in operation.operands if name in run.inside]
  return operation.bytes + sum(read)


def repeated(program: Program) -> tuple[int, int]:
  """(FLOPs, bytes) of all runs of loops but the first, which XLA's own analysis leaves out."""
  again = [(run.times - 1, run) for run in runs(program) if run.times > 1]
  return sum(n * flops(run) for n, run in again), sum(n * moved(run) for n, run in again)


def collectives(program: Program) -> dict[str, Traffic]:
  """What devices send to each other in a step, by kind."""
  found: dict[str, Traffic] = {}
  for run in runs(program):
    kind, operation = run.operation.code.removesuffix('-start'), run.operation
    if kind not in COLLECTIVES:
      continue
    given = [run.inside[name].bytes for name in operation.operands if name in run.inside]
    out = operation.bytes if kind == operation.code else max(0, operation.bytes - sum(given))
    whole = max(out, sum(given))
    n = _group(operation.rest, program.devices)
    share = (n - 1) / n * (2 if kind == 'all-reduce' else 1) if kind != 'collective-permute' else 1
    before = found.get(kind, Traffic(0, 0, 0.0))
    found[kind] = Traffic(
      before.number + run.times,
      before.bytes + run.times * whole,
      before.sent + run.times * whole * share,
    )
  return found


def largest(program: Program, count: int = 10) -> list[Operation]:
  """The largest arguments and values in main memory; not all of them are there at one time."""
  held = {
    run.operation.name: run.operation
    for run in runs(program)
    if not run.fused
    and (run.operation.code not in VIEWS or run.operation.code == 'parameter')
    and (run.operation.code != 'parameter' or run.times == 1 and 'op_name' in run.operation.rest)
  }
  return sorted(held.values(), key=lambda operation: -operation.held)[:count]


def owner(operation: Operation, program: Program) -> str:
  """As `Operation.owner`; of a fusion that names none, the owner of the last operation in it."""
  called = re.search(r'calls=%?([\w.\-]+)', operation.rest)
  inside = program.computations.get(called[1], {}) if called else {}
  owners = [x.owner for x in inside.values() if x.code != 'parameter']
  return next(filter(None, (operation.owner, *reversed(owners))), '')


def values(type_: str) -> list[tuple[str, tuple[int, ...]]]:
  """(kind, shape) of each value of a type: f32[8,4] or a tuple of such."""
  return [
    (kind, tuple(int(n) for n in shape.split(',') if n)) for kind, shape in VALUE.findall(type_)
  ]


def _bytes(type_: str) -> int:
  """Of all values of a type."""
  bits = lambda kind: 8 if kind == 'pred' else int(re.findall(r'\d+', kind)[0])
  return sum(math.prod(shape) * bits(kind) // 8 for kind, shape in values(type_))


def _group(rest: str, devices: int) -> int:
  """The number of devices that take part in one collective, of all devices."""
  if iota := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
    return int(iota[1])
  if named := re.search(r'replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}', rest):
    sizes = dict(re.findall(r"('\w+')=(\d+)", named[1]))
    axes = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", named[2])  # the second: a part of an axis
    return math.prod(int(part or sizes[axis]) for axis, part in axes)
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', rest)
  return len(listed[1].split(',')) if listed else devices


def _operation(line: str) -> Operation | None:
  """The operation of a line: `ROOT %name = type code(operands), attributes`."""
  head = re.match(r'\s+(?:ROOT )?%?([\w.\-]+) = ', line)
  if not head:
    return None
  rest = line[head.end() :]
  end = _closing(rest) if rest.startswith('(') else rest.find(' ')
  type_, rest = rest[:end], rest[end:].lstrip()
  code, _, _ = rest.partition('(')
  rest = rest[len(code) :]
  operands = re.findall(r'%([\w.\-]+)', rest[: _closing(rest)])
  return Operation(head[1], type_, code, tuple(operands), rest)


def _closing(text: str) -> int:
  """The place after the bracket that closes the first one."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return i + 1
  return len(text)
