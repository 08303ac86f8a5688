"""A lock file, for one builder at a time among all processes and hosts that share a disk."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

WAIT = 0.5  # seconds between two attempts


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[None]:
  """Holds a lock file; while another process holds it, waits and prints for which one.

  The operating system releases the lock when its holder ends, however it ends.

  Args:
    what: what the holder does, for the message, such as 'builds FOLDER'.
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
  """The locked file, or None while another process holds the lock."""
  file = path.open('a+')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
      return file
  except (BlockingIOError, FileNotFoundError):
    pass
  file.close()  # another process holds it, or has removed it since it was opened
  return None
