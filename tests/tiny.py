"""The real tasks at toy size, on random clips in memory."""

import dataclasses
from typing import Any

import numpy as np

from configs import ave as ave_config
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Noise:
  """Clips of noise for AVE, each a function of its index."""

  image: int
  samples: int
  length: int = 16
  segments: int = 10

  def __len__(self):
    return self.length

  def __getitem__(self, i):
    rng = np.random.default_rng(int(i))
    return {
      'video': rng.normal(size=(self.segments, self.image, self.image, 3)).astype(np.float32),
      'wave': rng.uniform(-1, 1, (self.segments, self.samples)).astype(np.float32),
      'label': np.where(rng.random(self.segments) < 0.5, int(i) % 28, 28).astype(np.int32),
      'index': np.int32(i),
    }


def ave(**changes: Any) -> tuple[Task, Any]:
  """(task, config) of configs/ave.py:tiny; `changes` by dotted name."""
  config = ave_config.get_config('tiny')
  config.update_from_flattened_dict({'data.batch': 8} | changes)
  source = Noise(config.model.visual.image, config.model.audio.sample_rate)
  return dataclasses.replace(registry.build(config), data=lambda split: Dataset(source)), config
