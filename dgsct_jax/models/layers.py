"""Layers with torch's constants, with which the frozen weights were trained."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.products import matmul

# The fast variance E[x²] − E[x]² loses half the digits of a large mean.
LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


@functools.cache
def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
  """U(−1/√fan_in, 1/√fan_in): torch's default for linear and convolution layers, biases too."""

  # One compiled function, since initial values are drawn op by op.
  @functools.partial(jax.jit, static_argnums=(1, 2))
  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

  return init


def check_divides(width: int, parts: int, what: str) -> None:
  """Raises ValueError unless channels split evenly into `parts`, such as heads or groups."""
  if not parts or not width or width % parts:
    raise ValueError(f'{width} channels do not divide into {parts} {what}; choose a divisor.')


def last_stages(count: int, depth: int) -> range:
  """The indices of the last `count` of `depth` stages. Raises ValueError if there are fewer."""
  if not 1 <= count <= depth:
    raise ValueError(
      f'config.model.adapter.stages={count}, and the backbones have {depth} stages; choose from 1'
      f' to {depth}.'
    )
  return range(depth - count, depth)


class Dense(nn.Module):
  """A linear layer with torch's default initial values."""

  features: int
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    """Maps the last axis from `i` channels to `features`, in `dtype`."""
    init = fan_in_uniform(x.shape[-1])
    kernel = self.param('kernel', init, (x.shape[-1], self.features))
    x = matmul(x.astype(self.dtype), jnp.asarray(kernel, self.dtype))
    if self.use_bias:
      x += self.param('bias', init, (self.features,)).astype(self.dtype)
    return x


def unit(x: Float[Array, '... c']) -> Float[Array, '... c']:
  """Normalises to x / max(‖x‖, 1e-12) over the last axis, in float32."""
  square = jnp.sum(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
  return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, with torch's running statistics.

  Like torch it normalises by the biased variance and averages the unbiased one; Flax averages the
  biased one.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... d'], train: bool) -> Float[Array, '... d']:
    """With `train`, normalises by the statistics of x and moves the running ones towards them."""
    d = x.shape[-1]
    scale = self.param('scale', self.scale_init, (d,))
    bias = self.param('bias', nn.initializers.zeros, (d,))
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (d,))
    running_var = self.variable('batch_stats', 'var', jnp.ones, (d,))
    mean, var = running_mean.value, running_var.value
    if train:
      axes = tuple(range(x.ndim - 1))
      mean = jnp.mean(x, axes, dtype=jnp.float32)
      var = jnp.mean(jnp.square(x.astype(jnp.float32) - mean), axes)
      if not self.is_initializing():
        n = x.size // d
        keep = self.momentum
        running_mean.value = keep * running_mean.value + (1 - keep) * mean
        running_var.value = keep * running_var.value + (1 - keep) * var * (n / (n - 1))
    factor = scale * jax.lax.rsqrt(var + self.epsilon)
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)


def gelu(x: Float[Array, '...']) -> Float[Array, '...']:
  """The exact GELU."""
  # On CPUs XLA would take its end into the next layer's product, and write out at full size both
  # what goes in there and the constants.
  cpu = jax.lax.optimization_barrier
  return jax.lax.platform_dependent(nn.gelu(x, approximate=False), cpu=cpu, default=lambda x: x)


class Mlp(nn.Module):
  """Linear, exact GELU, linear."""

  ratio: float = 4.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    """Maps the last axis through a hidden layer of `ratio` times its width."""
    d = x.shape[-1]
    x = Dense(int(d * self.ratio), dtype=self.dtype, name='fc1')(x)
    return Dense(d, dtype=self.dtype, name='fc2')(gelu(x))


class PatchEmbed(nn.Module):
  """Cuts an image into square patches and embeds each as a normalised token."""

  width: int
  patch: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b height width c']) -> Float[Array, 'b n d']:
    """The tokens of the patches, in row-major order."""
    size = (self.patch, self.patch)
    init = fan_in_uniform(self.patch**2 * x.shape[-1])
    x = nn.Conv(
      self.width,
      size,
      size,
      padding='VALID',
      dtype=self.dtype,
      kernel_init=init,
      bias_init=init,
      name='proj',
    )(x)
    return LayerNorm(dtype=self.dtype, name='norm')(rearrange(x, 'b h w d -> b (h w) d'))


class PatchMerging(nn.Module):
  """Joins each 2×2 neighbourhood of tokens and doubles the width.

  `norm_first`: normalise the joined tokens, then reduce (Swin V1, HTS-AT); otherwise reduce, then
  normalise (Swin V2).
  """

  grid: tuple[int, int]
  norm_first: bool
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n/4 2*d']:
    """Merges the tokens of `grid`, in row-major order."""
    h, w = self.grid
    # Column before row: the released order is (even, even), (odd row, even), (even, odd column),
    # (odd, odd).
    x = rearrange(x, 'b (h r w c) d -> b (h w) (c r d)', h=h // 2, w=w // 2, r=2, c=2)
    reduction = Dense(x.shape[-1] // 2, use_bias=False, dtype=self.dtype, name='reduction')
    norm = LayerNorm(dtype=self.dtype, name='norm')
    return reduction(norm(x)) if self.norm_first else norm(reduction(x))


class Stage(nn.Module):
  """Blocks at one resolution, and the patch merging after them, if any."""

  depth: int
  block: Callable[[int], nn.Module]  # position in the stage -> block
  merge: Callable[[], nn.Module] | None = None

  def setup(self) -> None:
    """Makes the blocks and the merging."""
    self.blocks = [self.block(j) for j in range(self.depth)]
    self.downsample = self.merge() if self.merge else lambda x: x


def run_stages(
  stages: Sequence[Any], x: Float[Array, 'b n d'], train: bool
) -> Float[Array, 'b last_n last_d']:
  """All blocks and mergings of a backbone, one after another."""
  for stage in stages:
    for block in stage.blocks:
      x = block(x, train)
    x = stage.downsample(x)
  return x
