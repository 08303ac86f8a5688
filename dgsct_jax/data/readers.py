"""Processes that read clips. They end with the process that started them, however it ends."""

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading

# Signals that a terminal sends to all processes of a command: Ctrl-C, and when it is closed. The
# first process decides.
OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)


def pool(count: int) -> concurrent.futures.ProcessPoolExecutor:
  """An executor with `count` processes."""
  spawn = multiprocessing.get_context('spawn')  # a fork would copy locks of other threads
  return concurrent.futures.ProcessPoolExecutor(count, spawn, initializer=begin)


def worthwhile(clips: int, each: int) -> int:
  """How many processes to share `clips` among: one for each core and `each` clips; 0 for none.

  Python's `spawn` imports the main module once more in each of them, which a user's script need not
  expect. So there are some for `python -m` of a module of this package alone.
  """
  main = getattr(sys.modules['__main__'], '__spec__', None)
  if main is None or main.name.partition('.')[0] != __name__.partition('.')[0]:
    return 0
  count = min(os.cpu_count() or 1, clips // each)
  return count if count > 1 else 0


def begin(*_: int) -> None:
  """What each of them does first. Grain's workers do it, too, with their number and count."""
  for number in OF_TERMINALS:
    signal.signal(number, signal.SIG_IGN)
  if parent := multiprocessing.parent_process():
    threading.Thread(target=_end_after, args=[parent], daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
  # Both Python's and Grain's wait for ever for a process that was killed.
  parent.join()
  os._exit(1)
