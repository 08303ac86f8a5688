"""LAVISH on audio-visual events: the class of each second by itself."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.dual import DualEncoder, pool_segments
from dgsct_jax.models.layers import Dense


class Classifier(nn.Module):
  """Class logits of a second from the means of its visual and audio tokens.

  As released: two linear layers, and nothing between them.
  """

  classes: int = 29  # background is the last
  hidden: int = 512

  @nn.compact
  def __call__(
    self, visual: Float[Array, '*b d'], audio: Float[Array, '*b e']
  ) -> Float[Array, '*b c']:
    """Class logits of features of both streams."""
    x = jnp.concatenate([visual, audio], -1)
    return Dense(self.classes, name='out')(Dense(self.hidden, name='hidden')(x))


class Seconds(nn.Module):
  """Dual encoder and classifier (released LAVISH for AVE).

  Takes `video` [b t h w 3] and `wave` [b t s]; returns `logits` [b t c] and the pooling weights of
  the last exchange, `visual_map` [b t n] and `audio_map` [b t m], which LAVISH has uniform.
  """

  encoder: DualEncoder
  classify: Classifier

  def __call__(self, batch: dict[str, Any], train: bool = False) -> dict[str, Float[Array, '...']]:
    """Logits of every second, and where the encoder looks and listens."""
    visual, audio, maps = pool_segments(self.encoder, batch, train)
    return {'logits': self.classify(visual, audio)} | maps
