"""Scores a model on a split: every clip once, each metric a weighted mean over clips."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from dgsct_jax import checkpoint, report, sharding, tasks, tree, writer
from dgsct_jax import state as states
from dgsct_jax.data import pipeline

Predict = Callable[[tree.Tree, tree.Tree, tree.Tree, tasks.Batch], tasks.Outputs]
FIGURES = 8  # clips that are drawn


def run(
  config: ml_collections.ConfigDict, workdir: Path, task: tasks.Task | None = None
) -> dict[str, float]:
  """Scores the best checkpoint of a run on the test split; the latest if none was evaluated."""
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch(config.data.batch, mesh)
  task = task or tasks.build(config)
  manager = checkpoint.find(workdir, task.primary)
  with batches(task, 'test', config) as examples:
    variables = states.variables(task.model, next(examples), config, mesh)
  return finish(manager, task, variables, predictor(task, mesh), config, workdir, mesh)


def finish(
  manager: checkpoint.ocp.CheckpointManager,
  task: tasks.Task,
  variables: states.Variables,
  predict: Predict,
  config: ml_collections.ConfigDict,
  workdir: Path,
  mesh: Mesh,
) -> dict[str, float]:
  """Scores the best checkpoint on the test split: metrics.json, figures, a page."""
  step, selected = checkpoint.best(manager)
  run_now = checkpoint.identity(config, variables.weights)
  params, batch_stats = checkpoint.restore_model(
    manager, step, variables.params, variables.batch_stats, run_now
  )
  model = params, batch_stats, variables.frozen
  rows: list[dict[str, Any]] = []
  metrics = evaluate(predict, model, task, 'test', config, mesh, rows)
  if rows:
    host = f'_{jax.process_index()}' if jax.process_count() > 1 else ''
    lines = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    (workdir / f'predictions{host}.jsonl').write_text(lines, encoding='utf-8')
  if jax.process_index() == 0:
    chosen = f'best {task.primary} on {config.select_on}' if selected else 'latest'
    found = {'task': config.task, 'step': step, 'chosen': chosen, config.select_on: selected}
    found['test'] = metrics  # last: it may be the split that was selected on
    print(writer.table(metrics, f'test, checkpoint of step {step} ({chosen})'))
    print(json.dumps(found))
    (workdir / 'metrics.json').write_text(json.dumps(found, indent=2) + '\n')
  if task.figures:
    draw(predict, model, task, config, workdir, mesh)
  if jax.process_index() == 0:
    report.curves(workdir)
    print(f'metrics and figures: {report.page(workdir)}')
  return metrics


def predictor(task: tasks.Task, mesh: Mesh) -> Predict:
  """(params, batch_stats, frozen, batch) -> outputs, float32, clips where the batch has them."""

  def predict(params, batch_stats, frozen, batch):
    variables = {'params': tree.merge(params, frozen), 'batch_stats': batch_stats}
    outputs = task.model.apply(variables, batch, False)
    clips = len(batch['mask'])

    def place(x: jax.Array) -> jax.Array:
      if jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
      spread = x.ndim and x.shape[0] % clips == 0
      return jax.lax.with_sharding_constraint(
        x, sharding.of_batch(mesh) if spread else sharding.replicated(mesh)
      )

    return jax.tree.map(place, outputs)

  return jax.jit(predict)


def evaluate(
  predict: Predict,
  model: tuple[tree.Tree, tree.Tree, tree.Tree],
  task: tasks.Task,
  split: str,
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  rows: list[dict[str, Any]] | None = None,
) -> dict[str, float]:
  """The metrics of a split, the same for any batch size, padding and number of hosts.

  `NAME_batch_mean` of `task.batch_means` is the plain mean over batches, which is not, as released.

  Args:
    model: (params, batch_stats, frozen).
    rows: to which `task.rows` of the clips that this host reads are added.
  """
  sums: dict[str, list[tuple[float, float]]] = {}  # metric -> (Σ value·weight, Σ weight)s
  with batches(task, split, config) as host_batches:
    for batch in host_batches:
      outputs = _to_host(predict(*model, sharding.global_batch(batch, mesh)))
      if rows is not None and task.rows:
        rows += [row for row, mask in zip(task.rows(outputs, batch), batch['mask']) if mask]
      for name, (value, weight) in task.metrics(outputs, batch).items():
        weight = weight * batch['mask']
        total = np.sum(np.where(weight > 0, value, 0) * weight, dtype=np.float64)
        sums.setdefault(name, []).append((total, np.sum(weight, dtype=np.float64)))
  # [metric, batch, 2]
  pairs = _over_hosts(np.array(list(sums.values()), np.float64))
  means = {name: _ratio(*pair.sum(0)) for name, pair in zip(sums, pairs)}
  results = dict(task.summarize(means))
  for name, pair in zip(sums, pairs):
    if name in task.batch_means:
      of_batches = [_ratio(*p) for p in pair if p[1] > 0]
      results[f'{name}_batch_mean'] = _ratio(sum(of_batches), len(of_batches))
  if task.primary not in results:
    raise ValueError(
      f'The task picks its best checkpoint by {task.primary!r}, which is none of its metrics'
      f' {", ".join(results)}; name one of them as its `primary`.'
    )
  return results


def draw(
  predict: Predict,
  model: tuple[tree.Tree, tree.Tree, tree.Tree],
  task: tasks.Task,
  config: ml_collections.ConfigDict,
  workdir: Path,
  mesh: Mesh,
) -> None:
  """Draws the first clips of the test split that this host reads into workdir/figures."""
  clips, found = 0, []
  steps = range(-(-FIGURES * jax.process_count() // config.data.batch))  # the same on all hosts
  with batches(task, 'test', config) as host_batches:
    for _, batch in zip(steps, host_batches):
      outputs = _to_host(predict(*model, sharding.global_batch(batch, mesh)))
      count = min(int(batch['mask'].sum()), FIGURES - clips)  # padding comes last
      take = lambda x: x[: count * (len(x) // len(batch['mask']))] if np.ndim(x) else x
      found.append(jax.tree.map(take, (outputs, batch)))
      clips += count
  if jax.process_index() == 0:
    folder = workdir / 'figures'
    folder.mkdir(parents=True, exist_ok=True)
    join = lambda *parts: np.concatenate(parts) if np.ndim(parts[0]) else parts[0]
    task.figures(*jax.tree.map(join, *found), folder)


def batches(task: tasks.Task, split: str, config: ml_collections.ConfigDict) -> pipeline.Batches:
  """The batches of a split on this host, every clip once."""
  return pipeline.evaluate(
    task.data(split),
    batch=config.data.batch,
    workers=config.data.workers,
    host=jax.process_index(),
    hosts=jax.process_count(),
  )


def _to_host(outputs: tasks.Outputs) -> dict[str, Any]:
  return jax.tree.map(sharding.local, outputs)


def _ratio(total: float, weight: float | int) -> float:
  return float(total / weight) if weight else math.nan


def _over_hosts(pairs: np.ndarray) -> np.ndarray:
  """The sum over hosts in double precision, which arrays on devices do not have."""
  if jax.process_count() == 1:
    return pairs
  bits = multihost_utils.process_allgather(pairs.view(np.uint32))
  return np.ascontiguousarray(bits).view(np.float64).sum(0)
