"""A ladder beside two frozen backbones: it reads them, and never writes into them.

Adapters inside the backbones (DG-SCT, LAVISH) are trained through all blocks above them. Here the
backbones run as without adapters, and a ladder with a rung for each of their last stages carries
what it finds to the head: a few tokens read both streams, and the streams read them (Ladder
Side-Tuning, Sung et al. 2022, arXiv 2206.06522; tokens that collect the streams stage by stage,
Mettle, arXiv 2506.23271; late stages only, MoLT, arXiv 2512.00115). No code of these is followed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from einops import repeat
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.adapters import Delta, PoolingMap
from dgsct_jax.models.dual import Encoded
from dgsct_jax.models.guides import softmax
from dgsct_jax.models.layers import Dense, LayerNorm, Mlp, last_stages
from dgsct_jax.models.products import match, matmul

Tokens = Float[Array, 'b k w']


class Read(nn.Module):
  """Tokens take what fits them from others: attention and an MLP, each with its residual."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b q w'], y: Float[Array, 'b n w']) -> Float[Array, 'b q w']:
    """What x becomes."""
    w = x.shape[-1]
    norm = lambda name: LayerNorm(dtype=self.dtype, name=name)
    dense = lambda features, name: Dense(features, dtype=self.dtype, name=name)
    y = norm('norm_from')(y)
    query, key = dense(w, 'query')(norm('norm_to')(x)), dense(w, 'key')(y)
    weights = softmax(match(query * w**-0.5, key))
    x = x + dense(w, 'out')(matmul(weights, dense(w, 'value')(y)))
    return x + Mlp(2.0, self.dtype, name='mlp')(norm('norm_mlp')(x))


class Rung(nn.Module):
  """One stage: the ladder's tokens read both streams, and the streams read these tokens."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, streams: dict[str, Float[Array, 'b _ _']], tokens: Tokens
  ) -> tuple[dict[str, tuple[Delta, PoolingMap]], Tokens]:
    """For each stream what is added to it and how it is pooled, and the tokens for the next rung.

    At first nothing is added, and the weights of pooling are equal.
    """
    zeros = nn.initializers.zeros
    norm = lambda name: LayerNorm(dtype=self.dtype, name=name)
    dense = lambda features, name: Dense(features, dtype=self.dtype, name=name)
    down = {
      name: dense(self.width, f'{name}_down')(norm(f'{name}_norm')(x))
      for name, x in streams.items()
    }
    tokens = Read(self.dtype, name='collect')(tokens, jnp.concatenate([*down.values()], 1))
    found = {}
    for name, x in down.items():
      x = Read(self.dtype, name=f'{name}_read')(x, tokens)
      gate = self.param(f'{name}_gate', zeros, (1,)).astype(self.dtype)
      up = dense(streams[name].shape[-1], f'{name}_up')(x)
      delta = gate * norm(f'{name}_post')(up)
      logits = x @ self.param(f'{name}_pool', zeros, (self.width, 1)).astype(self.dtype)
      found[name] = delta, softmax(logits.swapaxes(-1, -2))
    return found, tokens


class Ladder(nn.Module):
  """Adds to the last stages of both frozen streams what each tells of the other.

  width: of the ladder. tokens: how many go from rung to rung. stages: that have a rung, from the
  last one; the others stay as they are (AVS alone looks at them).
  """

  width: int = 192
  tokens: int = 32
  stages: int = 2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frozen: Encoded) -> Encoded:
    """What the encoder gives to the head, from what it computes without adapters.

    No gradient goes back through it, whatever of the backbones is trainable. Raises ValueError if
    there are fewer stages than rungs.
    """
    frozen = jax.tree.map(jax.lax.stop_gradient, frozen)
    pyramids = {'visual': list(frozen.visual_pyramid), 'audio': list(frozen.audio_pyramid)}
    rungs = last_stages(self.stages, len(frozen.visual_pyramid))
    tokens = self.param('tokens', nn.initializers.normal(1.0), (self.tokens, self.width))
    tokens = repeat(tokens.astype(self.dtype), 'k w -> b k w', b=len(frozen.visual))
    maps = {}
    for i in rungs:
      streams = {name: stages[i] for name, stages in pyramids.items()}
      found, tokens = Rung(self.width, self.dtype, name=f'rung_{i}')(streams, tokens)
      for name, (delta, pooling) in found.items():
        pyramids[name][i] = pyramids[name][i] + delta
        maps[name] = pooling
    return Encoded(
      pyramids['visual'][-1],
      pyramids['audio'][-1],
      maps['visual'],
      maps['audio'],
      tuple(pyramids['visual']),
      tuple(pyramids['audio']),
    )
