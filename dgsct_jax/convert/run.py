"""The model of a finished run, or a part of it, as one file for `config.init` and --export."""

from pathlib import Path

import ml_collections
import numpy as np
import safetensors

from dgsct_jax import checkpoint, state, tree
from dgsct_jax.convert import read
from dgsct_jax.convert.table import VERSION
from dgsct_jax.tasks import registry


def convert(workdir: Path, out: Path, part: str = '', dtype: str = 'float32') -> str:
  """Writes the best checkpoint and the frozen weights of a run, or what lies below `part`.

  dtype: what the values are stored as; they are computed with as float32 again.

  Raises ValueError where the folder is no run, frozen weights were random or have moved, or nothing
  lies below `part`.
  """
  manager = checkpoint.find(workdir, '')
  run = checkpoint.read_run(manager, manager.latest_step())
  config = checkpoint.config_of(run)
  manager = checkpoint.find(workdir, registry.build(config).primary)
  step, _ = checkpoint.best(manager)
  assert step is not None  # `find` has seen one
  trained = checkpoint.read_model(manager, step)
  tensors = _frozen(config) | {
    name: np.asarray(leaf) for name, leaf in tree.flatten(trained).items()
  }
  prefix = f'{part}/' if part else ''
  kept = {}
  for name, tensor in tensors.items():
    collection, _, path = name.partition('/')
    if path.startswith(prefix):
      kept[f'{collection}/{path.removeprefix(prefix)}'] = tensor.astype(dtype)
  if not kept:
    tops = sorted({'/'.join(name.split('/')[1:3]) for name in tensors})
    raise ValueError(
      f'--part={part}: nothing of the run lies below it; there are {", ".join(tops[:9])}.'
    )
  read.write(out, kept, {'source': 'run', 'variant': 'custom', 'step': str(step), 'table': VERSION})
  values = sum(x.size for x in kept.values())
  return f'{out}: {len(kept)} tensors, {values:,} values of step {step} of {workdir}'


def _frozen(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """What the files of `config.init` gave the run."""
  tensors: dict[str, np.ndarray] = {}
  parts = {'all': ''} if config.init.all else config.parts
  for name, prefix in parts.items():
    given = config.init[name]
    if not given or given == 'random':
      continue  # Either all of it was trained, or the reader of the file will miss it by name.
    with safetensors.safe_open(state.locate(given), framework='np') as file:
      tensors |= {state.join(key, prefix): file.get_tensor(key) for key in file.keys()}
  return tensors
