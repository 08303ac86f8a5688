"""Audio-visual event localisation: which event a clip shows, and in which seconds."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.dual import DualEncoder, pool_segments
from dgsct_jax.models.layers import Dense
from dgsct_jax.models.temporal import TemporalAttention


class Localizer(nn.Module):
  """Event logit per second and class logits per clip.

  (Released `CMBS`, without its unused attention.)
  """

  classes: int = 28
  top: int = 4
  activation_weight: float = 0.3

  @nn.compact
  def __call__(
    self, visual: Float[Array, 'b t d'], audio: Float[Array, 'b t d']
  ) -> dict[str, Float[Array, '...']]:
    """Returns `event_logits` [b t], `logits` [b c] and `activation_logits` [b c].

    The activation of a class is its mean over its `top` strongest seconds and both streams;
    `logits` include it, `activation_weight` times.
    """
    visual_top = strongest(Dense(self.classes, name='visual_cas')(visual), self.top)
    audio_top = strongest(Dense(self.classes, name='audio_cas')(audio), self.top)
    activation = (visual_top + audio_top) / 2
    fused = (visual + audio) / 2
    event = Dense(1, name='is_event')(fused)[..., 0]
    logits = (
      Dense(self.classes, name='event')(strongest(fused, 1)) + self.activation_weight * activation
    )
    return {'event_logits': event, 'logits': logits, 'activation_logits': activation}


class WeakLocalizer(nn.Module):
  """Localisation learned from the clip's class alone.

  Every second has an event score; the clip has logits of the classes and the background, from the
  maximum over time. Their product is a score per second and class, whose maximum over time is
  compared with the clip's label.
  """

  classes: int = 28

  @nn.compact
  def __call__(
    self, visual: Float[Array, 'b t d'], audio: Float[Array, 'b t d']
  ) -> dict[str, Float[Array, '...']]:
    """Returns `event_logits` [b t], `logits` [b c+1] and `clip_logits` [b c+1]."""
    fused = (visual + audio) / 2
    event = Dense(1, name='is_event')(fused)[..., 0]
    logits = Dense(self.classes + 1, name='event')(strongest(fused, 1))
    scores = nn.sigmoid(event)[..., None] * logits[:, None]
    return {'event_logits': event, 'logits': logits, 'clip_logits': strongest(scores, 1)}


def strongest(x: Float[Array, 'b t c'], count: int) -> Float[Array, 'b c']:
  """The mean of the `count` largest values over time.

  Also used as the maximum: the gradient of `jnp.max` looks for the values that equal their maximum,
  and finds none or the wrong one where XLA recomputes them with another rounding.
  """
  top, _ = jax.lax.top_k(jnp.moveaxis(x, 1, -1), min(count, x.shape[1]))
  return top.mean(-1)


class AVE(nn.Module):
  """Dual encoder, temporal attention and localiser.

  Takes `video` [b t h w 3] and `wave` [b t s]. Returns the localiser's outputs, `gate` [b t], and
  the spatial attention of the last exchange, `visual_map` [b t n] and `audio_map` [b t m].
  """

  encoder: DualEncoder
  temporal: TemporalAttention
  localize: nn.Module

  def __call__(self, batch: dict[str, Any], train: bool = False) -> dict[str, Float[Array, '...']]:
    """The outputs of a batch, float32 but for the maps."""
    visual, audio, maps = pool_segments(self.encoder, batch, train)
    visual, audio, gate = self.temporal(visual, audio, train)
    return self.localize(visual, audio) | {'gate': gate} | maps
