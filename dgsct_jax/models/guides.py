"""Tokens that guide another stream, as few latent tokens ask and read them.

A guide is the other stream's tokens, brought to a number of tokens and channels by linear maps. It
is never laid out: what latents ask and read of it goes through the maps instead, and latents are
fewer than the channels of any stream. A guide has two methods:

match(query): products [b q n] of queries [b q d] or [q d] and its tokens; up to a number for each
  query, which softmax does not see.
read(weights): sums [b q d] of its tokens, by weights [b q n] that add up to 1 over the tokens.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from dgsct_jax.cubic import cubic_matrix
from dgsct_jax.models.layers import fan_in_uniform
from dgsct_jax.models.products import match, matmul
from dgsct_jax.models.resize import resize

Query = Float[Array, '*b q d']
Weights = Float[Array, 'b q n']
Read = Float[Array, 'b q d']


@runtime_checkable
class Guide(Protocol):
  """Tokens that are asked and read."""

  def match(self, query: Query) -> Weights:
    """Products of queries and tokens."""
    ...

  def read(self, weights: Weights) -> Read:
    """Sums of tokens."""
    ...


class Tokens(NamedTuple):
  """Tokens as they are."""

  tokens: Float[Array, 'b n d']

  def match(self, query: Query) -> Weights:
    """Products of queries and tokens."""
    query = jnp.broadcast_to(query, (*self.tokens.shape[:1], *query.shape[-2:]))
    return match(query, self.tokens)

  def read(self, weights: Weights) -> Read:
    """Sums of tokens."""
    return matmul(weights, self.tokens)


class MappedTokens(NamedTuple):
  """n tokens, each a sum of the guide's m tokens and a bias (released `conv_adapter`)."""

  guide: Guide
  kernel: Float[Array, 'm n']
  bias: Float[Array, 'n']

  def match(self, query: Query) -> Weights:
    """Products of queries and tokens."""
    return matmul(self.guide.match(query), self.kernel) + query.sum(-1, keepdims=True) * self.bias

  def read(self, weights: Weights) -> Read:
    """Sums of tokens."""
    return self.guide.read(match(weights, self.kernel)) + matmul(weights, self.bias[:, None])


class ResizedTokens(NamedTuple):
  """A square grid of tokens resized as torch does: bicubic, pixel centres, no antialiasing."""

  guide: Guide
  matrix: Float32[np.ndarray, 'new old']  # of a side of the grid

  def match(self, query: Query) -> Weights:
    """Products of queries and tokens."""
    return both_sides(self.matrix, self.guide.match(query))

  def read(self, weights: Weights) -> Read:
    """Sums of tokens."""
    return self.guide.read(both_sides(self.matrix.T, weights))


class MappedChannels(NamedTuple):
  """The guide's e channels through a linear layer to d (released `fc`)."""

  guide: Guide
  kernel: Float[Array, 'e d']
  bias: Float[Array, 'd']

  def match(self, query: Query) -> Weights:
    """Products of queries and tokens, without what the bias adds to all of a query."""
    return self.guide.match(match(query, self.kernel))

  def read(self, weights: Weights) -> Read:
    """Sums of tokens."""
    return matmul(self.guide.read(weights), self.kernel) + self.bias


class Map(nn.Module):
  """A linear layer's kernel [width features] and bias, with torch's initial values."""

  width: int
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
  ) -> tuple[Float[Array, '{self.width} {self.features}'], Float[Array, '{self.features}']]:
    """Both, in `dtype`."""
    init = fan_in_uniform(self.width)
    kernel = self.param('kernel', init, (self.width, self.features))
    bias = self.param('bias', init, (self.features,))
    return jnp.asarray(kernel, self.dtype), bias.astype(self.dtype)


def attend(query: Query, guide: Guide) -> Read:
  """What queries read of a guide, by plain products: one head, no projections, no scale."""
  return guide.read(softmax(guide.match(query)))


def attend_and_mean(query: Query, guide: Guide) -> tuple[Read, Float[Array, 'b d']]:
  """What queries read of a guide, and the mean of its tokens, which is read beside them."""
  weights = softmax(guide.match(query))
  uniform = jnp.full_like(weights[:, :1], 1 / weights.shape[-1])
  read = guide.read(jnp.concatenate([weights, uniform], 1))
  return read[:, :-1], read[:, -1]


def softmax(logits: Weights) -> Weights:
  """Over the last axis, in float32."""
  return nn.softmax(logits.astype(jnp.float32)).astype(logits.dtype)


def resized(guide: Guide, m: int, n: int) -> ResizedTokens:
  """A guide of m tokens with n. Raises ValueError where m or n is not a square number."""
  old, new = math.isqrt(m), math.isqrt(n)
  if old**2 != m or new**2 != n:
    raise ValueError(
      f"token_map='resize' needs square token grids; got {m} and {n} tokens. Use 'linear'."
    )
  return ResizedTokens(guide, cubic_matrix(old, new))


def both_sides(
  matrix: Float32[np.ndarray, 'o i'], grids: Float[Array, 'b q i*i']
) -> Float[Array, 'b q o*o']:
  """Maps the rows and the columns of square grids."""
  grids = rearrange(grids, 'b q (h w) -> b q h w 1', h=matrix.shape[1])
  return rearrange(resize(grids, matrix, matrix), 'b q h w 1 -> b q (h w)')
