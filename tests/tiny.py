"""The real tasks at toy size: on random clips in memory, on composed ones, as a run."""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.noise import random_batch
from configs import ave as ave_config
from configs import composed
from configs import quickstart as quickstart_config
from dgsct_jax import checkpoint, optim, sharding
from dgsct_jax import state as states
from dgsct_jax.data.datasets import ave as dataset
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


def ave(variant: str = 'tiny', **changes: Any) -> tuple[Task, Any]:
  """(task, config) of configs/ave.py:tiny; `changes` by dotted name."""
  config = ave_config.get_config(variant)
  config.update_from_flattened_dict({'data.batch': 8} | changes)
  source = Noise(config.model.visual.image, config.model.audio.sample_rate)
  return dataclasses.replace(registry.build(config), data=lambda split: Dataset(source)), config


@dataclasses.dataclass(frozen=True)
class OfSpec:
  """Clips of noise for any task, each a function of its index; whole numbers are 0."""

  spec: Mapping[str, Any]
  length: int = 8

  def __len__(self):
    return self.length

  def __getitem__(self, i):
    return {name: x[0] for name, x in random_batch(self.spec, 1, seed=int(i)).items()} | {
      'index': np.int32(i)
    }


def noise(config_name: str = 'ave', variant: str = 'tiny', **changes: Any) -> tuple[Task, Any]:
  """(task, config) of a config with random weights, on noise."""
  config = importlib.import_module(f'configs.{config_name}').get_config(variant)
  config.init.update({part: 'random' for part in config.init if part != 'all'})
  config.update_from_flattened_dict({'data.batch': 8} | changes)
  task = registry.build(config)
  return dataclasses.replace(task, data=lambda split: Dataset(OfSpec(task.inputs.spec))), config


def quickstart(**changes: Any) -> tuple[Task, Any]:
  """(task, config) of configs/quickstart.py with tiny random encoders and few, short clips."""
  config = quickstart_config.get_config()
  config.model.adapter.update(tokens=2, reduction=2)
  return _made_tiny(config, changes)


def lavish(**changes: Any) -> tuple[Task, Any]:
  """As `quickstart`, with LAVISH's encoder and head alone, which are sooner compiled."""
  return _made_tiny(ave_config.get_config('scenes,lavish,none'), changes)


def _made_tiny(config: Any, changes: Mapping[str, Any]) -> tuple[Task, Any]:
  composed.make_tiny(config)
  config.model.head.width = 16
  config.update_from_flattened_dict(dict(changes))
  return registry.build(config), config


def ave_run(workdir: Path) -> Path:
  """The folder of a run of configs/ave.py:tiny that sees a truck in everything."""
  config = ave_config.get_config('tiny')
  task, mesh = registry.build(config), sharding.make_mesh((-1, 1))
  layout = states.layout(task.model, task.inputs.spec, config, mesh)
  variables = states.fill(layout)
  truck = np.zeros(28, np.float32)
  truck[dataset.CLASSES.index('Truck')] = 50
  head = variables.params['localize']
  head['event']['bias'] = sharding.put(truck, sharding.replicated(mesh))
  head['is_event']['bias'] = sharding.put(np.float32([9]), sharding.replicated(mesh))
  tx, _ = optim.build(config.optim, 2)
  state = states.create(variables, tx, config.seed, mesh)
  with checkpoint.open(workdir, 1, task.primary) as manager:
    run = checkpoint.identity(config, layout.weights, 2)
    checkpoint.save(manager, 1, state, {'batches': 1}, run, {'accuracy': 50.0})
    checkpoint.check(manager, wait=True)
  return workdir
