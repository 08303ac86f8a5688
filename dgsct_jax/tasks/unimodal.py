"""What is in pictures, or in sounds, alone: how the small encoders of the quickstart were trained."""

import functools

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.layers import Dense, LayerNorm
from dgsct_jax.tasks import Batch, Outputs, Task, Weighted, mean_over_clips, share


class Classifier(nn.Module):
  """A backbone, the mean of its tokens, a linear layer; every segment is an example. Returns `logits` [b t c].

  The tokens are taken where the dual encoder takes them: after the visual backbone's norm, before the audio one's.
  """

  backbone: nn.Module
  field: str  # of the batch: 'video' or 'wave'
  classes: int

  @nn.compact
  def __call__(self, batch: Batch, train: bool = False) -> Outputs:
    x = batch[self.field]
    tokens = self.backbone.stem(rearrange(x, 'b t ... -> (b t) ...'), train)
    tokens = self.backbone.body(tokens, train)
    if self.field == 'video':
      tokens = self.backbone.norm(tokens)
    pooled = LayerNorm(name='norm')(tokens.mean(1))
    logits = Dense(self.classes, name='classify')(pooled.astype(jnp.float32))
    return {'logits': rearrange(logits, '(b t) c -> b t c', t=x.shape[1])}


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.stream`: 'visual' or 'audio'."""
  streams = {
    'visual': (models.build_visual, 'video', 'seen'),
    'audio': (models.build_audio, 'wave', 'heard'),
  }
  if config.model.stream not in streams:
    raise ValueError(f"config.model.stream is {config.model.stream!r}; set 'visual' or 'audio'.")
  backbone, field, label = streams[config.model.stream]
  return Task(
    model=Classifier(backbone(config.model), field, config.model.classes),
    loss=functools.partial(loss, label=label),
    metrics=functools.partial(metrics, label=label),
    data=functools.partial(data, config, field, label),
    primary='accuracy',
  )


def loss(
  outputs: Outputs, batch: Batch, label: str
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of whether each class is there, summed over the classes."""
  there = batch[label].astype(jnp.float32)
  parts = {'class': optax.sigmoid_binary_cross_entropy(outputs['logits'], there).sum(-1).mean(1)}
  return mean_over_clips(parts, batch['mask'])


def metrics(outputs: Outputs, batch: Batch, label: str) -> dict[str, Weighted]:
  """Of the k classes that are there, the share that is among the k likeliest, in percent."""
  logits, there = np.asarray(outputs['logits']), np.asarray(batch[label])
  rank = np.argsort(np.argsort(-logits, -1), -1)
  return {'accuracy': share(rank < there.sum(-1, keepdims=True), there)}


def data(config: ml_collections.ConfigDict, field: str, label: str, split: str) -> Dataset:
  fields = config.data
  recipe = {
    name: fields[name] for name in ('source', 'media', 'knobs', 'clips', 'seed') if name in fields
  }
  decode = (
    transforms.DecodeFrames(config.model.visual.image)
    if field == 'video'
    else transforms.DecodeWave(fields.knobs.segments, config.model.audio.sample_rate)
  )
  return Dataset(
    datasets.load(split, fields.name, fields.dir, **recipe),
    (decode, transforms.Keep((field, label))),
  )
