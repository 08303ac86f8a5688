"""Whole processes that are stopped: what is finished stays, and the same command goes on."""

import json
import os
import signal

import pytest

from dgsct_jax import checkpoint, lock, train, whole
from tests import forks, toy

# The command with the toy as its task. It sends itself signals where MODULE.NAME is called for the
# n-th time: before, after, or while it runs.
COMMAND = """
import importlib, os, signal, sys, threading
from absl import app
from dgsct_jax import command_line, main
from dgsct_jax.tasks import registry
from tests import toy

registry.TASKS['toy'] = lambda config: toy.task(config.model.width)
place, when, count, *numbers = sys.argv.pop().split()
module, _, name = place.rpartition('.')
module, calls = importlib.import_module(module), []
call = getattr(module, name)

def stop():
  for number in numbers:
    if number == 'unread':  # as when `tee`, to which it writes, or the terminal is gone
      read, write = os.pipe()
      os.close(read)
      os.dup2(write, 1)
      os.dup2(write, 2)
    else:
      os.kill(os.getpid(), int(number))

def stopping(*args, **kwargs):
  calls.append(0)
  here = len(calls) == int(count)
  if here and when == 'while':
    threading.Timer(0.02, stop).start()
  if here and when == 'before':
    stop()
  result = call(*args, **kwargs)
  if here and when == 'after':
    stop()
  return result

setattr(module, name, stopping)
app.run(main.main, flags_parser=command_line.parse_flags)
"""
CONFIG = """
from tests import toy

def get_config():
  return toy.config(**{'optim.epochs': 2})
"""


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """Two epochs without a stop."""
  workdir = tmp_path_factory.mktemp('unbroken')
  train.train(toy.config(**{'optim.epochs': 2}), workdir, toy.task())
  return workdir


def stopped(tmp_path, place, when, count, *numbers):
  """What the command leaves that gets signals at a place: (its exit status, its output)."""
  (tmp_path / 'tiny.py').write_text(CONFIG)
  words = f'dgsct_jax.{place} {when} {count} {" ".join(str(number) for number in numbers)}'
  flags = [f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run']
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  done = forks.command(COMMAND, *flags, words, env=environment).finish()
  assert 'Traceback' not in done.stderr, done.stderr
  return done.returncode, done.stdout + done.stderr


def goes_on(tmp_path, unbroken):
  """The same command leaves what an unbroken run does."""
  workdir = tmp_path / 'run'
  train.train(toy.config(**{'optim.epochs': 2}), workdir, toy.task())
  for name in ('scalars.jsonl', 'metrics.json', 'predictions.jsonl'):
    assert (workdir / name).read_text() == (unbroken / name).read_text(), name
  for step in (workdir / 'checkpoints').iterdir():
    assert not whole.fault(step, checkpoint.ITEMS)
  assert not (workdir / '.lock').exists()


def steps(workdir):
  folder = workdir / 'checkpoints'
  return sorted(int(path.name) for path in folder.glob('*') if path.name.isdecimal())


# A process costs about 20 s; every other place would be one more.
AT_ONCE = [
  pytest.param('state.layout', 'before', id='at the start', marks=pytest.mark.slow),
  pytest.param('train.compile_step', 'while', id='while compiling', marks=pytest.mark.slow),
  pytest.param('figures.draw', 'before', id='while drawing'),
]
SAVED = [
  pytest.param('writer.progress', 'before', 3, id='in a step'),
  pytest.param('evaluate.evaluate', 'before', 1, id='in an evaluation', marks=pytest.mark.slow),
  pytest.param('checkpoint.save', 'before', 1, id='before a save', marks=pytest.mark.slow),
  pytest.param('checkpoint.save', 'after', 2, id='while saving', marks=pytest.mark.slow),
]


@pytest.mark.parametrize('place, when', AT_ONCE)
def test_with_nothing_to_save_an_interrupt_ends_at_once(unbroken, tmp_path, place, when):
  status, _ = stopped(tmp_path, place, when, 1, signal.SIGINT)
  assert status == -signal.SIGINT
  assert steps(tmp_path / 'run') == (steps(unbroken) if 'draw' in place else [])
  goes_on(tmp_path, unbroken)


@pytest.mark.parametrize('place, when, count', SAVED)
@pytest.mark.parametrize(
  'number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupt_saves_and_leaves(unbroken, tmp_path, place, when, count, number):
  status, said = stopped(tmp_path, place, when, count, number)
  assert status == 0 and f'{signal.Signals(number).name}: saving after this step' in said
  assert f'saved step {steps(tmp_path / "run")[-1]}; the same command goes on from there' in said
  goes_on(tmp_path, unbroken)


@pytest.mark.parametrize(
  'number', [signal.SIGHUP, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_so_it_is_where_nobody_reads_what_it_says(unbroken, tmp_path, number):
  """A terminal that is closed sends SIGHUP; Ctrl-C ends `tee`, too."""
  status, _ = stopped(tmp_path, 'writer.progress', 'before', 3, 'unread', number)
  assert status == 0 and len(steps(tmp_path / 'run')) == 1 < len(steps(unbroken))
  goes_on(tmp_path, unbroken)


@pytest.mark.slow
def test_a_run_that_nobody_reads_goes_on_to_its_end(unbroken, tmp_path):
  status, _ = stopped(tmp_path, 'writer.progress', 'before', 3, 'unread')
  assert status == 0 and steps(tmp_path / 'run') == steps(unbroken)
  goes_on(tmp_path, unbroken)


@pytest.mark.parametrize(
  'place, when, count',
  [
    pytest.param('writer.progress', 'before', 7, id='in a step', marks=pytest.mark.slow),
    pytest.param('checkpoint.save', 'after', 2, id='while saving'),
  ],
)
def test_a_second_interrupt_ends_at_once_and_leaves_what_is_finished(
  unbroken, tmp_path, place, when, count
):
  status, said = stopped(tmp_path, place, when, count, signal.SIGINT, signal.SIGINT)
  assert status == -signal.SIGINT and 'SIGINT: saving after this step; once more' in said
  assert steps(tmp_path / 'run')[:1] == [4]  # that of step 6 may still have been on its way
  goes_on(tmp_path, unbroken)


def test_of_two_runs_in_a_folder_the_second_says_who_works_there(tmp_path):
  with lock.held(tmp_path / '.lock', 'trains'):
    with pytest.raises(ValueError, match=rf'^process {os.getpid()} on \S+, since .* trains in '):
      train.train(toy.config(), tmp_path, toy.task())
  assert os.listdir(tmp_path) == []


def test_the_lock_of_a_run_that_was_killed_is_taken_over(tmp_path):
  (tmp_path / '.lock').write_text('process 1 on elsewhere')
  changes = {'optim.epochs': 1}
  assert train.train(toy.config(**changes), tmp_path, toy.task())['accuracy'] >= 0
  assert json.loads((tmp_path / 'metrics.json').read_text())['step'] == 6
