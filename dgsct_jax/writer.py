"""Writes scalars to a JSON lines file, to TensorBoard and to the terminal, from process 0 only."""

import contextlib
import datetime
import importlib
import json
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import jax

from dgsct_jax import whole

SCALARS = 'scalars.jsonl'
GOODPUT = 'goodput.json'
PROFILE = 'profile'  # the folder of traces
PROGRAM = 'train_step.txt'  # in it: the compiled step, which tells the module of each operation
STEP = 'train step'  # the name of a step in a trace


class Writer:
  """Writes the scalars of a run that goes on after `step`.

  Lines of later steps are dropped: they were written between a checkpoint and the end of a run that
  was killed. Lines that are damaged stay as they are.
  """

  def __init__(self, workdir: Path, step: int):
    self.active = jax.process_index() == 0
    if not self.active:
      return
    self._workdir = workdir
    workdir.mkdir(parents=True, exist_ok=True)
    kept = [text for text, line in _lines(workdir) if not line or line['step'] <= step]
    whole.write(workdir / SCALARS, ''.join(kept))
    self._file = (workdir / SCALARS).open('a')
    self._board = _tensorboard().SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

  def scalars(self, step: int, values: dict[str, float], prefix: str = 'train') -> None:
    """Writes values under 'prefix/name' after `step` batches."""
    if not self.active:
      return
    named = {f'{prefix}/{name}': float(value) for name, value in values.items()}
    self._file.write(_line({'step': step} | named))
    self._file.flush()
    for name, value in named.items():
      self._board.add_scalar(name, value, step)

  def say(self, text: str) -> None:
    """Prints a line of text."""
    if self.active:
      say(text)

  def spent(self, spent: 'Spent') -> None:
    """Says what the time since the start went to, and writes it to goodput.json."""
    if self.active:
      seconds = spent.seconds()
      self.say(shares(seconds))
      rounded = {part: round(value, 3) for part, value in seconds.items()}
      whole.write(self._workdir / GOODPUT, json.dumps(rounded) + '\n')

  def program(self, text: str) -> None:
    """Writes the compiled step beside its trace."""
    if self.active:
      whole.write(self._workdir / PROFILE / PROGRAM, text)

  def close(self) -> None:
    """Closes the files."""
    if self.active:
      self._file.close()
      self._board.close()


class Clock:
  """Measures clips per second and the remaining time, without the time that is `paused`."""

  def __init__(self, step: int, steps: int, batch: int):
    self.step, self.steps, self.batch = step, steps, batch
    self.start = time.monotonic()
    self.rate: float | None = None  # batches per second, between the last two reports

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """A context whose time is not counted."""
    since = time.monotonic()
    yield
    self.start += time.monotonic() - since

  def report(self, step: int) -> tuple[float, str]:
    """(clips per second since the last report, remaining time as text)."""
    now = time.monotonic()
    if step > self.step:
      self.rate = (step - self.step) / max(now - self.start, 1e-9)
      self.step, self.start = step, now
    left = datetime.timedelta(seconds=round((self.steps - step) / self.rate)) if self.rate else '?'
    return (self.rate or 0.0) * self.batch, str(left)


class Spent:
  """What the time of a run goes to, since it was started here."""

  PARTS = ('steps', 'input', 'evaluation', 'compilation', 'saving')

  def __init__(self) -> None:
    self.start = time.monotonic()
    self.parts = dict.fromkeys(self.PARTS, 0.0)
    self._before: dict[str, tuple[float, float]] = {}

  @contextlib.contextmanager
  def on(self, part: str) -> Iterator[None]:
    """A context whose time goes to a part; a trace has it under this name."""
    since = time.monotonic()
    try:
      with jax.profiler.TraceAnnotation(part):
        yield
    finally:
      self.add(part, time.monotonic() - since)

  def add(self, part: str, seconds: float) -> None:
    """Counts seconds that were measured elsewhere."""
    self.parts[part] += seconds

  def lately(self, part: str) -> tuple[float, float]:
    """(seconds of a part, of steps and input together) since this was last asked for the part."""
    now = self.parts[part], self.parts['steps'] + self.parts['input']
    before = self._before.get(part, (0.0, 0.0))
    self._before[part] = now
    return now[0] - before[0], now[1] - before[1]

  def seconds(self) -> dict[str, float]:
    """The seconds of each part, and the rest up to now."""
    return self.parts | {'rest': time.monotonic() - self.start - sum(self.parts.values())}


def shares(seconds: dict[str, float]) -> str:
  """One line: the whole time and the share of each part."""
  total = max(sum(seconds.values()), 1e-9)
  parts = ', '.join(f'{part} {value / total:.1%}' for part, value in seconds.items())
  return f'{datetime.timedelta(seconds=round(total))} in all: {parts}'


def say(text: str) -> None:
  """Prints a line of text, or does nothing from the time on when nobody reads it.

  So a run is not ended by a terminal that is closed, or by a `tee` that got the same Ctrl-C.
  """
  try:
    print(text, flush=True)
  except OSError:  # Python would try again at exit, so what is left goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read(workdir: Path) -> list[dict[str, int | float]]:
  """The lines written so far, without those that are damaged."""
  return [line for _, line in _lines(workdir) if line]


def _lines(workdir: Path) -> Iterator[tuple[str, dict[str, int | float]]]:
  """Each line as it stands and what it says: nothing if it is damaged. A cut last one is none."""
  path = Path(workdir) / SCALARS
  text = path.read_text('utf-8', 'surrogateescape') if path.is_file() else ''
  *lines, rest = text.split('\n')
  yield from ((f'{line}\n', _values(line)) for line in lines)
  if values := _values(rest):
    yield f'{rest}\n', values


def _values(line: str) -> dict[str, int | float]:
  try:
    values = json.loads(line)
    numbers = all(isinstance(value, int | float) for value in values.values())
    ''.join(values).encode()  # What is no text is no name.
    return values if numbers and isinstance(values['step'], int) else {}
  except (ValueError, AttributeError, KeyError, RecursionError):
    return {}


def progress(
  step: int, steps: int, scalars: dict[str, float], wait: float, clips: float, left: str
) -> str:
  """One line: step, loss and its parts, learning rate, speed and remaining time.

  Args:
    wait: the seconds for which a step had to wait for its clips.
    clips: clips per second.
  """
  rest = {name: value for name, value in scalars.items() if name not in ('loss', 'lr')}
  parts = ' '.join(f'{name} {value:.4f}' for name, value in rest.items())
  return (
    f'step {step}/{steps}  loss {scalars["loss"]:.4f}  {parts}  lr {scalars["lr"]:.2e}  '
    f'{clips:.1f} clips/s  input {1e3 * wait:.0f} ms a step  {left} left'
  )


def table(metrics: dict[str, float], title: str) -> str:
  """Names and values in two columns under a title."""
  width = max(map(len, metrics), default=0)
  lines = [f'  {name:{width}}  {value:10.4f}' for name, value in metrics.items()]
  return '\n'.join([title, *lines])


def _tensorboard() -> types.ModuleType:
  """The package tensorboardX, imported without torch.

  It imports torch where that is installed, but does not need it for scalars.
  """
  hidden = 'torch' not in sys.modules
  if hidden:
    sys.modules['torch'] = None  # type: ignore[assignment]  # makes `import torch` fail
  try:
    return importlib.import_module('tensorboardX')
  finally:
    if hidden:
      del sys.modules['torch']


def _line(values: dict[str, int | float]) -> str:
  return json.dumps(values) + '\n'


def gb(size: float) -> str:
  """Bytes in units that suit."""
  for unit, name in ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB')):
    if abs(size) >= unit:
      return f'{size / unit:.2f} {name}'
  return f'{size:.0f} B'
