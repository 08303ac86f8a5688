"""Runs in processes of their own: other devices, several hosts, a kill, a full disk.

`build` names a function 'module:function' that takes changes of a config by dotted name and returns
(task, config).
"""

import contextlib
import importlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from dgsct_jax import hosts as meeting
from dgsct_jax import optim, sharding, tree, writer
from dgsct_jax import state as states
from dgsct_jax import train as trains
from dgsct_jax.data import pipeline
from tests.forks import ROOT, Fork


def one_step(build: str, devices: int, rule: str = 'adam', **changes: Any) -> dict[str, np.ndarray]:
  """Trainable parameters and statistics after one step on so many simulated devices.

  `rule='sgd'` subtracts the gradient itself, for models of which some gradients are nothing but
  rounding: the first step of Adam has the same size for those.
  """
  with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / 'out.npz'
    job = dict(work=_one_step, build=build, rule=rule, out=out, changes=changes)
    done = start(job, devices).finish()
    assert not done.returncode, done.stderr[-4000:]
    return dict(np.load(out))


def train(
  build: str,
  workdir: Path,
  *,
  devices: int = 1,
  hosts: int = 1,
  kill: int = 0,
  killed_host: int = 0,
  with_signal: int = signal.SIGKILL,
  file_bytes: int = 0,
  dies: bool = False,
  **changes: Any,
) -> list[subprocess.CompletedProcess]:
  """Trains in `hosts` processes of `devices` each.

  Args:
    kill: the step at which the process `killed_host` sends itself `with_signal`.
    file_bytes: no file can grow beyond; a write that would fails, or `dies` on the spot.
  """
  job = dict(
    work=_train,
    build=build,
    out=workdir,
    changes=changes,
    kill=kill,
    signal=with_signal,
    file_bytes=file_bytes,
    dies=dies,
  )
  port = free_port()
  processes = [
    start(job | ({'kill': 0} if host != killed_host else {}), devices, host, hosts, port)
    for host in range(hosts)
  ]
  return [process.finish() for process in processes]


def signal_itself(number: int) -> None:
  """Sends a signal to this process, and waits until jax has seen it.

  Where there are several processes, jax looks for SIGTERM once a second, in which time the steps of
  a toy are over.
  """
  os.kill(os.getpid(), number)
  if number == signal.SIGTERM:
    time.sleep(3)


def with_site(folder: Path, site: str, *arguments: str) -> str:
  """What Python prints with these arguments in a folder, if it runs `site` at its start."""
  (folder / 'sitecustomize.py').write_text(site)
  environment = {name: x for name, x in os.environ.items() if name != 'GLIBC_TUNABLES'}
  done = subprocess.run(
    [sys.executable, *arguments],
    env=environment | {'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}'},
    capture_output=True,
    text=True,
    cwd=folder,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def start(
  job: dict[str, Any], devices: int = 1, host: int = 0, hosts: int = 1, port: int = 0
) -> Fork:
  """Starts one process, one of several `hosts` if there are more."""
  count = f'--xla_force_host_platform_device_count={devices}'
  env = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {count}'.strip(),
  }
  if hosts > 1:
    env |= {
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': str(hosts),
      'JAX_PROCESS_ID': str(host),
    }
  return Fork(_main, job | {'hosts': hosts}, env=env)


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def _main(job: dict[str, Any]) -> None:
  with meeting.joined({}) if job['hosts'] > 1 else contextlib.nullcontext():
    module, _, function = job['build'].partition(':')
    task, config = getattr(importlib.import_module(module), function)(**job['changes'])
    job['work'](task, config, job)


def _one_step(task, config, job):
  mesh = sharding.make_mesh(config.mesh)
  batch = next(pipeline.train(task.data('train'), batch=config.data.batch, seed=config.seed))
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh))
  tx, schedule = optim.build(config.optim, 10)
  tx = {'adam': tx, 'sgd': optax.sgd(1.0)}[job['rule']]
  state = states.create(variables, tx, config.seed, mesh)
  batch = sharding.global_batch(batch, mesh)
  step, _ = trains.compile_step(task, tx, schedule, state, variables.frozen, batch)
  for leaf in jax.tree.leaves((state, variables.frozen)):
    assert len(leaf.sharding.device_set) == jax.device_count()
  if config.mesh[1] > 1:
    assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state)), 'nothing is split'
  state, _ = step(state, variables.frozen, batch)
  leaves = tree.flatten({'params': state.params, 'batch_stats': state.batch_stats})
  np.savez(job['out'], **{path: np.asarray(leaf) for path, leaf in leaves.items()})


def _train(task, config, job):
  progress = writer.progress

  def at_step(step, *args):
    if step == job['kill']:
      signal_itself(job['signal'])
    return progress(step, *args)

  writer.progress = at_step
  if job['file_bytes']:
    if job['dies']:
      signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (job['file_bytes'], job['file_bytes']))
  trains.train(config, job['out'], task)
