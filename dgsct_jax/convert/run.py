"""The model of a finished run, or a part of it, as one file for `config.init` and --export."""

from pathlib import Path

import numpy as np

from dgsct_jax import checkpoint, sharding, state, tree
from dgsct_jax.convert import read
from dgsct_jax.convert.table import VERSION
from dgsct_jax.tasks import registry


def convert(workdir: Path, out: Path, part: str = '', dtype: str = 'float32') -> str:
  """Writes the best checkpoint and the frozen weights of a run, or what lies below `part`.

  dtype: what the values are stored as; they are computed with as float32 again.

  Raises ValueError where the folder is no run, frozen weights were random or have moved, or nothing
  lies below `part`.
  """
  config = checkpoint.config_of(checkpoint.read_run(*checkpoint.find(workdir)))
  task = registry.build(config)
  manager, step = checkpoint.find(workdir, task.primary)
  trained = checkpoint.read_model(manager, step)
  layout = state.layout(task.model, task.inputs.spec, config, sharding.make_mesh((-1, 1)))
  tensors = {path: source.read() for path, source in layout.sources.items()}
  prefix = f'{part}/' if part else ''
  missing = [
    name
    for name in sorted(layout.leaves.keys() - layout.sources.keys() - {*tree.flatten(trained)})
    if name.partition('/')[2].startswith(prefix)
  ]
  if missing:
    raise ValueError(
      f'{workdir}: {len(missing)} tensors lie in no file, such as {missing[0]}: they were drawn at'
      f' random (config.init is {dict(config.init)}) and never trained. Give a --part of the model'
      ' without them, or train from converted files.'
    )
  tensors |= {name: np.asarray(leaf) for name, leaf in tree.flatten(trained).items()}
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
