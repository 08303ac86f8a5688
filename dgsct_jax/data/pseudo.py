"""Pseudo labels of seconds for training: what CLIP sees and CLAP hears of a clip's classes.

python -m dgsct_jax.data.pseudo --config=configs/few_shot.py:llp_labels --config.data.dir=DIR \
    --config.init.clip=CLIP --config.init.clap=CLAP --out=FOLDER [--split=train]

Writes FOLDER/visual/NAME.npy and FOLDER/audio/NAME.npy for every clip, float32 [t c] from 0 to 1,
and FOLDER/classes.txt; config.data.pseudo of configs/avvp.py takes the folder. The same command
goes on where it was stopped.
"""

from pathlib import Path

import ml_collections
import numpy as np
from absl import app, flags
from jaxtyping import Bool, Float
from ml_collections import config_flags

from dgsct_jax import evaluate, sharding, trained
from dgsct_jax.data import datasets
from dgsct_jax.data.pseudo_labels import STREAMS
from dgsct_jax.tasks import registry
from dgsct_jax.trained import Trained


def main(argv: list[str]) -> None:
  """Writes the labels of a split."""
  if len(argv) > 1:
    raise app.UsageError(f'{" ".join(argv[1:])} is no flag.')
  given = flags.FLAGS
  print(write(towers(given.config), Path(given.out), given.split))


def towers(config: ml_collections.ConfigDict) -> Trained:
  """The model of a config, with the weights of its files alone.

  Args:
    config: of a task whose outputs have `visual_logits` and `audio_logits` [b t c] for the classes
      of the data, and whose clips have the classes that occur as `target` [c].

  Raises:
    ValueError: the target is not of clips or has other classes; or what building the task and
      `trained.untrained` raise.
  """
  task = registry.build(config)
  classes, shape = datasets.of(config.data).classes(config.data), task.inputs.spec['target'].shape
  if shape != (len(classes),):
    raise ValueError(
      f'The target of the config has the shape {shape}; labels are made for clips of which is'
      f' known which of {len(classes)} classes occur: set config.model.head.target to'
      " 'set' or 'clip', config.model.head.background to False and config.data.classes to nothing."
    )
  return trained.untrained(config, task, sharding.make_mesh(config.mesh))


def write(model: Trained, out: Path, split: str = 'train') -> str:
  """Writes the labels of all clips of a split that have none yet; returns how many."""
  fields = model.config.data
  kind = datasets.of(fields)
  ids = kind.load(fields, split).ids
  for stream in STREAMS:
    (out / stream).mkdir(parents=True, exist_ok=True)
  names = ''.join(f'{name}\n' for name in kind.classes(fields))
  (out / 'classes.txt').write_text(names, encoding='utf-8')
  written = 0
  with evaluate.batches(model.task, split, model.config) as batches:
    for batch in batches:
      files = {
        (i, stream): out / stream / f'{ids[batch["index"][i]]}.npy'
        for i in np.flatnonzero(batch['valid'])
        for stream in STREAMS
      }
      if all(file.is_file() for file in files.values()):
        continue
      outputs = model(batch)
      for (i, stream), file in files.items():
        np.save(file, label(outputs[f'{stream}_logits'][i], batch['target'][i] > 0))
      written += len(files) // len(STREAMS)
  return f'{out}: {len(ids)} clips, {written} of them new'


def label(
  logits: Float[np.ndarray, 't c'], present: Bool[np.ndarray, 'c']
) -> Float[np.ndarray, 't c']:
  """Of each second and class of the clip, the probability that it is this and no absent one.

  A softmax over the class and all classes that do not occur in the clip, so that classes of the
  clip do not compete and nothing need be set; 0 for absent classes.
  """
  absent = np.where(present, -np.inf, logits)
  others = np.logaddexp.reduce(absent, axis=1, keepdims=True)
  with np.errstate(over='ignore'):
    probability = 1 / (1 + np.exp(others - logits))
  return np.where(present, probability, 0).astype(np.float32)


if __name__ == '__main__':  # Flags are of the process, so that a module may not define any.
  config_flags.DEFINE_config_file(
    'config', 'configs/few_shot.py:llp_labels', 'Config of the towers and of the data.'
  )
  flags.DEFINE_string('out', None, 'Folder of the labels.', required=True)
  flags.DEFINE_string('split', 'train', 'Whose clips.')
  app.run(main)
