"""The decoder of audio-visual segmentation: from the maps of some stages to one mask."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.layers import fan_in_uniform
from dgsct_jax.models.resize import bilinear


class Decoder(nn.Module):
  """Joins maps from the coarsest to the finest, and reads the mask off the result.

  (Released `path1` to `path4` and `output_conv`.)
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Sequence[Float[Array, 'b t _ _ d']], size: tuple[int, int]
  ) -> Float[Array, 'b t y x']:
    """Logits of the mask, of this size; the maps go from fine to coarse."""
    d = maps[0].shape[-1]
    half = (-(-size[0] // 2), -(-size[1] // 2))
    sizes = [half, *((finer.shape[2], finer.shape[3]) for finer in maps[:-1])]
    x = None
    for i in reversed(range(len(maps))):
      x = Fusion(self.dtype, name=f'fuse_{i}')(maps[i], x, sizes[i])
    x = conv(d // 2, d, self.dtype, name='out_0')(x)
    x = conv(d // 8, d // 2, self.dtype, name='out_1')(bilinear(x, size))
    return conv(1, d // 8, self.dtype, side=1, name='out_2')(nn.relu(x))[..., 0]


class Fusion(nn.Module):
  """Joins a map with what the coarser ones have found (released `FeatureFusionBlock`)."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    own: Float[Array, 'b t h w d'],
    coarser: Float[Array, 'b t h w d'] | None,
    size: tuple[int, int],
  ) -> Float[Array, 'b t y x d']:
    """Both together, at another size; the coarsest map is alone."""
    x = own if coarser is None else coarser + Residual(self.dtype, name='own')(own)
    return bilinear(Residual(self.dtype, name='both')(x), size, align_corners=True)


class Residual(nn.Module):
  """Two convolutions and a way around them (released `ResidualConvUnit`)."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w d']) -> Float[Array, 'b t h w d']:
    """ReLU(x) and what the convolutions make of it."""
    d = x.shape[-1]
    x = nn.relu(x)  # As released: in place, so what goes around is rectified, too.
    hidden = nn.relu(conv(d, d, self.dtype, name='conv1')(x))
    return x + conv(d, d, self.dtype, name='conv2')(hidden)


def conv(features: int, channels: int, dtype: Any, side: int = 3, *, name: str) -> nn.Conv:
  """A convolution that keeps the size of the map, with torch's default initial values."""
  init = fan_in_uniform(side**2 * channels)
  return nn.Conv(features, (side, side), dtype=dtype, kernel_init=init, bias_init=init, name=name)
