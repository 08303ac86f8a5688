"""Of several processes one builds, and the others wait for it."""

import multiprocessing
import os
import signal
import time

from dgsct_jax import lock


def note(path, log, seconds):
  with lock.held(path, 'counts'):
    with log.open('a') as file:
      file.write(f'in {os.getpid()}\n')
    time.sleep(seconds)
    with log.open('a') as file:
      file.write(f'out {os.getpid()}\n')


def start(*arguments):
  process = multiprocessing.get_context('spawn').Process(target=note, args=arguments)
  process.start()
  return process


def test_work_under_a_lock_never_overlaps(tmp_path):
  path, log = tmp_path / 'a/.lock', tmp_path / 'log'
  processes = [start(path, log, 0.2) for _ in range(4)]
  for process in processes:
    process.join(60)
  lines = [line.split() for line in log.read_text().splitlines()]
  assert len(lines) == 8 and not path.exists()
  for entered, left in zip(lines[::2], lines[1::2]):
    assert entered[0] == 'in' and left[0] == 'out' and entered[1] == left[1]


def test_a_killed_holder_keeps_nobody_waiting(tmp_path, capsys):
  path, log = tmp_path / '.lock', tmp_path / 'log'
  process = start(path, log, 60)
  while not log.exists():
    time.sleep(0.05)
  os.kill(process.pid, signal.SIGKILL)
  process.join(60)
  since = time.monotonic()
  note(path, log, 0)
  assert time.monotonic() - since < 5
  assert log.read_text().splitlines()[-1] == f'out {os.getpid()}'


def test_who_is_waited_for_is_said(tmp_path, capsys):
  path, log = tmp_path / '.lock', tmp_path / 'log'
  process = start(path, log, 1)
  while not log.exists():
    time.sleep(0.05)
  note(path, log, 0)
  process.join(60)
  assert f'waiting: process {process.pid} on ' in capsys.readouterr().err
