"""Commands have their own thresholds of garbage collection, and nobody else does."""

import json

import pytest

from dgsct_jax import collector
from tests import processes

# Python runs this at its start.
TELL = """
import atexit, gc, json
before = gc.get_threshold()
atexit.register(lambda: print(json.dumps([before, gc.get_threshold()]), flush=True))
"""


@pytest.fixture
def thresholds(tmp_path):
  """For the arguments of Python, the thresholds at its start and at its end."""

  def run(*arguments: str) -> list[tuple[int, ...]]:
    out = processes.with_site(tmp_path, TELL, *arguments)
    return [tuple(x) for x in json.loads(out.splitlines()[-1])]

  return run


@pytest.mark.parametrize('module', ['dgsct_jax.data.prepare', 'benchmarks.noise'])
def test_a_command_collects_seldom(thresholds, module):
  flags = ['--help'] if module.startswith('dgsct_jax') else []
  before, after = thresholds('-m', module, *flags)
  assert before != after == collector.THRESHOLDS


def test_who_only_imports_the_package_keeps_his_own(thresholds, tmp_path):
  before, after = thresholds('-c', 'import dgsct_jax.tree')
  assert before == after
  tmp_path.joinpath('mine.py').write_text('import dgsct_jax.tree')
  for arguments in ([str(tmp_path / 'mine.py')], ['-m', 'mine']):
    before, after = thresholds(*arguments)
    assert before == after
