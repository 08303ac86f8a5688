"""A task of a few hundred parameters: two frozen backbones with BatchNorm, an exchange, a head.

Clip i is noise around one of three directions; the label says which.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import grain
import jax.numpy as jnp
import numpy as np
import optax

from configs import common
from dgsct_jax.data import clips as shown
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.tasks.task import Inputs, Task, View, floats, integers, mean_over_clips
from dgsct_jax.tracks import Bars

NAMES = ('first', 'second', 'third')
CLASSES = len(NAMES)
INPUTS = Inputs(
  spec={'features': floats(8), 'wave': floats(2, 8), 'label': integers()},
  windows=lambda length: shown.consecutive(length, shown.middles(2)),
  decode=(),
)


class Backbone(nn.Module):
  """Its parameters are frozen; the statistics of its BatchNorm move."""

  width: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(self.width, name='stem')(x)
    return nn.tanh(nn.BatchNorm(not train, momentum=0.9, name='bn0')(x))


class Encoder(nn.Module):
  width: int

  def setup(self):
    self.visual, self.audio = Backbone(self.width), Backbone(self.width)
    # No bias: BatchNorm follows, so its gradient would be rounding, of which Adam makes steps.
    self.exchange = [nn.Dense(self.width, use_bias=False) for _ in range(2)]

  def __call__(self, batch, train):
    v, a = self.visual(batch['features'], train), self.audio(batch['wave'].mean(1), train)
    return v + self.exchange[0](a), a + self.exchange[1](v)


class Model(nn.Module):
  width: int = 16
  dropout: float = 0.1

  @nn.compact
  def __call__(self, batch, train=False):
    x = jnp.concatenate(Encoder(self.width, name='encoder')(batch, train), -1)
    x = nn.BatchNorm(not train, momentum=0.9, name='norm')(x)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return {'logits': nn.Dense(CLASSES, name='head')(x)}


@dataclasses.dataclass(frozen=True)
class Clips:
  """Random access to `length` clips, a function of (split, index)."""

  split: str
  length: int
  poison: int = -1  # the clip that is not a number

  def __len__(self):
    return self.length

  def __getitem__(self, i):
    rng = np.random.default_rng([len(self.split), int(i)])
    label = int(i) % CLASSES
    wave = rng.normal(size=(2, 8)).astype(np.float32)
    wave[:, label] += 2
    features = wave[0] ** 2 if i != self.poison else np.full(8, np.nan, np.float32)
    return {
      'features': features,
      'wave': wave,
      'label': np.int32(label),
      'index': np.int32(i),
      'id': f'clip{i}',
    }


@dataclasses.dataclass(frozen=True)
class DropStrings(grain.transforms.Map):
  def map(self, example):
    return {k: v for k, v in example.items() if k != 'id'}


def loss(outputs, batch):
  losses = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], batch['label'])
  return mean_over_clips({'class': losses}, batch['valid'])


def metrics(outputs, batch):
  ones = np.ones(len(batch['label']))
  right = 100.0 * (np.argmax(outputs['logits'], -1) == batch['label'])
  return {'accuracy': (right, ones), 'margin': (outputs['logits'].max(-1), 1.0 + batch['label'])}


def show(clip, outputs):
  (logits,) = np.asarray(outputs['logits'])
  predicted = NAMES[logits.argmax()]
  return View(
    name='classes',
    title=f'{clip.title}: {predicted}',
    record={'predicted': predicted, 'logits': logits.tolist()},
    tracks=(Bars('predicted', np.full(len(clip.seconds), logits.argmax()), NAMES),),
  )


def task(
  width: int = 16, dropout: float = 0.1, clips: int = 42, poison: int = -1, **changes: Any
) -> Task:
  lengths = {'train': clips, 'val': 10, 'test': 13}
  return Task(
    **dict(
      model=Model(width, dropout),
      loss=loss,
      metrics=metrics,
      primary='accuracy',
      data=lambda split: Dataset(
        Clips(split, lengths[split], poison if split == 'train' else -1), (DropStrings(),)
      ),
      inputs=INPUTS,
      show=show,
      released=lambda means: {'accuracy': float(means['accuracy'])},
    )
    | changes
  )


def config(**changes: Any):
  """Six epochs of six batches of eight; `changes` by dotted name."""
  values = common.get_config()
  values.task = 'toy'
  values.model.width = 16
  values.trainable = ('encoder/exchange_.*', 'norm/.*', 'head/.*')
  values.init.visual = values.init.audio = 'random'
  values.data.batch = 8
  values.optim.update(lr=1e-2, epochs=6, decay_epochs=2, decay_rate=0.5)
  values.update(log_steps=1, save_steps=4)
  values.update_from_flattened_dict(changes)
  return values


def build(**changes: Any):
  """(task, config)."""
  values = config(**changes)
  return task(values.model.width), values


def build_still(**changes: Any):
  """Without dropout, whose masks go by the place in a batch, which is another with more hosts."""
  values = config(**changes)
  return task(dropout=0.0), values


def build_wide(**changes: Any):
  """With leaves over 4 MB, which are split over the 'fsdp' axis."""
  return build(**{'model.width': 1040} | changes)


def build_wide_still(**changes: Any):
  """Both."""
  values = config(**{'model.width': 1040} | changes)
  return task(values.model.width, dropout=0.0), values
