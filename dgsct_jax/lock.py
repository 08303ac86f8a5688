"""A lock file, for one worker at a time among all processes and hosts that share a disk."""

import contextlib
import datetime
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
def held(path: Path, what: str, wait: bool = True) -> Iterator[None]:
  """Holds a lock file; while another process holds it, waits and prints for which one.

  The operating system releases the lock when its holder ends, however it ends.

  Args:
    what: what the holder does, for the message, such as 'builds FOLDER'.
    wait: False: another holder is an error.

  Raises:
    ValueError: another process holds it, and this one is not to wait.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  told = False
  while (file := _take(path)) is None:
    if not told:
      holder = path.read_text() if path.exists() else ''
      says = f'{holder or "another process"} {what}'
      if not wait:
        raise ValueError(f'{says}; wait for its end, or stop it (the lock is {path}).')
      print(f'waiting: {says}', file=sys.stderr, flush=True)
    told = True
    time.sleep(WAIT)
  with file:
    now = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {now},')
    file.flush()
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


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
