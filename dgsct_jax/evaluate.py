"""Scores a model on a split: every clip once, each metric a weighted mean over clips."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from dgsct_jax import figures, report, sharding, trained, whole, writer
from dgsct_jax.data import clips, pipeline
from dgsct_jax.tasks.task import Batch, Means, Outputs, Task, View
from dgsct_jax.trained import Trained

FIGURES = 8  # clips that are drawn
Model = Callable[[Batch], Outputs]
# Of each metric over some clips: Σ value·weight [*v] and Σ weight.
Sums = dict[str, tuple[np.ndarray, np.ndarray | float]]


def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  task: Task | None = None,
  step: int | None = None,
) -> dict[str, float]:
  """Scores the best checkpoint of a run on the test split; the latest if none was evaluated.

  A config that trains nothing needs no run.

  Args:
    step: of another checkpoint.
  """
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch(batch_size(config), mesh, 'config.eval_batch')
  if config.trainable:
    return finish(trained.load(workdir, config, task, mesh, step), workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  return finish(trained.untrained(config, task, mesh), workdir)


def finish(model: Trained, workdir: Path) -> dict[str, float]:
  """Scores a model on the test split: metrics.json, predictions.jsonl, figures, a page."""
  config, task = model.config, model.task
  records: list[dict[str, Any]] = []
  ids = getattr(task.data('test').source, 'ids', None)
  folder = workdir / report.FIGURES

  def keep(index: int, view: View) -> None:
    if len(records) < FIGURES and jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
      figures.draw(view.tracks, view.title).savefig(folder / f'clip_{index}.png')
    records.append({'index': index} | ({'id': ids[index]} if ids else {}) | view.record)

  metrics = evaluate(model, task, 'test', config, keep if task.show else None)
  records = _of_all_hosts(records)
  if jax.process_index() == 0:
    if records:
      lines = ''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records)
      whole.write(workdir / 'predictions.jsonl', lines)
    chosen = f'best {task.primary} on {config.select_on}' if model.selected else 'latest'
    chosen = chosen if model.step else 'untrained'
    summary = {'task': config.task, 'step': model.step, 'chosen': chosen}
    summary[config.select_on] = model.selected
    summary['test'] = metrics  # last, since config.select_on may be 'test' too
    writer.say(writer.table(metrics, f'test, checkpoint of step {model.step} ({chosen})'))
    writer.say(json.dumps(summary))
    whole.write(workdir / 'metrics.json', json.dumps(summary, indent=2) + '\n')
    report.curves(workdir)
    writer.say(f'metrics and figures: {report.page(workdir)}')
  return metrics


def evaluate(
  model: Model,
  task: Task,
  split: str,
  config: ml_collections.ConfigDict,
  keep: Callable[[int, View], None] | None = None,
) -> dict[str, float]:
  """The metrics of a split, the same for any batch size, padding and number of hosts.

  Except `NAME_batch_mean`: the metrics of `task.released`, averaged over batches.

  Args:
    keep: is called with the index and the view of every clip that this host reads, in order.
  """
  sums: list[Sums] = []  # of each batch
  with batches(task, split, config) as host_batches:
    for batch in host_batches:
      outputs = model(batch)
      if keep:
        for i in np.flatnonzero(batch['valid']):
          keep(int(batch['index'][i]), show(task, batch, outputs, int(i)))
      batch_sums: Sums = {}
      for name, (value, weight) in task.metrics(outputs, batch).items():
        value, weight = np.asarray(value, np.float64), weight * batch['valid']
        counted = np.where(weight.reshape(-1, *[1] * (value.ndim - 1)) > 0, value, 0)
        batch_sums[name] = np.tensordot(weight, counted, 1), np.sum(weight, dtype=np.float64)
      sums.append(batch_sums)
  sums = _over_hosts(sums)
  results = dict(task.summarize(_means(sums)))
  if task.released:
    of_batches = [task.released(_means([batch_sums])) for batch_sums in sums]
    for name in of_batches[0]:
      values = [batch[name] for batch in of_batches if not np.isnan(batch[name])]
      results[f'{name}_batch_mean'] = float(np.mean(values)) if values else np.nan
  if task.primary not in results:
    raise ValueError(
      f'The task picks its best checkpoint by {task.primary!r}, which is none of its metrics'
      f' {", ".join(results)}; name one of them as its `primary`.'
    )
  return results


def show(task: Task, batch: Batch, outputs: Outputs, i: int) -> View:
  """The view of clip i of a batch, by a task that has `show`."""
  assert task.show is not None
  row = {name: np.asarray(values[i]) for name, values in batch.items()}
  video, wave = row.get('video'), row.get('wave')
  frames = None if video is None else clips.pixels(video, *task.inputs.pixels)
  seconds = tuple(range(0 if wave is None else len(wave)))
  clip = clips.Clip(f'clip {row["index"]}', seconds, frames, wave, known=row)
  return task.show(clip, {name: values[i : i + 1] for name, values in outputs.items()})


def batches(task: Task, split: str, config: ml_collections.ConfigDict) -> pipeline.Batches:
  """The batches of a split on this host, every clip once."""
  return pipeline.evaluate(
    task.data(split),
    batch=batch_size(config),
    workers=config.data.workers,
    host=jax.process_index(),
    hosts=jax.process_count(),
  )


def batch_size(config: ml_collections.ConfigDict) -> int:
  """Clips in a batch of evaluation, over all devices and hosts."""
  return config.eval_batch or config.data.batch


def _means(sums: Sequence[Sums]) -> Means:
  """The mean of each metric over some batches; nan where nothing was counted."""
  means: Means = {}
  for name in sums[0]:
    total = sum((batch_sums[name][0] for batch_sums in sums), np.zeros(()))
    weight = sum(batch_sums[name][1] for batch_sums in sums)
    means[name] = total / weight if weight else np.full_like(total, np.nan)
  return means


def _over_hosts(sums: list[Sums]) -> list[Sums]:
  """Adds the sums of all hosts, in double precision, which arrays on devices do not have."""
  if jax.process_count() == 1:
    return sums
  leaves, treedef = jax.tree.flatten(sums)
  flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
  bits = multihost_utils.process_allgather(flat.view(np.uint32))
  flat = np.ascontiguousarray(bits).view(np.float64).sum(0)
  ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
  parts = np.split(flat, ends)
  totals = [part.reshape(np.shape(leaf)) for part, leaf in zip(parts, leaves)]
  return jax.tree.unflatten(treedef, totals)


def _of_all_hosts(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The records of all hosts in the order of the data."""
  if jax.process_count() == 1:
    return records
  text = np.frombuffer(json.dumps(records).encode(), np.uint8)
  longest = int(multihost_utils.process_allgather(np.int64(len(text))).max())
  texts = multihost_utils.process_allgather(np.pad(text, (0, longest - len(text))))
  merged = [record for part in texts for record in json.loads(part.tobytes().rstrip(b'\0'))]
  return sorted(merged, key=lambda record: record['index'])
