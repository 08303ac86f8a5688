"""Dropout and drop paths, whose masks are short to compile.

A mask from jax.random takes some 300 instructions of a program for CPUs and as long to compile as
several layers (findings/jax_cpu_dropout_masks.sh); a model has dozens. So each value that may be
dropped has its place hashed together with the key of its module and step.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt32


class Dropout(nn.Module):
  """Drops single values. Those that stay are divided by the probability to stay."""

  rate: float

  @nn.compact
  def __call__(self, x: Float[Array, '...'], train: bool) -> Float[Array, '...']:
    """What stays of x; all of it without `train`."""
    if not train or not self.rate:
      return x
    return jnp.where(stays(self.make_rng('dropout'), x.shape, self.rate), x / (1 - self.rate), 0)


class DropPath(nn.Module):
  """Drops a residual branch for whole rows of the batch (stochastic depth)."""

  rate: float = 0.0

  def __call__(self, x: Float[Array, 'b ...'], train: bool) -> Float[Array, 'b ...']:
    """Rows that stay are divided by the probability to stay; without `train` all stay as is."""
    if not train or not self.rate:
      return x
    rows = x.shape[:1] + (1,) * (x.ndim - 1)
    return jnp.where(stays(self.make_rng('drop_path'), rows, self.rate), x / (1 - self.rate), 0)


def stays(key: Array, shape: tuple[int, ...], rate: float) -> Bool[Array, '...']:
  """Which places are not dropped, each with probability 1 − `rate`."""
  # From one iota for each axis, so that devices which share an array make their own part.
  place = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    place += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
  first, second = jax.random.key_data(key)[:2]
  return _hash(_hash(place ^ first) + second) >= np.uint32(rate * 2**32)


def _hash(x: UInt32[Array, '...']) -> UInt32[Array, '...']:
  """Mixes all bits: lowbias32 of Wellons, 2018, https://nullprogram.com/blog/2018/07/31/."""
  x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
  return x ^ (x >> 16)
