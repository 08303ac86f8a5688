"""Training, from the first batch to the final figures."""

import contextlib
import dataclasses
import functools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array

from dgsct_jax import (
  cached,
  checkpoint,
  compiled,
  compiler,
  evaluate,
  hosts,
  lock,
  optim,
  report,
  settings,
  sharding,
  trained,
  tree,
)
from dgsct_jax import state as states
from dgsct_jax import writer as writers
from dgsct_jax.data import pipeline, readers
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Batch, Outputs, Task, check_fields

Scalars = dict[str, Array]


def train(
  config: ml_collections.ConfigDict,
  workdir: Path,
  task: Task | None = None,
  start_from: int | None = None,
) -> dict[str, float] | None:
  """Trains one task to the end, from its latest checkpoint if there is one.

  Returns the metrics of the best checkpoint on the test split. On SIGTERM and SIGINT it saves the
  state and returns None; the same command goes on from there.

  Args:
    start_from: the step of another checkpoint; later and damaged ones are put aside.

  Raises:
    ValueError: something does not fit, and nothing was changed; or another process trains here.
    FloatingPointError: the loss is not finite.
  """
  check(config)
  checkpoint.check_folder(workdir)
  with alone(workdir):
    return _train(config, workdir, task, start_from)


def _train(
  config: ml_collections.ConfigDict, workdir: Path, task: Task | None, start_from: int | None
) -> dict[str, float] | None:
  spent = writers.Spent()
  # The devices, the task and its data.
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch(config.data.batch, mesh)
  sharding.check_batch(evaluate.batch_size(config), mesh, 'config.eval_batch')
  task = task or registry.build(config)
  dataset = task.data('train')
  epoch_steps = -(-len(dataset.source) // config.data.batch)  # an epoch shows every clip
  eval_steps, num_steps = config.eval_epochs * epoch_steps, config.optim.epochs * epoch_steps

  # The state: that of the latest checkpoint, or read from files and drawn.
  tx, schedule = optim.build(config.optim, epoch_steps)
  layout = states.layout(task.model, task.inputs.spec, config, mesh)
  abstract = states.abstract(layout)
  run = checkpoint.identity(config, layout.weights, epoch_steps)
  manager = checkpoint.open(workdir, config.keep, task.primary, start_from)
  latest = checkpoint.restore_latest(manager, states.abstract_state(abstract, tx, mesh), run)
  variables = states.fill(layout, frozen_only=bool(latest))
  frozen = variables.frozen
  state, place = latest or (states.create(variables, tx, config.seed, mesh), None)
  start = int(state.step)

  # What the steps read: the clips, or what the frozen encoders make of them.
  learned = task
  if config.data.get('cache_features'):
    with spent.on('input'):
      seen = states.Variables(state.params, state.batch_stats, frozen)
      learned = cached.task(task, config, layout, seen)
      dataset = learned.data('train')

  writer = writers.Writer(workdir, start)
  writer.say(tree.table(state.params, frozen))
  for path in layout.whole:
    shape = layout.leaves[path].shape
    writer.say(f'every device holds all of {path} {shape}: no dimension can be split')
  writer.say(
    f'{len(dataset.source)} clips, {epoch_steps} batches of {config.data.batch} in an epoch,'
    f' {mesh.size} {jax.devices()[0].device_kind} devices; '
    + (f'going on after step {start}' if start else 'starting')
    + f' of {num_steps} in {workdir}'
  )

  # The step, compiled before a clip is read.
  shapes = sharding.abstract_batch(learned.inputs.spec, config.data.batch, mesh)
  step_fn, seconds = compile_step(
    learned,
    tx,
    schedule,
    states.abstract_state(abstract, tx, mesh),
    abstract.frozen,
    shapes,
    epoch_steps,
  )
  spent.add('compilation', seconds)
  writer.say(f'compiled the step in {seconds:.1f} s{compiled.saved()}')
  forward = trained.compile_forward(learned, mesh)
  clock = writers.Clock(start, num_steps, config.data.batch)
  first, last = _traced(config.profile, start, num_steps)

  def settle(step: int, scalars: Scalars) -> None:
    """Fetches and reports the scalars of a step; raises FloatingPointError if one is not finite."""
    values = {name: float(value) for name, value in jax.device_get(scalars).items()}
    wrong = {name: value for name, value in values.items() if not np.isfinite(value)}
    if wrong:
      raise FloatingPointError(
        f'Step {step} is not finite: {wrong}. The last finite checkpoint in {manager.directory}'
        f' is step {manager.latest_step()}. Look at the data, lower'
        f' config.optim.lr={config.optim.lr}, or set config.optim.clip_norm.'
      )
    if step == start + 1:
      writer.say(f'peak memory of the first step: {peak_memory()}')
    if step % config.log_steps == 0:
      checkpoint.check(manager)
      writer.scalars(step, values)
      wait, whole = (seconds / config.log_steps for seconds in spent.lately('input'))
      if slow := hosts.slow(wait, whole):
        writer.say(slow)
      writer.say(writers.progress(step, num_steps, values, wait, *clock.report(step)))

  # The loop. A step is fetched from the device after the next one is on its way.
  pending = None
  writing, reading = contextlib.closing(writer), read_batches(dataset, config)
  with writing, reading as batches, signals() as leave:
    if place:
      batches.set_state(place)
    for step in range(start + 1, num_steps + 1):
      new_epoch, patience = (step - 1) % epoch_steps == 0, config.optim.patience * epoch_steps
      if new_epoch and _exhausted(manager, step - 1, patience, task.primary):
        writer.say(f'{config.optim.patience} epochs were not as good as the best: stopping')
        break
      if step == first:
        jax.profiler.start_trace(workdir / writers.PROFILE)
      with jax.profiler.StepTraceAnnotation(writers.STEP, step_num=step):
        with spent.on('input'):
          read = next(batches)
        if step == start + 1:
          check_fields(read, learned.inputs.spec)
        with spent.on('steps'), jax.transfer_guard('disallow'):
          batch = sharding.global_batch(read, mesh)
          state, scalars = step_fn(state, frozen, batch)
          if pending:
            settle(*pending)
      pending = step, scalars
      if step == last:
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        writer.program(step_fn.as_text() or '')

      evaluating, leaving = step % eval_steps == 0 or step == num_steps, leave(step)
      if evaluating or leaving or step % config.save_steps == 0:
        with spent.on('steps'):
          settle(*pending)  # A state that is not finite must not be saved.
        pending, metrics = None, None
        with clock.paused():
          if evaluating:
            model = trained.Trained(
              config,
              learned,
              mesh,
              step,
              {},
              states.Variables(state.params, state.batch_stats, frozen),
              forward,
            )
            with spent.on('evaluation'):
              metrics = evaluate.evaluate(model, learned, config.select_on, config)
            writer.scalars(step, metrics, config.select_on)
            writer.say(writers.table(metrics, f'{config.select_on}, step {step}'))
          with spent.on('saving'):
            checkpoint.save(manager, step, state, batches.get_state(), run, metrics)
      if leaving:
        with spent.on('saving'):
          checkpoint.check(manager, wait=True)
        writer.spent(spent)
        writer.say(f'saved step {step}; the same command goes on from there')
        return None

  # The result: the best checkpoint on the test split.
  with spent.on('saving'):
    checkpoint.check(manager, wait=True)
  best, _ = checkpoint.best(manager)
  assert best is not None  # the last step was saved
  with spent.on('evaluation'):
    whole = forward if learned is task else None  # that of the clips themselves
    metrics = evaluate.finish(
      trained.restore(manager, best, config, task, layout, frozen, mesh, whole), workdir
    )
  writer.spent(spent)
  if writer.active:
    report.page(workdir)  # again, with what the time went to
  return metrics


def read_batches(dataset: pipeline.Dataset, config: ml_collections.ConfigDict) -> pipeline.Batches:
  """This host's share of the training batches."""
  return pipeline.train(
    dataset,
    batch=config.data.batch,
    seed=config.seed,
    workers=config.data.workers,
    host=jax.process_index(),
    hosts=jax.process_count(),
  )


def train_step(
  state: states.TrainState,
  frozen: tree.Tree,
  batch: Batch,
  *,
  task: Task,
  tx: optax.GradientTransformation,
  schedule: optim.Schedule,
  epoch_steps: int = 1,
) -> tuple[states.TrainState, Scalars]:
  """Trains on one batch: the new state and the scalars to report."""
  rngs = states.step_keys(state.rng, state.step)
  epoch = 1 + state.step // epoch_steps

  def loss_fn(params: tree.Tree) -> tuple[Array, tuple[Outputs, Scalars, tree.Tree]]:
    variables = states.Variables(params, state.batch_stats, frozen).joined
    outputs, moved = task.model.apply(variables, batch, True, rngs=rngs, mutable=['batch_stats'])
    loss, parts = task.loss(outputs, batch | {'epoch': epoch})
    return loss, (outputs, parts, moved.get('batch_stats', {}))

  gradient = jax.value_and_grad(loss_fn, has_aux=True)
  (loss, (outputs, parts, batch_stats)), grads = gradient(state.params)
  if task.modulate:
    grads = task.modulate(grads, outputs, batch, rngs['modulate'])
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  scalars = {'loss': loss, **parts, 'grad_norm': optim.norm(grads), 'lr': schedule(state.step)}
  after = dataclasses.replace(
    state,
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  return after, scalars


def compile_step(
  task: Task,
  tx: optax.GradientTransformation,
  schedule: optim.Schedule,
  state: states.TrainState,
  frozen: tree.Tree,
  batch: Batch,
  epoch_steps: int = 1,
) -> tuple[jax.stages.Compiled, float]:
  """`train_step` compiled for these shapes, and the seconds that it took.

  The state is donated and keeps its shardings. The devices need not be there: see plan.py.
  """
  since = time.monotonic()
  mesh = jax.tree.leaves(batch)[0].sharding.mesh
  step = jax.jit(
    functools.partial(train_step, task=task, tx=tx, schedule=schedule, epoch_steps=epoch_steps),
    donate_argnums=0,
    out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), sharding.replicated(mesh)),
    compiler_options=compiler.options(mesh),
  )
  return step.lower(state, frozen, batch).compile(), time.monotonic() - since


def alone(workdir: Path) -> contextlib.AbstractContextManager[None]:
  """A context in which no other run may train in the folder. Raises ValueError if one does."""
  if jax.process_index():
    return contextlib.nullcontext()  # process 0 writes for all
  return lock.held(workdir / '.lock', f'trains in {workdir}', wait=False)


@contextlib.contextmanager
def signals() -> Iterator[Callable[[int], bool]]:
  """Yields a function of the step: whether to save and stop after it, the same on all hosts.

  SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a terminal is closed) ask for it, unless they are ignored, as
  SIGHUP is under nohup. A second SIGINT is left to who cared for it before.
  """
  asked, hosts = threading.Event(), jax.distributed.is_initialized()
  numbers = readers.OF_TERMINALS if hosts else (*readers.OF_TERMINALS, signal.SIGTERM)
  found: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
  before = {number: cares for number, cares in found.items() if cares != signal.SIG_IGN}

  def ask(number: int, _: Any) -> None:
    asked.set()
    if hosts:
      os.kill(os.getpid(), signal.SIGTERM)  # jax itself listens to this one, for all hosts
    again = ''
    if number == signal.SIGINT:
      signal.signal(number, before[number])
      again = '; once more to end at once'
    with contextlib.suppress(OSError):  # Nobody may be left to read it.
      # Not by print, which a signal may interrupt.
      os.write(2, f'{signal.Signals(number).name}: saving after this step{again}\n'.encode())

  for number in before:
    signal.signal(number, ask)
  try:
    yield multihost_utils.reached_preemption_sync_point if hosts else lambda step: asked.is_set()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def peak_memory() -> str:
  """The peak memory of a device, or of this process where devices do not report it."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'peak_bytes_in_use' in stats:
    return f'{stats["peak_bytes_in_use"] / 1e9:.2f} GB on each device'
  held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return f'{held * (1 if sys.platform == "darwin" else 1024) / 1e9:.2f} GB in this process'


def _exhausted(manager: Any, step: int, patience: int, primary: str) -> bool:
  """Whether the best checkpoint is `patience` batches old; never if `patience` is 0."""
  best, metrics = checkpoint.best(manager)
  if best is None or not patience or primary not in metrics:
    return False
  return step - best >= patience


def _traced(profile: tuple[int, ...], start: int, num_steps: int) -> tuple[int, int]:
  """The first and last step to trace among the remaining ones, or (0, 0)."""
  if not profile:
    return 0, 0
  first, last = max(profile[0], start + 1), min(profile[1], num_steps)
  return (first, last) if first <= last else (0, 0)


def check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for settings that would fail only later in the run."""
  if not config.trainable:
    raise ValueError('config.trainable is empty: there is nothing to train; give --mode=evaluate.')
  settings.check(config)
