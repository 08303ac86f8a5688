"""Frozen backbones that were run once: what they made of each clip stands in its place."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dgsct_jax.models import pure
from dgsct_jax.models.adapters import uniform
from dgsct_jax.models.dual import DualEncoder, Encoded

Shapes = tuple[tuple[int, int], ...]  # tokens and width of the last stages


class CachedEncoder(DualEncoder):
  """A dual encoder without exchanges that gets `pack` of its own streams as `video` and `wave`.

  Its variables are those of the encoder that made them.
  """

  visual_shapes: Shapes = ()
  audio_shapes: Shapes = ()
  dtype: Any = jnp.float32

  @property
  def kept(self) -> int:
    """How many stages, from the last one."""
    return len(self.visual_shapes)

  def streams(
    self, video: Float[Array, 'b height width c'], wave: Float[Array, 'b s'], train: bool
  ) -> Encoded:
    """What `pack` was given; earlier stages have no tokens.

    Raises ValueError if these are no such features: the head changes pictures before they are seen.
    """
    del train
    b = len(video)
    if video.shape[1:] != (1, 1, size(self.visual_shapes)):
      raise ValueError(
        'config.data.cache_features cannot be used with this head, which resizes the pictures that'
        ' its encoder looks at; leave it empty.'
      )
    left_out = [jnp.zeros((b, 0, 0), self.dtype)] * (
      len(self.visual.depths) - len(self.visual_shapes)
    )
    visual = unpack(video.reshape(b, -1).astype(self.dtype), self.visual_shapes)
    audio = unpack(wave.astype(self.dtype), self.audio_shapes)
    return Encoded(
      visual[-1],
      audio[-1],
      uniform(visual[-1]),
      uniform(audio[-1]),
      (*left_out, *visual),
      (*left_out, *audio),
    )


def cached(encoder: DualEncoder, encoded: Any) -> CachedEncoder:
  """The encoder in whose place the features of its last stages stand.

  Those stages are kept that what is beside the streams looks at, or the last one.

  Args:
    encoded: what its streams give, as arrays or as their shapes.
  """
  stages = encoder.side().stages if encoder.side else 1
  shapes = lambda pyramid: tuple(x.shape[1:] for x in pyramid[-stages:])
  return CachedEncoder(
    **pure.fields(encoder),
    visual_shapes=shapes(encoded.visual_pyramid),
    audio_shapes=shapes(encoded.audio_pyramid),
    dtype=encoded.visual.dtype,
  )


def size(shapes: Shapes) -> int:
  """How many values `pack` makes of a row."""
  return sum(n * d for n, d in shapes)


def pack(pyramid: Sequence[Float[Array, 'b _ _']], stages: int) -> Float[Array, 'b k']:
  """The tokens of the last stages, one after another."""
  return jnp.concatenate([x.reshape(len(x), -1) for x in pyramid[-stages:]], 1)


def unpack(packed: Float[Array, 'b k'], shapes: Shapes) -> list[Float[Array, 'b _ _']]:
  """The inverse of `pack`."""
  ends = np.cumsum([n * d for n, d in shapes])[:-1]
  parts = jnp.split(packed, ends, axis=1)
  return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes)]
