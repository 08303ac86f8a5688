"""Checkpoints of what is trained: the latest ones and the best, written while training goes on.

A checkpoint is a folder workdir/checkpoints/STEP with `model` (trainable parameters, batch
statistics), `optimizer` (its state, rng, step) and `run` (config, position in the data, hashes of
the weights that are not saved). The folder gets its name only when all of it is on disk.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
import orbax.checkpoint as ocp
from flax import traverse_util

Run = dict[str, Any]  # what makes a run the same: config as JSON, hashes of weights, epoch length


def open(workdir: Path, keep: int, primary: str) -> ocp.CheckpointManager:
  """The checkpoints of a run: the `keep` latest stay, and the one with the highest `primary`."""
  if keep < 1:
    raise ValueError(f'config.keep={keep}; at least one checkpoint must be kept.')

  policies, rank = ocp.checkpoint_managers, _rank(primary)
  return ocp.CheckpointManager(
    _folder(workdir),
    options=ocp.CheckpointManagerOptions(
      best_fn=rank,
      preservation_policy=policies.AnyPreservationPolicy(
        [policies.LatestN(keep), policies.BestN(get_metric_fn=rank, n=1)]
      ),
      cleanup_tmp_directories=True,  # incomplete ones, of a killed run
    ),
  )


def find(workdir: Path, primary: str) -> ocp.CheckpointManager:
  """The checkpoints of a run that may still be going on: nothing is written or removed."""
  folder = _folder(workdir)
  if folder.is_dir():
    manager = ocp.CheckpointManager(
      folder, options=ocp.CheckpointManagerOptions(best_fn=_rank(primary), create=False)
    )
    if manager.latest_step() is not None:
      return manager
  raise ValueError(
    f'There is no checkpoint in {folder}; train first, or give the --workdir of a run.'
  )


def _folder(workdir: Path) -> Path:
  return Path(workdir).absolute() / 'checkpoints'


def _rank(primary: str) -> Callable[[dict[str, float]], float]:
  """The rank of a checkpoint from its metrics; those without `primary` come last."""

  def rank(metrics: dict[str, float]) -> float:
    value = metrics.get(primary, math.nan)
    return -math.inf if math.isnan(value) else value

  return rank


def identity(
  config: ml_collections.ConfigDict, weights: Mapping[str, str], epoch_steps: int = 0
) -> Run:
  """What a run and its checkpoints have in common, as JSON."""
  return {
    'config': json.loads(config.to_json_best_effort()),
    'weights': dict(weights),
    'epoch_steps': epoch_steps,
  }


def save(
  manager: ocp.CheckpointManager,
  step: int,
  state: Any,
  place: dict[str, int],
  run: Run,
  metrics: dict[str, float] | None = None,
) -> None:
  """Starts writing the state after `step` batches; returns when its arrays may be donated.

  Args:
    place: the state of the input iterator.
    metrics: of an evaluation at this step, for `best`.

  Raises:
    ValueError: this checkpoint or the last one could not be written. Earlier ones are intact.
  """
  try:
    manager.save(
      step,
      metrics=metrics or {},
      args=ocp.args.Composite(
        model=ocp.args.StandardSave(_model(state)),
        optimizer=ocp.args.StandardSave(_optimizer(state)),
        run=ocp.args.JsonSave(run | {'place': place}),
      ),
    )
  except Exception as error:
    raise _failed(manager, error) from error


def check(manager: ocp.CheckpointManager, wait: bool = False) -> None:
  """Raises ValueError if a save has failed; with `wait`, waits for the current one first."""
  try:
    if wait:
      manager.wait_until_finished()
    manager.check_for_errors()
  except Exception as error:
    raise _failed(manager, error) from error


def best(manager: ocp.CheckpointManager) -> tuple[int | None, dict[str, float]]:
  """(step, metrics) of the best checkpoint; of the latest if none was evaluated."""
  step = manager.best_step()
  return step, (manager.metrics(step) or {}) if step is not None else {}


def restore_latest(
  manager: ocp.CheckpointManager, abstract: Any, run: Run
) -> tuple[Any, dict[str, int]] | None:
  """(state, place) of the latest checkpoint, or None if there is none.

  Args:
    abstract: a `state.TrainState` of shapes, types and shardings.

  Raises:
    ValueError: the checkpoint belongs to another run.
  """
  step = manager.latest_step()
  if step is None:
    return None
  then = read_run(manager, step)
  sections = ('task', 'seed', 'model', 'trainable', 'frozen_dtype', 'optim', 'data')
  _check_same(manager, step, then, run, sections)
  restored = manager.restore(
    step,
    args=ocp.args.Composite(
      model=ocp.args.StandardRestore(_model(abstract)),
      optimizer=ocp.args.StandardRestore(_optimizer(abstract)),
    ),
  )
  return abstract.replace(**restored['model'], **restored['optimizer']), then['place']


def restore_model(
  manager: ocp.CheckpointManager, step: int, abstract: Any, run: Run
) -> tuple[Any, Any]:
  """(params, batch_stats) of a checkpoint.

  Args:
    abstract: anything with the shapes, types and shardings of both as `params`, `batch_stats`.
  """
  sections = ('task', 'model', 'trainable', 'frozen_dtype')
  _check_same(manager, step, read_run(manager, step), run, sections)
  restore = ocp.args.StandardRestore(_model(abstract))
  restored = manager.restore(step, args=ocp.args.Composite(model=restore))['model']
  return restored['params'], restored['batch_stats']


def read_model(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """`params`, the trained half, and `batch_stats` of a checkpoint of any model."""
  return manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore()))['model']


def read_run(manager: ocp.CheckpointManager, step: int) -> Run:
  """The config and all else that a checkpoint records of its run."""
  run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))['run']
  return run | {'config': _of_today(run['config'])}


def config_of(run: Run) -> ml_collections.ConfigDict:
  """The config of a run; the lists of its JSON become tuples again."""

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {name: tuples(item) for name, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  return ml_collections.ConfigDict(tuples(run['config']))


def _of_today(config: dict[str, Any]) -> dict[str, Any]:
  """The config of a run that was made before data sets and backbones had kinds."""
  if 'parts' in config:
    return config
  data, model, avqa = dict(config['data']), dict(config['model']), config['task'].startswith('avqa')
  composed = 'scene_questions' if avqa else 'scenes'
  data['kind'] = composed if 'source' in data else data['name']
  for stream, kind in (('visual', 'swin_v2'), ('audio', 'htsat')):
    if stream in model:
      model[stream] = {'kind': kind} | model[stream]
  paths = {
    'visual': 'encoder/visual',
    'audio': 'encoder/audio',
    'ground': 'matching',
    'backbone': 'backbone',
  }
  parts = {name: path for name, path in paths.items() if name in config['init']}
  return config | {'data': data, 'model': model, 'parts': parts}


def _model(state: Any) -> dict[str, Any]:
  return {'params': state.params, 'batch_stats': state.batch_stats}


def _optimizer(state: Any) -> dict[str, Any]:
  return {'opt_state': state.opt_state, 'step': state.step, 'rng': state.rng}


def _failed(manager: ocp.CheckpointManager, error: Exception) -> ValueError:
  # Otherwise asyncio reports the other writes that failed one by one, after this error.
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  steps = sorted(ocp.utils.checkpoint_steps(manager.directory))
  return ValueError(
    f'A checkpoint could not be written to {manager.directory}: {error}\n'
    f'The complete checkpoints are those of steps {", ".join(map(str, steps)) or "(none)"}; make'
    ' room and run the same command to go on from the last of them.'
  )


def _check_same(
  manager: ocp.CheckpointManager, step: int, then: Run, now: Run, sections: tuple[str, ...]
) -> None:
  """Raises ValueError, with every value that differs, if a checkpoint belongs to another run."""
  old, new = _flat(then, sections), _flat(now, sections)
  # These may change: the run goes on as if it had been started with them.
  names = ('optim.patience', 'data.dir', 'data.media', 'data.workers', 'eval_batch')
  free = {f'config.{name}' for name in names}
  if new.get('config.optim.schedule') != 'cosine':
    free.add('config.optim.epochs')
  faults = [
    f'  {name}: {old.get(name)!r} in the checkpoint, {new.get(name)!r} now'
    for name in sorted((old.keys() | new.keys()) - free)
    if old.get(name) != new.get(name)
  ]
  if faults:
    raise ValueError(
      f'{manager.directory / str(step)} is of another run:\n'
      + '\n'.join(faults)
      + '\nSet these to the values of the checkpoint, or choose another --workdir.'
    )


def _flat(run: Run, sections: tuple[str, ...]) -> dict[str, Any]:
  """The compared values of a run, by dotted name."""
  compared = {
    'config': {name: run['config'].get(name) for name in sections},
    'weights': run['weights'],
  }
  if 'data' in sections:
    compared['batches in an epoch'] = run['epoch_steps']
  return traverse_util.flatten_dict(compared, sep='.')
