"""Self-attention as CLIP's and RoBERTa's towers have it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.layers import Dense, check_divides
from dgsct_jax.models.products import match, matmul


class SelfAttention(nn.Module):
  """Multi-head self-attention with query, key and value in one projection (torch's `in_proj`).

  dropout: of the weights, in training.
  """

  heads: int
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], train: bool, mask: Bool[Array, '#b #n n'] | None = None
  ) -> Float[Array, 'b n d']:
    """mask: which tokens each may look at; all, if None."""
    d = x.shape[-1]
    qkv = Dense(3 * d, dtype=self.dtype, name='in_proj')(x)
    check_divides(qkv.shape[-1] // 3, self.heads, 'heads')
    q, k, v = rearrange(qkv, 'b n (three k c) -> three b k n c', three=3, k=self.heads)
    logits = match(q * (d // self.heads) ** -0.5, k).astype(jnp.float32)
    if mask is not None:
      logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = nn.softmax(logits).astype(self.dtype)
    weights = Dropout(self.dropout)(weights, train)
    x = rearrange(matmul(weights, v), 'b k n c -> b n (k c)')
    return Dense(d, dtype=self.dtype, name='out_proj')(x)


def causal(length: int) -> Bool[np.ndarray, '1 n n']:
  """Each token looks at itself and those before it."""
  return np.tril(np.ones((1, length, length), bool))
