#!/bin/bash
# grain 0.2.18: the worker processes of mp_prefetch stay when the process that reads from them is
# killed, idle, for as long as the machine runs.
#
# Expected: they end soon after it, as those of PyTorch's DataLoader do, which look for their parent.
# Real: each goes on until an event says that it should stop, which the reading process sets where it
#   closes its iterator or ends in order; a killed one does neither. That they are daemons is a
#   promise of an orderly exit, too. Nothing asks whether the parent lives.
# Source: _put_dataset_elements_in_buffer in
#   grain/_src/python/dataset/transformations/process_prefetch.py.
# Who is hurt: those whose training is killed from outside (out of memory, a scheduler's second
#   signal, kill -9) and started again on the same host. Each start leaves as many processes as it
#   had workers, of 200 MB and more each, and the next one may be killed for want of memory, too.
#   What works: a worker_init_fn that starts a thread which joins multiprocessing.parent_process()
#   and then leaves by os._exit.
# Exit 0: as described. 1: something else was seen. Needs python3 with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q grain==0.2.18 numpy==2.2.6
cd "$folder"
cat > reads.py <<'PYTHON'
import multiprocessing
import os
import signal
import sys
import threading

import grain
from absl import app


def end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)


def follow(*numbers):
  threading.Thread(target=end_with_parent, daemon=True).start()


def main(argv):
  begin = {'plain': None, 'following': follow}[argv[1]]
  numbers = grain.MapDataset.range(1000).batch(2).to_iter_dataset()
  read = iter(numbers.mp_prefetch(grain.MultiprocessingOptions(2), begin))
  next(read)
  print(*(child.pid for child in multiprocessing.active_children()), flush=True)
  os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
  app.run(main)
PYTHON
cat > counts.py <<'PYTHON'
import os
import signal
import subprocess
import sys
import time


def lives(pid):
  try:
    with open(f'/proc/{pid}/stat') as file:
      return file.read().rpartition(')')[2].split()[0] not in 'ZX'
  except OSError:
    return False


left = {}
for kind in ('plain', 'following'):
  with open('said', 'w+') as said:
    subprocess.run([sys.executable, 'reads.py', kind], stdout=said, stderr=subprocess.DEVNULL)
    said.seek(0)
    workers = [int(word) for word in said.read().split()]
  time.sleep(20)
  left[kind] = sum(map(lives, workers)), len(workers)
  for pid in workers:
    if lives(pid):
      os.kill(pid, signal.SIGKILL)
for kind, (count, of) in left.items():
  print(f'{kind}: {count} of {of} workers are there 20 s after their parent was killed')
raise SystemExit(0 if left == {'plain': (2, 2), 'following': (0, 2)} else 1)
PYTHON
venv/bin/python counts.py
