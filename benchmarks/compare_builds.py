"""Two builds of this package compared in one run: compiling, step, forward, memory, quickstart.

python -m benchmarks.compare_builds OLD NEW --config=configs/ave.py:tiny [--clips=1] [--repeats=5]
    [--phases=step,forward] [--quickstart] [--start]

OLD and NEW are checkouts, such as that of `git worktree add ../old f8ef625`. Each is run by the
Python of its own .venv, if it has one, else by this one. A phase is compiled by each build, read
back from its compile cache by a second process of each, and then run by these two alternately: one
waits while the other runs. Prints a Markdown table of seconds (medians), bytes and their ratios.
With --quickstart, the shipped quickstart is trained by both, from start to end, once. With --start,
both train it on a few clips and then are asked, alternately and from a new process each time, to
score it and to predict a clip of ten seconds.

Clips and weights are random. The builds need `benchmarks/step_time.py`, as all since f8ef625 have.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import app, flags

from benchmarks import video
from dgsct_jax.writer import gb

CONFIG = flags.DEFINE_string('config', 'configs/ave.py:tiny', 'Config, in both builds.')
CLIPS = flags.DEFINE_integer('clips', 1, 'Clips in a batch.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed runs of each build.', lower_bound=1)
PHASES = flags.DEFINE_list('phases', ['step', 'forward'], 'What to compile and time.')
QUICKSTART = flags.DEFINE_bool('quickstart', False, 'Train configs/quickstart.py with both, too.')
START = flags.DEFINE_bool('start', False, 'Time the start of scoring and of predict, too.')

WORKER = Path(__file__).with_name('build_worker.py')
FEW = ('--config.data.clips.train=64', '--config.data.clips.val=8', '--config.data.clips.test=8')
HEAD = '| phase | what | old | new | new : old |\n| --- | --- | --- | --- | --- |'


class Build:
  """A phase of a checkout, compiled in a process of its own, which waits until it is asked."""

  def __init__(self, root: Path, phase: str, cache: Path):
    ours, theirs = os.pipe()
    self._command = [python(root), '-P', str(WORKER), str(theirs)]
    self._command += [f'--config={CONFIG.value}', f'--clips={CLIPS.value}', f'--phase={phase}']
    self._process = subprocess.Popen(
      self._command,
      cwd=root,
      env=environment(root, cache),
      pass_fds=[theirs],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      text=True,
    )
    os.close(theirs)
    self._answers = os.fdopen(ours)
    # `compile_seconds`, and `bytes` of arguments and intermediate values.
    self.compiled = self._answer()

  def run(self) -> dict[str, float]:
    """Runs the phase once: `seconds`, and `process_bytes` at their most so far."""
    assert self._process.stdin
    self._process.stdin.write('run\n')
    self._process.stdin.flush()
    return self._answer()

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()
    self._answers.close()

  def _answer(self) -> dict[str, float]:
    line = self._answers.readline()
    if not line:
      raise RuntimeError(f'{" ".join(self._command)} ended; see above.')
    return json.loads(line)


def main(argv: list[str]) -> None:
  """Prints the table, phase by phase."""
  if len(argv) != 3:
    raise app.UsageError('Give two folders: OLD NEW.')
  roots = {'old': Path(argv[1]).resolve(), 'new': Path(argv[2]).resolve()}
  for root in roots.values():
    if not (root / 'benchmarks/step_time.py').is_file():
      raise app.UsageError(f'{root} is no checkout with benchmarks/step_time.py.')
  print(HEAD)
  for phase in PHASES.value:
    for line in compare(roots, phase):
      print(line, flush=True)
  if QUICKSTART.value:
    seconds = {name: quickstart(root) for name, root in roots.items()}
    print(row('quickstart', 'start to end', seconds, 's'))
  if START.value:
    for line in starts(roots):
      print(line, flush=True)


def compare(roots: Mapping[str, Path], phase: str) -> Iterator[str]:
  """The lines of a phase."""
  with tempfile.TemporaryDirectory() as caches, contextlib.ExitStack() as stack:
    cold, warm, builds = {}, {}, {}
    for name, root in roots.items():
      with contextlib.closing(Build(root, phase, Path(caches, name))) as build:
        cold[name] = build.compiled
    for name, root in roots.items():
      builds[name] = stack.enter_context(contextlib.closing(Build(root, phase, Path(caches, name))))
      warm[name] = builds[name].compiled
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
    for _ in range(REPEATS.value):
      for name, build in builds.items():
        runs[name].append(build.run())
  of = lambda found, key: {name: numbers[key] for name, numbers in found.items()}
  yield row(phase, 'trace and compile', of(cold, 'compile_seconds'), 's')
  yield row(phase, 'trace and read back', of(warm, 'compile_seconds'), 's')
  times = {name: statistics.median(run['seconds'] for run in found) for name, found in runs.items()}
  yield row(phase, f'run, median of {REPEATS.value}', times, 's')
  yield row(phase, 'planned memory', of(cold, 'bytes'), 'GB')
  peaks = {name: max(run['process_bytes'] for run in found) for name, found in runs.items()}
  yield row(phase, 'peak of the process', peaks, 'GB')


def quickstart(root: Path) -> float:
  """Seconds of a whole run of the shipped quickstart, with nothing compiled before."""
  with tempfile.TemporaryDirectory() as folder:
    return call(root, Path(folder), *training(Path(folder)))


def starts(roots: Mapping[str, Path]) -> Iterator[str]:
  """The lines of what a trained run is asked for, from a new process and with all compiled."""
  with tempfile.TemporaryDirectory() as folder:
    clip = Path(folder, 'clip.mp4')
    video.make(clip, 10)
    folders = {name: Path(folder, name) for name in roots}
    few = {name: (*training(folder), *FEW) for name, folder in folders.items()}
    for name, root in roots.items():
      call(root, folders[name], *few[name], '--config.optim.epochs=1')
    asked: dict[str, dict[str, tuple[str, ...]]] = {
      'scoring': {name: (*command, '--mode=evaluate') for name, command in few.items()},
      'predict': dict.fromkeys(roots, ('predict', str(clip))),
    }
    for what, commands in asked.items():
      seconds: dict[str, list[float]] = {name: [] for name in roots}
      for _ in range(REPEATS.value + 1):  # the first one compiles
        for name, root in roots.items():
          seconds[name].append(call(root, folders[name], *commands[name]))
      medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
      yield row(what, f'start to end, median of {REPEATS.value}', medians, 's')


def training(folder: Path) -> tuple[str, ...]:
  """The command of the quickstart, with its clips in a folder."""
  return 'main', '--config=configs/quickstart.py', f'--config.data.dir={folder}/data'


def call(root: Path, folder: Path, module: str, *arguments: str) -> float:
  """Seconds of a command of a build on the run in a folder, where what it compiles is kept."""
  folder.mkdir(exist_ok=True)
  since = time.monotonic()
  subprocess.run(
    [*(python(root), '-P', '-m', f'dgsct_jax.{module}'), *(f'--workdir={folder}/run', *arguments)],
    cwd=root,
    env=environment(root, folder / 'compiled'),
    stdout=subprocess.DEVNULL,
    check=True,
  )
  return time.monotonic() - since


def environment(root: Path, cache: Path) -> dict[str, str]:
  """That of a process which imports this build and keeps what it compiles in `cache`.

  It has large pages (benchmarks/__init__.py) if the commands of this build ask for them.
  """
  given = dict(os.environ)
  if not (root / 'dgsct_jax/large_pages.py').is_file():
    given.pop('GLIBC_TUNABLES', None)
  return given | {'PYTHONPATH': str(root), 'JAX_COMPILATION_CACHE_DIR': str(cache)}


def python(root: Path) -> str:
  """That of the build's own environment, if it has one."""
  own = root / '.venv/bin/python'
  return str(own) if own.exists() else sys.executable


def row(phase: str, what: str, values: Mapping[str, float], unit: str) -> str:
  """A line of the table."""
  texts = [gb(value) if unit == 'GB' else f'{value:.2f} s' for value in values.values()]
  return f'| {phase} | {what} | {" | ".join(texts)} | {values["new"] / values["old"]:.2f} |'


if __name__ == '__main__':
  app.run(main)
