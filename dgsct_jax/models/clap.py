"""CLAP (Wu et al., 2023), as LAION trained it.

HTS-AT and RoBERTa, and what brings both to one space.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.htsat import HTSAT
from dgsct_jax.models.layers import Dense, LayerNorm, Mlp
from dgsct_jax.models.transformer import SelfAttention

PADDING = 1  # the id that fills up short texts


class RobertaLayer(nn.Module):
  """Attention and MLP, each normalised after its residual."""

  heads: int
  mlp_ratio: float = 4.0
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], mask: Bool[Array, 'b 1 n'], train: bool
  ) -> Float[Array, 'b n d']:
    """New tokens; those that `mask` refuses are not looked at."""
    drop = Dropout(self.dropout)
    attend = SelfAttention(self.heads, self.dropout, self.dtype, name='attn')
    x = LayerNorm(dtype=self.dtype, name='norm1')(x + drop(attend(x, train, mask), train))
    mlp = Mlp(self.mlp_ratio, self.dtype, name='mlp')
    return LayerNorm(dtype=self.dtype, name='norm2')(x + drop(mlp(x), train))


class Roberta(nn.Module):
  """RoBERTa's encoder and pooler (Liu et al., 2019).

  positions: two more than a text may have tokens. dropout: of everything, in training; 0.1 in the
  release, where
    it makes the features of frozen classes noisy.
  """

  vocabulary: int = 50265
  positions: int = 514
  width: int = 768
  depth: int = 12
  heads: int = 12
  mlp_ratio: float = 4.0
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, ids: Int[Array, 'c l'], train: bool = False) -> Float[Array, 'c d']:
    """One feature per text, read at its first token; padding is not looked at."""
    if ids.shape[1] > self.positions - PADDING - 1:
      raise ValueError(
        f'Texts of {ids.shape[1]} tokens; the text tower holds {self.positions - PADDING - 1}.'
        ' Shorten them.'
      )
    init = nn.initializers.normal(0.02)
    embed = lambda size, name: nn.Embed(
      size, self.width, dtype=self.dtype, embedding_init=init, name=name
    )
    real = ids != PADDING
    place = jnp.where(real, jnp.cumsum(real, 1) + PADDING, PADDING)
    kind = self.param('token_type', init, (1, self.width)).astype(self.dtype)
    x = embed(self.vocabulary, 'words')(ids) + embed(self.positions, 'positions')(place) + kind
    x = LayerNorm(dtype=self.dtype, name='norm')(x)
    x = Dropout(self.dropout)(x, train)
    for i in range(self.depth):
      layer = RobertaLayer(self.heads, self.mlp_ratio, self.dropout, self.dtype, name=f'layers_{i}')
      x = layer(x, real[:, None], train)
    return jnp.tanh(Dense(self.width, dtype=self.dtype, name='pooler')(x[:, 0]))


class Projection(nn.Module):
  """Linear, ReLU, linear."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b d']) -> Float[Array, 'b e']:
    """The feature in the common space."""
    x = nn.relu(Dense(self.features, dtype=self.dtype, name='fc1')(x))
    return Dense(self.features, dtype=self.dtype, name='fc2')(x)


class CLAP(nn.Module):
  """Both towers; `logit_scale_a`, `logit_scale_t`: logarithms of the factors of cosines."""

  audio: HTSAT
  text: Roberta
  features: int = 512
  dtype: Any = jnp.float32

  def setup(self):
    """Makes the parts."""
    init = nn.initializers.constant(math.log(1 / 0.07))
    self.audio_projection = Projection(self.features, self.dtype)
    self.text_projection = Projection(self.features, self.dtype)
    self.logit_scale_a = self.param('logit_scale_a', init, ())
    self.logit_scale_t = self.param('logit_scale_t', init, ())

  def project(self, x: Float[Array, 'b n d']) -> Float[Array, 'b e']:
    """The feature of a sound from the last tokens, not normalised, of its tower.

    Not of unit length.
    """
    return self.audio_projection(self.audio.norm(x).mean(1))

  def read(self, ids: Int[Array, 'c l'], train: bool = False) -> Float[Array, 'c e']:
    """Features of texts, not of unit length."""
    return self.text_projection(self.text(ids, train))

  def __call__(
    self, wave: Float[Array, 'b s'], ids: Int[Array, 'c l']
  ) -> tuple[Float[Array, 'b e'], Float[Array, 'c e']]:
    """Features of sounds and of texts, not of unit length."""
    return self.project(self.audio.body(self.audio.stem(wave))), self.read(ids)
