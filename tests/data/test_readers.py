"""Processes that read clips."""

import os
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

from dgsct_jax.data import readers

ROOT = Path(__file__).parents[2]


POOL = """
from dgsct_jax.data import readers
pool = readers.pool(2)
list(pool.map(abs, range(8)))
"""
GRAIN = """
from dgsct_jax.data import pipeline
from tests import toy
batches = pipeline.train(toy.task().data('train'), batch=2, seed=0, workers=2)
next(batches)
"""


@pytest.mark.parametrize('start', [POOL, GRAIN], ids=['pool', 'grain'])
def test_they_end_when_the_process_that_started_them_is_killed(start):
  code = f'import os, signal\n{start}\nos.kill(os.getpid(), signal.SIGKILL)'
  # It returns when the last process has closed what it prints to.
  killed = subprocess.run([sys.executable, '-c', code], capture_output=True, timeout=60, cwd=ROOT)
  assert killed.returncode == -signal.SIGKILL, killed.stderr


def test_what_a_terminal_sends_is_for_the_first_process_alone():
  with readers.pool(1) as pool:
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C; it is closed
      os.kill(pool.submit(os.getpid).result(), number)
      assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize(
  'main, clips, count',
  [
    ('dgsct_jax.main', 1650, 4),  # a core each
    ('dgsct_jax.main', 500, 2),
    ('dgsct_jax.main', 399, 0),  # one alone would be no faster
    ('mine', 1650, 0),  # it may not expect to be imported again
    ('', 1650, 0),
  ],
)
def test_there_are_as_many_as_it_is_worth(monkeypatch, main, clips, count):
  spec = ModuleSpec(main, None) if main else None
  monkeypatch.setitem(sys.modules, '__main__', SimpleNamespace(__spec__=spec))
  monkeypatch.setattr(os, 'cpu_count', lambda: 4)
  assert readers.worthwhile(clips, each=200) == count
