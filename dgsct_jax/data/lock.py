"""One builder at a time, over processes and over hosts that share a disk."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

WAIT = 1.0  # seconds between two looks


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[None]:
  """Holds a lock file; waits, and says for whom, while another process holds it.

  The system gives the lock back when its holder ends, however it ends.

  Args:
    what: is done under the lock, for the message.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a+') as file:
    told = False
    while not _taken(file.fileno()):
      if not told:
        file.seek(0)
        print(f'waiting: {file.read() or "another process"} {what}', file=sys.stderr, flush=True)
      told = True
      time.sleep(WAIT)
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    yield


def _taken(file: int) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    return False
