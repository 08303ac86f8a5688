"""Learned tokens deep in both towers of CLIP, those of pictures made from those of texts."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.layers import Dense


class DeepPrompts(nn.Module):
  """Multi-modal prompts (MaPLe, Khattak et al. 2023, arXiv 2210.03117).

  Before each of the first `depth` blocks, what the tokens of the prompt became is replaced: in a
  text by `tokens` learned ones, in a picture by a linear layer of these. Later blocks keep what
  they are given. The first ones begin as random values, not as the words of a prompt.

  width, seen_width: of the tokens of texts and of pictures.
  """

  tokens: int = 2
  depth: int = 9
  width: int = 512
  seen_width: int = 768

  def setup(self):
    """Makes the parts."""
    init = nn.initializers.normal(0.02)
    shape = (self.tokens, self.width)
    self.written = [self.param(f'written_{i}', init, shape) for i in range(self.depth)]
    self.couple = [Dense(self.seen_width) for _ in range(self.depth)]

  def in_texts(self, block: int, x: Float[Array, 'c l d']) -> Float[Array, 'c l d']:
    """Texts before a block; the prompt stands behind the start token."""
    if block >= self.depth:
      return x
    return x.at[:, 1 : 1 + self.tokens].set(self.written[block].astype(x.dtype))

  def in_pictures(self, block: int, x: Float[Array, 'b n d']) -> Float[Array, 'b m d']:
    """Pictures before a block; the prompt stands at the end, where the first block adds it."""
    if block >= self.depth:
      return x
    seen = self.couple[block](self.written[block]).astype(x.dtype)
    kept = x if block == 0 else x[:, : -self.tokens]
    return jnp.concatenate([kept, jnp.broadcast_to(seen, (len(x), *seen.shape))], 1)
