"""Commands in processes of their own that have imported everything before they begin.

Imports take longer than most commands do that run toys. One process imports for all of them, and
each is a fork of it.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from dgsct_jax import collector

ROOT = Path(__file__).parents[1]
SECONDS = 240  # that a fork may take
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['dgsct_jax.main', 'tests.tiny', 'tests.toy'])


class Fork:
  """A function that runs in a process of its own, with another environment."""

  def __init__(self, function: Callable[..., None], *args: Any, env: Mapping[str, str]):
    self._args = args
    self._folder = tempfile.TemporaryDirectory()
    self._files = [Path(self._folder.name, name) for name in ('stdout', 'stderr')]
    self._process = FORKS.Process(target=_begin, args=(self._files, dict(env), function, args))
    self._process.start()

  def finish(self) -> subprocess.CompletedProcess:
    """Waits for its end. Raises subprocess.TimeoutExpired if that does not come."""
    self._process.join(SECONDS)
    status = self._process.exitcode
    self._process.kill()
    with self._folder:
      out, err = (file.read_text() for file in self._files)
    if status is None:
      raise subprocess.TimeoutExpired(self._args, SECONDS, out, err)
    return subprocess.CompletedProcess(self._args, status, out, err)


def command(code: str, *arguments: str, env: Mapping[str, str] = os.environ) -> Fork:
  """Starts what `python -c CODE ARGUMENTS` does."""
  return Fork(_execute, code, arguments, env=env)


def _execute(code: str, arguments: tuple[str, ...]) -> None:
  sys.argv = ['-c', *arguments]
  exec(code, {'__name__': '__main__'})


def _begin(
  files: list[Path], env: dict[str, str], function: Callable[..., None], args: tuple[Any, ...]
) -> None:
  for number, file in enumerate(files, start=1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
  os.chdir(ROOT)
  os.environ.clear()
  os.environ.update(env)
  for name in ('jax_platforms', 'jax_compilation_cache_dir'):  # were read when jax was imported
    jax.config.update(name, env.get(name.upper()))
  collector.relax()
  function(*args)
