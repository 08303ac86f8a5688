"""Pseudo labels: what another model takes each second of a stream for."""

import dataclasses
from pathlib import Path

import grain
import numpy as np

from dgsct_jax.data.transforms import Example, name

STREAMS = ('audio', 'visual')


@dataclasses.dataclass(frozen=True)
class PseudoLabels(grain.transforms.Map):
  """`pseudo_audio` and `pseudo_visual`, float32 [t c] from 0 to 1, by the `id` of a record.

  They lie in FOLDER/audio/ID.npy and FOLDER/visual/ID.npy, of any number type. Raises ValueError
  where one is missing, has another shape, or other values.
  """

  folder: str
  shape: tuple[int, int]  # seconds, classes

  def map(self, example: Example) -> Example:
    """Reads those of one clip."""
    clip, found = str(_text(example['id'])), {}
    for stream in STREAMS:
      path = Path(self.folder) / stream / f'{clip}.npy'
      if not path.is_file():
        raise ValueError(
          f'{name(example)} has no pseudo labels: there is no file {path}; write one for every clip'
          ' of the training split, or set config.data.pseudo to nothing.'
        )
      labels = np.load(path, allow_pickle=False).astype(np.float32)
      if labels.shape != self.shape or not ((0 <= labels) & (labels <= 1)).all():
        raise ValueError(
          f'{path} has the shape {labels.shape} and values from {labels.min()} to {labels.max()};'
          f' {self.shape} are needed, seconds and classes, from 0 to 1: write it anew.'
        )
      found[f'pseudo_{stream}'] = labels
    return example | found


def _text(id: str | bytes) -> str:
  return id.decode() if isinstance(id, bytes) else id
