"""One builder at a time, over processes and over hosts that share a disk."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

WAIT = 0.5  # seconds between two looks


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[None]:
  """Holds a lock file; waits, and says for whom, while another process holds it.

  The system gives the lock back when its holder ends, however it ends.

  Args:
    what: is done under the lock, for the message.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  told = False
  while (file := _take(path)) is None:
    if not told:
      holder = path.read_text() if path.exists() else ''
      print(f'waiting: {holder or "another process"} {what}', file=sys.stderr, flush=True)
    told = True
    time.sleep(WAIT)
  with file:
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    try:
      yield
    finally:
      path.unlink()


def _take(path: Path) -> TextIO | None:
  """The locked file, or None while another process has it."""
  file = path.open('a+')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
      return file
  except (BlockingIOError, FileNotFoundError):
    pass
  file.close()  # another process holds it, or has removed it since it was opened
  return None
