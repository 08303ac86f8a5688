"""A visual backbone that hears: sound as a picture (LAVISH)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import repeat
from flax import linen as nn
from jaxtyping import Array, Float


class Listener(nn.Module):
  """Looks at the spectrogram of `front_end`, three times as red, green and blue.

  As the audio stream of a dual encoder whose visual stream is the same instance of a backbone, it
  shares that backbone's weights (LAVISH); with another instance it has its own.
  """

  backbone: nn.Module
  front_end: nn.Module  # [b s] -> [b height width]

  @property
  def depths(self) -> tuple[int, ...]:
    """Blocks per stage."""
    return self.backbone.depths

  @property
  def seconds(self) -> float:
    """Of sound that a segment holds."""
    return self.front_end.seconds

  @property
  def stages(self) -> Sequence[Any]:
    """Those of the backbone."""
    return self.backbone.stages

  def stem(self, wave: Float[Array, 'b ...'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of patches of the spectrogram."""
    picture = repeat(self.front_end(wave), 'b height width -> b height width 3')
    return self.backbone.stem(picture, train)

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of the last stage's tokens over frequency, from low to high, and time."""
    return self.front_end.place(self.backbone.place(weights))

  def norm(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """The backbone's final norm."""
    return self.backbone.norm(x)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b last_n last_d']:
    """All blocks, from the stem's tokens to those of the last stage, not normalised."""
    return self.backbone.body(x, train)

  def __call__(self, wave: Float[Array, 'b s'], train: bool = False) -> Float[Array, 'b n d']:
    """Normalised tokens of the last stage."""
    return self.norm(self.body(self.stem(wave, train), train))
