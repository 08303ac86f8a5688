"""Composed clips as a data set: every frame, sound, label, box and mask of `data/scenes.py`."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from dgsct_jax.data import records, scenes

VERSION = '1.0.0'  # a change of what `compose` makes of a seed is a new version


@dataclasses.dataclass(frozen=True)
class Scene:
  """One clip before it is composed."""

  id: str
  split: str
  index: int


@dataclasses.dataclass(frozen=True)
class Read:
  """Composes and encodes a clip."""

  source: scenes.Source
  knobs: scenes.Knobs
  seed: int

  def __call__(self, scene: Scene) -> records.Record:
    clip = scenes.compose(self.source, self.knobs, self.seed, scene.split, scene.index)
    return clip._asdict() | {
      'id': scene.id,
      'frames': [_encode(frame, 'JPEG', quality=92, subsampling=0) for frame in clip.frames],
      'masks': [_encode(mask, 'PNG') for mask in clip.masks],
      'wave': (clip.wave * 32768).round().astype(np.int16),
    }


def features(knobs: scenes.Knobs, classes: int) -> dict[str, tfds.features.FeatureConnector]:
  """What a record holds; the fields and axes are those of `scenes.Clip`."""
  array = lambda dtype, *shape: tfds.features.Tensor(shape=shape, dtype=dtype)
  t, k = knobs.segments, knobs.objects
  return {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,  # JPEG
    'masks': records.IMAGES,  # PNG of one channel
    'boxes': array(np.float32, t * knobs.frames_per_second, k, 4),
    'wave': records.wave(t * knobs.sample_rate),
    'sources': array(np.int32, k + 1),
    'visible': array(np.bool_, t, k),
    'sounding': array(np.bool_, t, k + 1),
    'level': array(np.float32, k + 1),
    'seen': array(np.bool_, t, classes),
    'heard': array(np.bool_, t, classes),
    'label': array(np.int32, t),
  }


def recipe(
  source: scenes.Source,
  knobs: scenes.Knobs,
  clips: dict[str, int],
  *,
  seed: int = 0,
  name: str = 'scenes',
) -> records.Recipe:
  """The data set of the first `clips[split]` clips of each split; `name` is its folder's."""
  return records.Recipe(
    name=name,
    version=VERSION,
    features=features(knobs, len(source.classes)),
    splits={
      split: [Scene(f'{split}_{i:06d}', split, i) for i in range(count)]
      for split, count in clips.items()
    },
    read=Read(source, knobs, seed),
  )


def prepare(
  directory: str | os.PathLike,
  source: scenes.Source,
  knobs: scenes.Knobs = scenes.Knobs(),
  *,
  clips: dict[str, int],
  seed: int = 0,
  name: str = 'scenes',
  workers: int = 0,
) -> Path:
  """Builds `directory/name` unless it is there; `records.load(directory, name, split)` reads it.

  Raises:
    ValueError: the folder holds clips of another source, other knobs, counts or another seed.
  """
  return records.write(
    recipe(source, knobs, clips, seed=seed, name=name), directory, workers=workers
  )


def _encode(image: UInt8[np.ndarray, 'h w *c'], form: str, **options: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, form, **options)
  return file.getvalue()
