"""Commands ask for large pages where the kernel gives them to whom asks, and nobody else does."""

import json
import sys

import pytest

from dgsct_jax import large_pages
from tests import processes

MADVISE = 'always [madvise] never\n'
# Python runs this at its start: it tells of a second start instead of making it.
TELL = """
import json, os
def execve(path, arguments, environment):
  print(json.dumps([path, arguments, environment['GLIBC_TUNABLES']]), flush=True)
  os._exit(0)
os.execve = execve
"""


@pytest.mark.parametrize(
  'given, setting, tunables',
  [
    ({}, MADVISE, 'glibc.malloc.hugetlb=1'),
    ({'GLIBC_TUNABLES': ''}, MADVISE, 'glibc.malloc.hugetlb=1'),
    (
      {'GLIBC_TUNABLES': 'glibc.malloc.check=3'},
      MADVISE,
      'glibc.malloc.check=3:glibc.malloc.hugetlb=1',
    ),
    ({'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'}, MADVISE, ''),  # the user's choice
    ({'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}, MADVISE, ''),  # it was started again
    ({}, '[always] madvise never\n', ''),  # all have them
    ({}, 'always madvise [never]\n', ''),
    ({}, '', ''),  # no Linux, or one without them
  ],
)
def test_it_is_asked_for_where_that_changes_something(given, setting, tunables):
  assert large_pages.asked(given, setting) == tunables


@pytest.fixture
def told(tmp_path):
  """For the arguments of Python, the second start that it asks for, or None."""

  def start(*arguments: str) -> list | None:
    out = processes.with_site(tmp_path, TELL, *arguments)
    return json.loads(out) if out.startswith('[') else None

  return start


@pytest.mark.parametrize('module', ['dgsct_jax.main', 'dgsct_jax.data.prepare', 'benchmarks.costs'])
def test_a_command_is_started_again_with_its_arguments(told, module):
  setting = large_pages.SETTING
  if not setting.exists() or '[madvise]' not in setting.read_text():
    pytest.skip('needs a kernel that gives large pages to whom asks')
  arguments = ['-X', 'dev', '-m', module, '--a b', '--config=c.py']
  assert told(*arguments) == [
    sys.executable,
    [sys.executable, *arguments],
    'glibc.malloc.hugetlb=1',
  ]


def test_who_only_imports_the_package_is_left_alone(told, tmp_path):
  assert told('-c', 'import dgsct_jax') is None
  tmp_path.joinpath('mine.py').write_text('import dgsct_jax.tree, sys; print("fine")')
  assert told(str(tmp_path / 'mine.py')) is None
  assert told('-m', 'mine') is None
