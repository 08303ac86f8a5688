"""Swin Transformer V2 (Liu et al., 2022), as timm computes it.

The halves of its blocks can be run one by one, as the dual encoder does.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Int

from dgsct_jax.models import variants, windows
from dgsct_jax.models.drop import DropPath
from dgsct_jax.models.layers import (
  Dense,
  LayerNorm,
  Mlp,
  PatchEmbed,
  PatchMerging,
  Stage,
  check_divides,
  run_stages,
  unit,
)
from dgsct_jax.models.products import match, matmul
from dgsct_jax.models.remat import Remat, halves


class CosineAttention(nn.Module):
  """Cosine attention within windows, with a learned continuous relative-position bias."""

  heads: int
  window: tuple[int, int]
  pretrained_window: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w n d'], mask: Float[Array, 'w n n'] | None
  ) -> Float[Array, 'b w n d']:
    """Each of the n tokens of a window attends to all of them; the mask is added to the logits."""
    d = x.shape[-1]
    zeros = nn.initializers.zeros
    q_bias, v_bias = self.param('q_bias', zeros, (d,)), self.param('v_bias', zeros, (d,))
    scale = self.param('logit_scale', nn.initializers.constant(math.log(10)), (self.heads,))
    qkv = Dense(3 * d, use_bias=False, dtype=self.dtype, name='qkv')(x)
    qkv += jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(self.dtype)
    check_divides(qkv.shape[-1] // 3, self.heads, 'heads')
    q, k, v = rearrange(qkv, 'b w n (three k c) -> three b w k n c', three=3, k=self.heads)
    scale = jnp.exp(jnp.minimum(scale, math.log(100)))[:, None, None].astype(self.dtype)
    logits = match(unit(q) * scale, unit(k)).astype(jnp.float32)
    logits += self.position_bias()
    if mask is not None:
      logits += mask[:, None]
    weights = nn.softmax(logits).astype(self.dtype)
    x = rearrange(matmul(weights, v), 'b w k n c -> b w n (k c)')
    return Dense(d, dtype=self.dtype, name='proj')(x)

  def position_bias(self) -> Float[Array, 'k n n']:
    """The bias of each head for every query and key of a window."""
    table = PositionMlp(self.heads, name='cpb_mlp')(
      windows.log_offsets(self.window, self.pretrained_window)
    )
    index = windows.relative_index(self.window)
    return jnp.moveaxis(16 * nn.sigmoid(table)[index], -1, 0)


class PositionMlp(nn.Module):
  """The network that computes the position bias of every offset.

  Where it is frozen it depends on no input, so that XLA may fold it to a constant.
  """

  heads: int

  @nn.compact
  def __call__(self, offsets: Float[np.ndarray, 'offsets 2']) -> Float[Array, 'offsets k']:
    """The bias of each of the k heads, before its sigmoid."""
    hidden = nn.relu(Dense(512, name='fc1')(jnp.asarray(offsets)))
    return Dense(self.heads, use_bias=False, name='fc2')(hidden)


class SwinBlock(nn.Module):
  """Window attention and MLP, each normalised after the branch (res-post-norm)."""

  heads: int
  grid: tuple[int, int]
  window: int
  shift: int | Int[Array, '']
  pretrained_window: int = 0
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  traced = ('shift',)  # blocks that differ in this alone can share a loop (models/repeat.py)

  def setup(self) -> None:
    """Makes the layers; the window and the shift are fitted to the grid."""
    self.windows = windows.clamp(self.grid, self.window, self.shift)
    self.attn = CosineAttention(self.heads, self.windows[0], self.pretrained_window, self.dtype)
    self.norm1 = LayerNorm(dtype=self.dtype)
    self.mlp = Mlp(self.mlp_ratio, self.dtype)
    self.norm2 = LayerNorm(dtype=self.dtype)
    self.drop = DropPath(self.drop_path)

  def attend(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """The first half: window attention, normalisation and its residual."""
    return x + self.drop(self.norm1(windows.attend(self.attn, x, self.grid, *self.windows)), train)

  def feed_forward(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """The second half: MLP, normalisation and its residual."""
    return x + self.drop(self.norm2(self.mlp(x)), train)

  def __call__(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """Both halves."""
    return self.feed_forward(self.attend(x, train), train)


class SwinV2(nn.Module):
  """Swin V2 on images of a fixed size; `VARIANTS` holds timm's.

  With `drop_path=0.`, training and evaluation are the same function.
  """

  image: int | tuple[int, int] = 192
  patch: int = 4
  width: int = 192
  depths: tuple[int, ...] = (2, 2, 18, 2)
  heads: tuple[int, ...] = (6, 12, 24, 48)
  window: int = 12
  pretrained_windows: tuple[int, ...] = (0, 0, 0, 0)
  mlp_ratio: float = 4.0
  drop_path: float = 0.1
  remat: Remat = None
  dtype: Any = jnp.float32

  @nn.nowrap
  def _sides(self) -> tuple[int, int]:
    return (self.image, self.image) if isinstance(self.image, int) else self.image

  def setup(self) -> None:
    """Makes the stages. Raises ValueError for an image size that they cannot halve."""
    image = self._sides()
    unit = self.patch * 2 ** (len(self.depths) - 1)
    if image[0] % unit or image[1] % unit:
      raise ValueError(
        f'Swin V2 with {len(self.depths)} stages needs image sides that are multiples of {unit}; '
        f'got {image[0]}×{image[1]}.'
      )
    Block = halves(self, SwinBlock)
    rates = np.linspace(0, self.drop_path, sum(self.depths))

    def stage(i: int, depth: int) -> Stage:
      grid = image[0] // self.patch // 2**i, image[1] // self.patch // 2**i

      def block(j: int) -> SwinBlock:
        return Block(
          self.heads[i],
          grid,
          self.window,
          self.window // 2 * (j % 2),
          self.pretrained_windows[i],
          self.mlp_ratio,
          float(rates[sum(self.depths[:i]) + j]),
          self.dtype,
        )

      merges = i + 1 < len(self.depths)
      return Stage(
        depth, block, (lambda: PatchMerging(grid, False, self.dtype)) if merges else None
      )

    self.patch_embed = PatchEmbed(self.width, self.patch, self.dtype)
    self.stages = [stage(i, depth) for i, depth in enumerate(self.depths)]
    self.norm = LayerNorm(dtype=self.dtype)

  pixels = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's mean and standard deviation

  def stem(self, x: Float[Array, 'b height width 3'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of the patches of pictures that are normalised by `pixels`."""
    return self.patch_embed(x)

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of the last stage's tokens, as the grid that the tokens form in the picture."""
    height, width = self._sides()
    unit = self.patch * 2 ** (len(self.depths) - 1)
    return rearrange(weights, 't (y x) -> t y x', y=height // unit, x=width // unit)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b last_n last_d']:
    """All blocks, from the stem's tokens to those of the last stage, not normalised."""
    return run_stages(self.stages, x, train)

  def __call__(
    self, x: Float[Array, 'b height width 3'], train: bool = False
  ) -> Float[Array, 'b n d']:
    """Normalised tokens of the last stage."""
    return self.norm(self.body(self.stem(x, train), train))


TINY = dict(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24))
SMALL = dict(width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24))
BASE = dict(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32))
LARGE = dict(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48))
FROM_12 = dict(pretrained_windows=(12, 12, 12, 6))

VARIANTS: dict[str, dict[str, Any]] = {  # timm's names without the leading 'swinv2_'
  'tiny_window8_256': TINY | dict(image=256, window=8),
  'tiny_window16_256': TINY | dict(image=256, window=16),
  'small_window8_256': SMALL | dict(image=256, window=8),
  'small_window16_256': SMALL | dict(image=256, window=16),
  'base_window8_256': BASE | dict(image=256, window=8),
  'base_window16_256': BASE | dict(image=256, window=16),
  'base_window12_192': BASE | dict(image=192, window=12),
  'base_window12to16_192to256': BASE | dict(image=256, window=16) | FROM_12,
  'base_window12to24_192to384': BASE | dict(image=384, window=24) | FROM_12,
  'large_window12_192': LARGE | dict(image=192, window=12),
  'large_window12to16_192to256': LARGE | dict(image=256, window=16) | FROM_12,
  'large_window12to24_192to384': LARGE | dict(image=384, window=24) | FROM_12,
}


def build(variant: str = 'large_window12_192', **fields: Any) -> SwinV2:
  """A Swin V2 by timm's name, or 'custom', with any field replaced."""
  return variants.make(SwinV2, VARIANTS | variants.CUSTOM, variant, fields)
