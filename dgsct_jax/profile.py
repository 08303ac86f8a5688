"""Where the time of training steps goes, from the trace of a run.

python -m dgsct_jax.main --config=configs/quickstart.py --workdir=RUN --config.profile='(20,25)'
python -m dgsct_jax.profile RUN [--top=15] [--figure=profile.png]

Prints the time of a step and the share of waiting for clips, the share of each part of the model,
and the operations that take the longest, with the module that each is from. Time of an operation
is that of the device; of a CPU it is summed over its threads, so that parts add up to more than
the time of the step.
"""

import argparse
import collections
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData
from matplotlib.figure import Figure

from dgsct_jax import hlo
from dgsct_jax.writer import PROFILE, PROGRAM, STEP

INPUT = 'input'  # a part of `writer.Spent`, and its name in a trace
NOWHERE = 'optimiser and rest'


class Event(NamedTuple):
  """Something in a trace. operation: of the compiled step, '' if it is none; times in ns."""

  name: str
  operation: str
  start: float
  length: float


class Trace(NamedTuple):
  """What a trace tells of its steps. operations: seconds of each, without what it contains."""

  steps: int
  seconds: float
  waiting: float
  operations: Mapping[str, float]


def read(folder: Path) -> Trace:
  """The newest trace below a folder.

  Raises:
    ValueError: there is none, or no whole step is in it.
  """
  files = sorted(folder.rglob('*.xplane.pb'), key=lambda file: file.stat().st_mtime)
  if not files:
    raise ValueError(
      f"There is no trace in {folder}; train with --config.profile='(20,25)', which writes one of"
      ' steps 20 to 25.'
    )
  operations: dict[str, float] = collections.defaultdict(float)
  marks: dict[str, list[float]] = collections.defaultdict(list)
  for line in _lines(files[-1]):
    for event in line:
      if event.name in (STEP, INPUT):
        marks[event.name].append(event.length / 1e9)
    for name, seconds in alone(event for event in line if event.operation).items():
      operations[name] += seconds
  if not marks[STEP] or not operations:
    raise ValueError(f'{files[-1]} has no whole step; trace more of them.')
  return Trace(len(marks[STEP]), sum(marks[STEP]), sum(marks[INPUT]), operations)


def _lines(file: Path) -> Iterator[list[Event]]:
  """The events of each thread of a host and each queue of a device."""
  for plane in ProfileData.from_file(str(file)).planes:
    for line in plane.lines:
      events = []
      for event in line.events:
        stats = dict(event.stats) if event.name[:1] != '$' else {}  # $: Python's own functions
        inside = str(stats.get('hlo_module', '')).startswith('jit_train_step')
        operation = str(stats.get('hlo_op', '')) if inside else ''
        events.append(Event(event.name, operation, event.start_ns, event.duration_ns))
      yield events


def alone(events: Iterable[Event]) -> dict[str, float]:
  """Seconds of each operation of one line, without those that lie within it."""
  seconds: dict[str, float] = collections.defaultdict(float)
  around: list[Event] = []
  for event in sorted(events, key=lambda event: (event.start, -event.length)):
    while around and event.start >= around[-1].start + around[-1].length:
      around.pop()
    if around:
      seconds[around[-1].operation] -= event.length / 1e9
    if not event.name.startswith('end: '):  # a mark, within what it marks or behind it
      around.append(event)
      seconds[event.operation] += event.length / 1e9
  return seconds


def owners(program: hlo.Program) -> dict[str, str]:
  """The module of each operation of a program; '' where it is not known."""
  return {
    name: hlo.owner(operation, program)
    for inside in program.computations.values()
    for name, operation in inside.items()
  }


def part(owner: str) -> str:
  """The part of the model that a module belongs to: the backbones, all exchanges, or its top."""
  top, below, *_ = *modules(owner), '', ''
  if not top or top == 'step_keys':
    return NOWHERE
  if top != 'encoder' or not below:
    return re.sub(r'_\d+$', '', top)
  return 'encoder/exchange' if below.startswith('exchange') else f'encoder/{below}'


def modules(owner: str) -> list[str]:
  """The modules of a path, without the model itself (`Class`) and methods (`name/name.method`)."""
  found: list[str] = []
  for scope in owner.split('/'):
    name, _, method = scope.partition('.')
    model, again = not found and name[:1].isupper(), method and found[-1:] == [name]
    if name.isidentifier() and not (model or again):  # an einsum's formula is none
      found.append(name)
  return found


def shares(trace: Trace, owner: Mapping[str, str]) -> dict[str, float]:
  """Seconds of a step in each part of the model, the longest first."""
  parts: dict[str, float] = collections.defaultdict(float)
  for name, seconds in trace.operations.items():
    parts[part(owner.get(name, ''))] += seconds / trace.steps
  return dict(sorted(parts.items(), key=lambda item: -item[1]))


def report(trace: Trace, owner: Mapping[str, str], top: int) -> Iterator[str]:
  """The lines that are printed."""
  whole = sum(trace.operations.values())
  yield (
    f'{trace.steps} steps, {trace.seconds / trace.steps:.3f} s each, of which'
    f' {trace.waiting / trace.seconds:.1%} waiting for clips'
  )
  yield f'\n{"part":24s}  share  s a step'
  for name, seconds in shares(trace, owner).items():
    yield f'{name:24s}  {seconds * trace.steps / whole:5.1%}  {seconds:.4f}'
  yield f'\n{"operation":32s}  share  s a step  module'
  longest = sorted(trace.operations.items(), key=lambda item: -item[1])[:top]
  for name, seconds in longest:
    text = f'{name[:32]:32s}  {seconds / whole:5.1%}  {seconds / trace.steps:8.4f}'
    yield f'{text}  {owner.get(name, "")}'.rstrip()


def draw(parts: Mapping[str, float], path: Path) -> None:
  """A bar for each part."""
  figure = Figure((7, 0.4 + 0.35 * len(parts)), layout='constrained')
  axes = figure.subplots()
  axes.barh(list(parts), list(parts.values()))
  axes.invert_yaxis()
  axes.set_xlabel('seconds of operations in a step')
  figure.savefig(path, dpi=100)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.profile',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('run', type=Path, metavar='RUN')
  parser.add_argument('--top', type=int, default=15, help='operations that are listed')
  parser.add_argument('--figure', type=Path, metavar='FILE', help='a picture of the parts')
  given = parser.parse_args(argv)
  try:
    trace = read(given.run / PROFILE)
    owner = owners(hlo.read((given.run / PROFILE / PROGRAM).read_text()))
    print('\n'.join(report(trace, owner, given.top)))
    if given.figure:
      draw(shares(trace, owner), given.figure)
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
