"""AVVP without adapters, over seeds: the frozen encoders hear and see every clip once.

python -m benchmarks.frozen_parsing --config=configs/avvp.py:scenes,none --runs=DIR \
    [--seeds=0,1,2] [--config.FIELD=VALUE ...]

The head trains on the features of the encoders as it does with `dgsct_jax.main`, which computes
them anew in every step: the same model, data, losses and steps, but for the masks of drop-path.
Prints a row of a table: mean ± standard deviation of the test metrics, of the checkpoint that was
best on val. Runs that are in DIR already are not repeated.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import app, flags
from flax import linen as nn
from ml_collections import config_flags

from benchmarks.runs import spread
from dgsct_jax import evaluate, sharding, train
from dgsct_jax import state as states
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.dual import pool_segments
from dgsct_jax.models.heads.avvp import AVVP, Parser
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Task, floats

CONFIG = config_flags.DEFINE_config_file('config', 'configs/avvp.py:scenes,none', 'What to train.')
RUNS = flags.DEFINE_string('runs', None, 'Folder of the runs.', required=True)
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Of initial values, shuffling and drop-path.')
NAMES = ('audio', 'visual', 'audio_visual', 'type', 'event')
METRICS = [f'{level}_{name}' for level in ('segment', 'event') for name in NAMES]


class Head(nn.Module):
  """The parser of features `seen` and `heard` [b t d]."""

  parse: Parser

  def __call__(self, batch: dict[str, Any], train: bool = False) -> dict[str, Any]:
    """The outputs of the parser."""
    return self.parse(batch['seen'], batch['heard'], None, train)


def main(argv: list[str]) -> None:
  """Trains and prints the row."""
  del argv
  config, task = CONFIG.value, registry.build(CONFIG.value)
  clips = {split: features(config, task, split) for split in ('train', 'val', 'test')}
  config.init = ml_collections.ConfigDict({'all': ''})
  config.parts = ml_collections.ConfigDict()
  config.trainable = ('parse/.*',)
  assert isinstance(task.model, AVVP)
  shapes = {name: floats(*np.shape(clips['train'][0][name])) for name in ('seen', 'heard')}
  spec = {name: x for name, x in task.inputs.spec.items() if name not in ('video', 'wave')}
  task = dataclasses.replace(
    task,
    model=Head(task.model.parse),
    data=lambda split: Dataset(clips[split]),
    inputs=task.inputs._replace(spec=shapes | spec),
    show=None,
  )
  runs = []
  for seed in SEEDS.value:
    config.seed, workdir = int(seed), Path(RUNS.value) / seed
    if not (workdir / 'metrics.json').exists():
      train.train(config, workdir, task)
    runs.append(json.loads((workdir / 'metrics.json').read_text())['test'])
  print(f'| {" | ".join(METRICS)} |\n|{" --- |" * len(METRICS)}')
  print(f'| {" | ".join(spread([run[name] for run in runs]) for name in METRICS)} |')


def features(config: ml_collections.ConfigDict, task: Task, split: str) -> list[dict[str, Any]]:
  """The clips of a split with `seen` and `heard` in place of `video` and `wave`."""
  mesh = sharding.make_mesh(config.mesh)
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh)).joined
  look: Callable[[Any, Any], Any] = lambda model, batch: pool_segments(model.encoder, batch, False)
  encode = jax.jit(lambda batch: task.model.apply(variables, batch, method=look)[:2])
  clips = []
  with evaluate.batches(task, split, config) as batches:
    for batch in batches:
      seen, heard = encode({name: batch.pop(name) for name in ('video', 'wave')})
      batch |= {'seen': np.asarray(seen), 'heard': np.asarray(heard)}
      for i in np.flatnonzero(batch.pop('valid')):
        clips.append({name: x[i] for name, x in batch.items() if name != 'index'})
  return clips


if __name__ == '__main__':
  app.run(main)
