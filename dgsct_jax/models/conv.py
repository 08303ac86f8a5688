"""What convolutional backbones share: convolutions over tokens, padded as TensorFlow does."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.layers import BatchNorm


class Depthwise(nn.Module):
  """A convolution in which every channel has a filter of its own; 'SAME' padding, no bias.

  As a sum of shifted products: XLA's grouped convolution takes several times as long on CPUs.
  """

  size: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W c']:
    """The filters are `kernel` [size size 1 c], as `nn.Conv` has them."""
    shape = (self.size, self.size, 1, x.shape[-1])
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape).astype(self.dtype)
    size, step = (self.size, self.size), (self.stride, self.stride)
    pads = jax.lax.padtype_to_pads(x.shape[1:3], size, step, 'SAME')
    x = jnp.pad(x.astype(self.dtype), [(0, 0), *pads, (0, 0)])
    ends = [n - self.size + 1 for n in x.shape[1:3]]  # of the places where a filter begins
    shifted = lambda i, j: x[:, i : i + ends[0] : self.stride, j : j + ends[1] : self.stride]
    places = itertools.product(range(self.size), repeat=2)
    return sum((shifted(i, j) * kernel[i, j, 0] for i, j in places), jnp.zeros((), self.dtype))


class ConvNorm(nn.Module):
  """A convolution without bias and a batch normalisation, which is always that of evaluation.

  depthwise: every channel has a filter of its own; `width` is then that of the input.
  """

  width: int
  size: int
  stride: int = 1
  depthwise: bool = False
  epsilon: float = 1e-3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W d']:
    """Padding is 'SAME': at a stride of 2 it is not symmetric, unlike torch's."""
    if self.depthwise:
      x = Depthwise(self.size, self.stride, self.dtype, name='conv')(x)
    else:
      x = nn.Conv(
        self.width,
        (self.size, self.size),
        self.stride,
        padding='SAME',
        use_bias=False,
        dtype=self.dtype,
        name='conv',
      )(x)
    return BatchNorm(epsilon=self.epsilon, dtype=self.dtype, name='norm')(x, False)


class GridBlock(nn.Module):
  """A convolutional block as a block of a backbone, over tokens of a grid of so many `rows`.

  Subclasses have `run`, from a grid to a grid. A convolution has no halves: it is all `attend`.
  """

  rows: int

  def run(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W d']:
    """The block on a grid."""
    raise NotImplementedError

  def attend(self, x: Float[Array, 'b n c'], train: bool) -> Float[Array, 'b m d']:
    """The whole block."""
    return on_grid(self.run, x, self.rows)

  def feed_forward(self, x: Float[Array, 'b n c'], train: bool) -> Float[Array, 'b n c']:
    """Nothing."""
    return x

  def __call__(self, x: Float[Array, 'b n c'], train: bool = False) -> Float[Array, 'b m d']:
    """The whole block."""
    return self.attend(x, train)


def on_grid(
  block: Callable[[Float[Array, 'b h w c']], Float[Array, 'b H W d']],
  x: Float[Array, 'b n c'],
  rows: int,
) -> Float[Array, 'b m d']:
  """Applies a convolutional block to tokens in row-major order, of a grid of so many rows."""
  return rearrange(block(rearrange(x, 'b (h w) c -> b h w c', h=rows)), 'b h w c -> b (h w) c')


relu6 = functools.partial(jnp.clip, min=0, max=6)
