"""Classification of pictures or of sounds alone, which trained the quickstart's small encoders."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax import models
from dgsct_jax.data import transforms
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.layers import Dense, LayerNorm
from dgsct_jax.scenes import dataset
from dgsct_jax.tasks.task import (
  Batch,
  Inputs,
  Outputs,
  Task,
  Weighted,
  floats,
  mean_over_clips,
  share,
)


class Classifier(nn.Module):
  """A backbone, the mean of its tokens and a linear layer; every segment is an example.

  The tokens are those of the dual encoder: after the visual backbone's norm, before the audio
  backbone's.
  """

  backbone: nn.Module
  field: str  # of the batch: 'video' or 'wave'
  classes: int

  @nn.compact
  def __call__(self, batch: Batch, train: bool = False) -> Outputs:
    """Returns `logits` [b t c]."""
    x = batch[self.field]
    tokens = self.backbone.stem(rearrange(x, 'b t ... -> (b t) ...'), train)
    tokens = self.backbone.body(tokens, train)
    if self.field == 'video':
      tokens = self.backbone.norm(tokens)
    pooled = LayerNorm(name='norm')(tokens.mean(1))
    logits = Dense(self.classes, name='classify')(pooled.astype(jnp.float32))
    return {'logits': rearrange(logits, '(b t) c -> b t c', t=x.shape[1])}


def build(config: ml_collections.ConfigDict) -> Task:
  """The task for `config.model.stream`, 'visual' or 'audio'."""
  t, classes = config.data.segments, config.model.classes
  size, rate = config.model.visual.image, config.model.audio.sample_rate
  if config.model.stream == 'visual':
    backbone, field, label = models.build_visual(config.model), 'video', 'seen'
    decode, shape = transforms.DecodeFrames(size, *backbone.pixels), floats(t, size, size, 3)
  elif config.model.stream == 'audio':
    backbone, field, label = models.build_audio(config.model), 'wave', 'heard'
    decode, shape = transforms.DecodeWave(t, rate), floats(t, rate)
  else:
    raise ValueError(f"config.model.stream is {config.model.stream!r}; set 'visual' or 'audio'.")
  keep = transforms.Keep((field, label))
  return Task(
    model=Classifier(backbone, field, classes),
    loss=functools.partial(loss, label=label),
    metrics=functools.partial(metrics, label=label),
    data=lambda split: Dataset(dataset.load(config.data, split), (decode, keep)),
    primary='accuracy',
    inputs=Inputs(
      spec={field: shape, label: jax.ShapeDtypeStruct((t, classes), bool)},
      windows=functools.partial(dataset.windows, config.data),
      decode=(decode,),
      side=config.data.knobs.size,
      rate=rate,
    ),
  )


def loss(
  outputs: Outputs, batch: Batch, label: str
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Binary cross entropy of the presence of each class, summed over the classes."""
  there = batch[label].astype(jnp.float32)
  parts = {'class': optax.sigmoid_binary_cross_entropy(outputs['logits'], there).sum(-1).mean(1)}
  return mean_over_clips(parts, batch['valid'])


def metrics(outputs: Outputs, batch: Batch, label: str) -> dict[str, Weighted]:
  """The share of the k classes present that are among the k likeliest, in percent."""
  logits, there = np.asarray(outputs['logits']), np.asarray(batch[label])
  rank = np.argsort(np.argsort(-logits, -1), -1)
  return {'accuracy': share(rank < there.sum(-1, keepdims=True), there)}
