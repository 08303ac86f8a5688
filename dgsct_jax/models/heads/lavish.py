"""LAVISH on audio-visual events: the class of each second by itself."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.dual import DualEncoder, Encoded
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
    video, wave = batch['video'], batch['wave']
    split = lambda x: rearrange(x, '(b t) ... -> b t ...', t=video.shape[1])
    encoded: Encoded = self.encoder(
      rearrange(video, 'b t h w c -> (b t) h w c'), rearrange(wave, 'b t ... -> (b t) ...'), train
    )
    maps = encoded.visual_map, encoded.audio_map
    visual, audio = (
      (weights @ tokens)[:, 0].astype(jnp.float32)
      for weights, tokens in zip(maps, (encoded.visual, encoded.audio))
    )
    return {
      'logits': split(self.classify(visual, audio)),
      'visual_map': split(maps[0][:, 0]),
      'audio_map': split(maps[1][:, 0]),
    }
