"""What two classifiers say by themselves: one of pictures, one of sounds."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float


class Tags(nn.Module):
  """Each second of `video` [b t h w 3] and `wave` [b t s] by its own classifier.

  Returns `seen` [b t c], logits of classes of which a picture has one, and `heard` [b t e], logits
  of classes of which a sound may have several. visual, audio: backbones with `classify`.
  """

  visual: nn.Module
  audio: nn.Module

  @nn.compact
  def __call__(self, batch: dict[str, Any], train: bool = False) -> dict[str, Float[Array, '...']]:
    """The logits; nothing is trained."""

    def of(backbone: Any, x: Float[Array, 'b t ...']) -> Float[Array, 'b t c']:
      logits = backbone.classify(backbone(rearrange(x, 'b t ... -> (b t) ...')))
      return rearrange(logits, '(b t) c -> b t c', t=x.shape[1]).astype(jnp.float32)

    return {'seen': of(self.visual, batch['video']), 'heard': of(self.audio, batch['wave'])}
