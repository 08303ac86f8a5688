"""Checkpoints of what is trained: the latest ones and the best, written while training goes on.

A checkpoint is a folder workdir/checkpoints/STEP with `model` (trainable parameters, batch
statistics), `optimizer` (its state, rng, step) and `run` (config, position in the data, hashes of
the weights that are not saved). The folder gets its name only when all of it is on disk, with a
manifest of its files, by which those that were damaged since are known.
"""

import contextlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils

from dgsct_jax import tree, whole

Run = dict[str, Any]  # what makes a run the same: config as JSON, hashes of weights, epoch length

ITEMS = ('model', 'optimizer', 'run', 'metrics')
ASIDE = 'aside'  # where a run puts checkpoints that it does not go on from
METADATA = '_CHECKPOINT_METADATA'  # Orbax's own, which it still changes after the last item
UNFINISHED = 'it was never finished'
# Signs of a path: Orbax looks for what it has saved by a pattern, and so finds nothing or that of
# another run (`findings/orbax_folder_with_brackets.sh`); to tensorstore a backslash is a slash.
PATTERN, ELSEWHERE = '*?[', '\\'
# Fields that came later, and what runs from before them do.
LATER = {'config.model.head.compared': 'shared'}


def open(workdir: Path, keep: int, primary: str, start: int | None = None) -> ocp.CheckpointManager:
  """The checkpoints of a run: the `keep` latest stay, and the one with the highest `primary`.

  What a killed run has not finished goes to `workdir/aside`.

  Args:
    start: the step to go on from: later and damaged checkpoints go to `workdir/aside`, too.

  Raises:
    ValueError: a checkpoint is damaged, and `start` is not given; or there is none of that step.
  """
  if keep < 1:
    raise ValueError(f'config.keep={keep}; at least one checkpoint must be kept.')
  folder = _folder(workdir)
  faults = _faults(folder)
  if start is None:
    _check_whole(folder, faults)
  else:
    _check_step(folder, faults, start)
  _together('looked at')
  if jax.process_index() == 0:
    for step, fault in faults.items():
      if fault or (start is not None and step > start):
        _put_aside(folder / str(step))
  _together('put aside')

  def seal() -> None:
    for unfinished in folder.glob('*.orbax-checkpoint-tmp*'):  # that of the save under way
      whole.seal(unfinished, without=(METADATA,))

  policies, rank = ocp.checkpoint_managers, _rank(primary)
  return _manager(
    folder,
    ocp.CheckpointManagerOptions(
      best_fn=rank,
      preservation_policy=policies.AnyPreservationPolicy(
        [policies.LatestN(keep), policies.BestN(get_metric_fn=rank, n=1)]
      ),
      cleanup_tmp_directories=True,  # incomplete ones, of a killed run
      async_options=ocp.AsyncOptions(post_finalization_callback=seal),
    ),
  )


def check_folder(workdir: Path, signs: str = PATTERN + ELSEWHERE) -> None:
  """Raises ValueError if the path has one of the signs, in which no checkpoint can be kept."""
  folder = str(_folder(workdir))
  if found := ' '.join(sign for sign in signs if sign in folder):
    raise ValueError(
      f'Checkpoints cannot be kept in {folder}, as its path has {found}; choose a --workdir whose'
      f' path has none of {" ".join(signs)}.'
    )


def find(
  workdir: Path, primary: str = '', step: int | None = None
) -> tuple[ocp.CheckpointManager, int]:
  """The checkpoints of a run that may still be going on, and the step of the best one.

  It is the latest if none was evaluated. Nothing is written or removed.

  Args:
    step: is asked for, whatever the others are.

  Raises:
    ValueError: there is none; or one is damaged, and `step` is not given.
  """
  check_folder(workdir, ELSEWHERE)
  folder = _folder(workdir)
  faults = _faults(folder)
  if all(fault == UNFINISHED for fault in faults.values()):
    raise ValueError(
      f'There is no checkpoint in {folder}; train first, or give the --workdir of a run.'
    )
  if step is None:
    _check_whole(folder, faults)
  else:
    _check_step(folder, faults, step)
  manager = _manager(folder, ocp.CheckpointManagerOptions(create=False))
  if step is None:
    rank = _rank(primary)
    step = max(
      (step for step, fault in faults.items() if not fault),
      key=lambda step: (rank(metrics(manager, step)), step),
    )
  return manager, step


def _folder(workdir: Path) -> Path:
  return Path(workdir).absolute() / 'checkpoints'


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
  """Orbax's, which reads what it notes of every checkpoint. Raises ValueError if it cannot."""
  try:
    return ocp.CheckpointManager(folder, options=options)
  except Exception as error:
    why = f'{type(error).__name__}: {error}'.splitlines()[0]
    raise ValueError(
      f'A checkpoint in {folder} is damaged: its notes or metrics cannot be read ({why}). Move it'
      ' to another folder.'
    ) from error


def _rank(primary: str) -> Callable[[dict[str, float]], float]:
  """The rank of a checkpoint from its metrics; those without a finite `primary` come last."""

  def rank(metrics: dict[str, float]) -> float:
    value = metrics.get(primary, math.nan)
    return value if math.isfinite(value) else -math.inf

  return rank


def _faults(folder: Path) -> dict[int, str]:
  """What is wrong with the checkpoint of each step, in order; '' of a whole one."""
  names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
  steps = sorted(int(name) for name in names if name.isdecimal())
  return {step: _fault(folder / str(step), ('run', 'metrics')) for step in steps}


def _fault(folder: Path, contents: tuple[str, ...]) -> str:
  if (folder / whole.MANIFEST).exists():
    return whole.fault(folder, contents)
  if not (folder / METADATA).exists():
    return UNFINISHED
  # From before there were manifests.
  missing = [name for name in ITEMS if not (folder / name).is_dir()]
  return f'{missing[0]} is missing' if missing else ''


def _check_whole(folder: Path, faults: dict[int, str]) -> None:
  for step, fault in reversed(faults.items()):
    if fault and fault != UNFINISHED:
      raise _damaged(folder, step, fault)


def _check_step(folder: Path, faults: dict[int, str], step: int) -> None:
  if step not in faults:
    raise ValueError(
      f'--from={step}: {folder} has no such step, only {", ".join(map(str, faults)) or "none"}.'
    )
  if faults[step]:
    raise _damaged(folder, step, faults[step])


def _damaged(folder: Path, step: int, fault: str) -> ValueError:
  """The error that names what is damaged, and the newest step that is not."""
  others = [other for other in _faults(folder) if other != step]
  good = next((x for x in reversed(others) if not _fault(folder / str(x), ITEMS)), None)
  return ValueError(
    f'The checkpoint {folder / str(step)} is damaged: {fault}. '
    + (
      'No other one is whole; choose another --workdir, to start again.'
      if good is None
      else f'The newest whole one is that of step {good}: with --from={good}, a prediction is made'
      f' by it, and training goes on from it; the others go to {folder.parent / ASIDE}.'
    )
  )


@contextlib.contextmanager
def _reading(manager: ocp.CheckpointManager, step: int, *items: str) -> Iterator[None]:
  """Checks that some items of a checkpoint are as written; the context reads them.

  Raises:
    ValueError: they are not, or cannot be read, whatever Orbax makes of that.
  """
  check(manager, wait=True)  # it may still be written
  folder = Path(manager.directory)
  if fault := _fault(folder / str(step), items):
    raise _damaged(folder, step, fault)
  try:
    yield
  except Exception as error:
    raise _damaged(folder, step, f'{type(error).__name__}: {error}'.splitlines()[0]) from error


def _put_aside(checkpoint: Path) -> None:
  """Moves a checkpoint out of the way; of one step there may be several."""
  aside = checkpoint.parent.parent / ASIDE
  aside.mkdir(exist_ok=True)
  taken = len(list(aside.glob(f'{checkpoint.name}*')))
  place = aside / (f'{checkpoint.name}.{taken + 1}' if taken else checkpoint.name)
  shutil.move(checkpoint, place)
  print(f'put aside: {checkpoint} is now {place}', flush=True)


def _together(what: str) -> None:
  """Lets no process go on before all have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


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
  return step, metrics(manager, step) if step is not None else {}


def metrics(manager: ocp.CheckpointManager, step: int) -> dict[str, float]:
  """Of the evaluation at this step; empty if there was none."""
  with _reading(manager, step, 'metrics'):
    found = manager.metrics(step) or {}
    if wrong := {name: x for name, x in found.items() if not isinstance(x, int | float)}:
      raise TypeError(f'no numbers: {wrong}')
    return found


def restore_latest(
  manager: ocp.CheckpointManager, abstract: Any, run: Run
) -> tuple[Any, dict[str, int]] | None:
  """(state, place) of the latest checkpoint, or None if there is none.

  Args:
    abstract: a `state.TrainState` of shapes, types and shardings.

  Raises:
    ValueError: the checkpoint is damaged or belongs to another run.
  """
  step = manager.latest_step()
  if step is None:
    return None
  then = read_run(manager, step)
  sections = ('task', 'seed', 'model', 'trainable', 'frozen_dtype', 'optim', 'data')
  _check_same(manager, step, then, run, sections)
  with _reading(manager, step, 'model', 'optimizer'):
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
  with _reading(manager, step, 'model'):
    restored = manager.restore(step, args=ocp.args.Composite(model=restore))['model']
  return restored['params'], restored['batch_stats']


def read_model(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """`params`, the trained half, and `batch_stats` of a checkpoint of any model."""
  args = ocp.args.Composite(model=ocp.args.StandardRestore())
  with _reading(manager, step, 'model'):
    return manager.restore(step, args=args)['model']


def read_run(manager: ocp.CheckpointManager, step: int) -> Run:
  """The config and all else that a checkpoint records of its run."""
  with _reading(manager, step, 'run'):
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
  old = {name: value for name, value in LATER.items() if name in new} | old
  # These may change: the run goes on as if it had been started with them.
  of_data = ('dir', 'media', 'workers', 'cache_features')
  of_computing = ('model.remat', 'model.scan_layers')  # which differ in rounding alone
  names = ('optim.patience', 'eval_batch', *of_computing, *(f'data.{name}' for name in of_data))
  free = {f'config.{name}' for name in names}
  if new.get('config.optim.schedule') != 'cosine':
    free.add('config.optim.epochs')
  old, new = ({name: x for name, x in run.items() if name not in free} for run in (old, new))
  if faults := tree.differences(old, new, 'in the checkpoint'):
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
