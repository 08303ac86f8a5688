"""True labels of seconds with faults, as a folder of pseudo labels: what these may be worth.

python -m benchmarks.noisy_labels --config=configs/avvp.py:scenes --out=FOLDER [--share=0.2]

Of every second and class, `share` are turned over, and then what the clip's label does not have is
left out, as in labels by other models. Then train with --config.data.pseudo=FOLDER.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from dgsct_jax.data import datasets
from dgsct_jax.data.pseudo_labels import STREAMS

CONFIG = config_flags.DEFINE_config_file('config', 'configs/avvp.py:scenes', 'Of the data.')
OUT = flags.DEFINE_string('out', None, 'Folder of the labels.', required=True)
SHARE = flags.DEFINE_float('share', 0.2, 'How many of the labels are turned over.')


def main(argv: list[str]) -> None:
  """Writes the labels of the training clips."""
  del argv
  fields, rng = CONFIG.value.data, np.random.default_rng(0)
  kind = datasets.of(fields)
  clips, wrong, positive = kind.load(fields, 'train'), [], []
  for i, name in enumerate(clips.ids):
    example = clips[i]
    for transform in kind.parsing or ():
      example = transform.map(example)
    for stream in STREAMS:
      true = example[stream] > 0
      labels = (true ^ (rng.random(true.shape) < SHARE.value)) & (example['label'] > 0)
      file = Path(OUT.value) / stream / f'{name}.npy'
      file.parent.mkdir(parents=True, exist_ok=True)
      np.save(file, labels.astype(np.float32))
      wrong.append((labels & ~true).sum() / max(1, labels.sum()))
      positive.append((labels & true).sum() / max(1, true.sum()))
  print(
    f'{len(clips)} clips: {np.mean(positive):.0%} of what is true is labelled,'
    f' {np.mean(wrong):.0%} of the labels are wrong'
  )


if __name__ == '__main__':
  app.run(main)
