"""jax's coordinator in a process of its own, beside process 0.

jax keeps it within process 0, and aborts the others with a stack of C++ as soon as that is gone.
Apart from it they live on, for as long as it takes to say who was lost.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

LINGER = 5.0  # seconds for which it outlives a process 0 that has not said goodbye


class Coordinator:
  """Stands for jax's service in process 0; takes its arguments.

  Raises OSError if it cannot be started.
  """

  def __init__(self, *arguments: Any, **options: Any):
    # Not one of this process's group: Ctrl-C is for the run, which still needs it then.
    self.process = subprocess.Popen(
      [sys.executable, '-P', __file__, json.dumps([arguments, options])],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    assert self.process.stdin and self.process.stdout
    if not self.process.stdout.readline():
      self.process.communicate()
      raise OSError(f'The coordinator of jax at {arguments[0]} has not started; see above.')

  def shutdown(self) -> None:
    """Ends it; for when all have left."""
    self.process.communicate('done')


@contextlib.contextmanager
def apart() -> Iterator[None]:
  """A context in which `jax.distributed.initialize` starts its coordinator apart."""
  from jax._src.lib import _jax  # what starts it has no public name

  within = _jax.get_distributed_runtime_service
  _jax.get_distributed_runtime_service = Coordinator
  try:
    yield
  finally:
    _jax.get_distributed_runtime_service = within


def main() -> None:
  """Serves until process 0 has ended."""
  from jaxlib import _jax  # without the rest of jax, which takes a second

  signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to all processes of a job
  arguments, options = json.loads(sys.argv[1])
  service = _jax.get_distributed_runtime_service(*arguments, **options)
  print('ready', flush=True)
  if sys.stdin.read() == 'done':
    service.shutdown()
  else:
    time.sleep(LINGER)
  os._exit(0)  # what is left of it would wait for those who are gone


if __name__ == '__main__':
  main()
