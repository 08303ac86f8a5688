"""Vision Transformer (Dosovitskiy et al., 2021), as timm computes it, cut for the dual encoder."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from dgsct_jax.models import layers, variants
from dgsct_jax.models.drop import DropPath
from dgsct_jax.models.layers import Dense, Mlp, check_divides, fan_in_uniform, run_stages
from dgsct_jax.models.products import match, matmul
from dgsct_jax.models.remat import Remat, halves
from dgsct_jax.models.resize import bicubic

LayerNorm = functools.partial(layers.LayerNorm, epsilon=1e-6)
AUGREG = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class SelfAttention(nn.Module):
  """Multi-head attention among all tokens."""

  width: int
  heads: int
  dtype: Any = jnp.float32

  def setup(self):
    """Makes the parts."""
    self.qkv = Dense(3 * self.width, dtype=self.dtype)
    self.proj = Dense(self.width, dtype=self.dtype)

  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """New tokens."""
    q, k, v = self.project(x)
    weights = nn.softmax(self.match(q, k)).astype(self.dtype)
    return self.proj(rearrange(matmul(weights, v), 'b k n c -> b n (k c)'))

  def logits(
    self, query: Float[Array, 'b q d'], x: Float[Array, 'b n d']
  ) -> Float32[Array, 'b k q n']:
    """How much some tokens attend to others, before the softmax."""
    return self.match(self.project(query)[0], self.project(x)[1])

  def project(self, x: Float[Array, 'b n d']) -> Float[Array, 'three b k n c']:
    """Query, key and value of each head."""
    check_divides(x.shape[-1], self.heads, 'heads')
    return rearrange(self.qkv(x), 'b n (three k c) -> three b k n c', three=3, k=self.heads)

  def match(
    self, q: Float[Array, 'b k q c'], k: Float[Array, 'b k n c']
  ) -> Float32[Array, 'b k q n']:
    """Scaled products of queries and keys."""
    scale = (self.width // self.heads) ** -0.5
    return match(q * scale, k).astype(jnp.float32)


class ViTBlock(nn.Module):
  """Attention and MLP, each normalised before the branch (pre-norm)."""

  width: int
  heads: int
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    """Makes the parts."""
    self.norm1 = LayerNorm(dtype=self.dtype)
    self.attn = SelfAttention(self.width, self.heads, self.dtype)
    self.norm2 = LayerNorm(dtype=self.dtype)
    self.mlp = Mlp(self.mlp_ratio, self.dtype)
    self.drop = DropPath(self.drop_path)

  def attend(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """Attention and its residual."""
    return x + self.drop(self.attn(self.norm1(x)), train)

  def feed_forward(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """MLP and its residual."""
    return x + self.drop(self.mlp(self.norm2(x)), train)

  def __call__(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """Both halves."""
    return self.feed_forward(self.attend(x, train), train)


class Span(NamedTuple):
  """Consecutive blocks, as a stage that ends in no patch merging."""

  blocks: Sequence[ViTBlock]

  def downsample(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """The same tokens: a ViT merges none."""
    return x


class ViT(nn.Module):
  """A plain ViT with a class token, the first of its tokens; `VARIANTS` holds timm's.

  It has no stages of its own: `depths` splits its blocks as those of its partner are split, and no
  parameter depends on that.

  pixels: mean and standard deviation of the normalisation of pictures; those of AugReg.
  positions: how pictures of another size than `image` get theirs: from the grid, resized as torch's
    bicubic does, or as released with LAVISH from the table as one `flat` row, class token included.
  """

  image: int = 224
  patch: int = 16
  width: int = 768
  depths: tuple[int, ...] = (2, 2, 6, 2)
  heads: int = 12
  mlp_ratio: float = 4.0
  positions: Literal['grid', 'flat'] = 'grid'
  pixels: tuple[Sequence[float], Sequence[float]] = AUGREG
  drop_path: float = 0.0
  remat: Remat = None
  dtype: Any = jnp.float32

  def setup(self):
    """Makes the parts."""
    Block = halves(self, ViTBlock)
    rates = np.linspace(0, self.drop_path, sum(self.depths))
    init = fan_in_uniform(self.patch**2 * 3)
    size = (self.patch, self.patch)
    self.patch_embed = nn.Conv(
      self.width, size, size, padding='VALID', dtype=self.dtype, kernel_init=init, bias_init=init
    )
    self.cls_token = self.param('cls_token', nn.initializers.zeros, (1, self.width))
    table = 1 + (self.image // self.patch) ** 2, self.width
    self.pos_embed = self.param('pos_embed', nn.initializers.normal(0.02), table)
    self.blocks = [
      Block(self.width, self.heads, self.mlp_ratio, float(rate), self.dtype) for rate in rates
    ]
    self.norm = LayerNorm(dtype=self.dtype)

  @property
  def stages(self) -> tuple[Span, ...]:
    """The blocks, split by `depths`."""
    ends = np.cumsum(self.depths)
    return tuple(Span(self.blocks[end - depth : end]) for end, depth in zip(ends, self.depths))

  def stem(self, x: Float[Array, 'b height width 3'], train: bool = False) -> Float[Array, 'b n d']:
    """The class token and those of patches, with their positions."""
    grid = x.shape[1] // self.patch, x.shape[2] // self.patch
    return self.tokens(x) + self.position(grid).astype(self.dtype)

  def tokens(self, x: Float[Array, 'b height width 3']) -> Float[Array, 'b n d']:
    """The class token and those of patches, without positions."""
    patches = rearrange(self.patch_embed(x), 'b h w d -> b (h w) d')
    first = jnp.broadcast_to(self.cls_token, (len(x), 1, self.width)).astype(self.dtype)
    return jnp.concatenate([first, patches], 1)

  def position(self, grid: tuple[int, int]) -> Float[Array, 'n d']:
    """Positions of the class token and of a grid of patches."""
    side = self.image // self.patch
    if grid == (side, side):
      return self.pos_embed
    if self.positions == 'flat':
      return stretch(self.pos_embed, 1 + grid[0] * grid[1])
    table = bicubic(rearrange(self.pos_embed[1:], '(h w) d -> h w d', h=side), grid)
    return jnp.concatenate([self.pos_embed[:1], rearrange(table, 'h w d -> (h w) d')])

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of the patches' tokens where these lie in the picture. Raises ValueError."""
    side = self.image // self.patch
    if weights.shape[1] != 1 + side**2:
      raise ValueError(
        f'A ViT of {self.image} pixels has {1 + side**2} tokens, {weights.shape[1]} were to be'
        ' placed; show it pictures of its own size.'
      )
    return rearrange(weights[:, 1:], 't (y x) -> t y x', y=side)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
    """All blocks, from the stem's tokens to those of the last block, not normalised."""
    return run_stages(self.stages, x, train)

  def __call__(
    self, x: Float[Array, 'b height width 3'], train: bool = False
  ) -> Float[Array, 'b n d']:
    """Normalised tokens of the last block."""
    return self.norm(self.body(self.stem(x, train), train))


def stretch(table: Float[Array, 'm d'], n: int) -> Float[Array, 'n d']:
  """A table of positions as one row of another length (torch's linear resize, pixel centres)."""
  m = table.shape[0]
  at = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
  left = np.floor(at).astype(int)
  share = jnp.asarray(at - left, table.dtype)[:, None]
  return (1 - share) * table[left] + share * table[np.minimum(left + 1, m - 1)]


TINY = dict(width=192, heads=3)
SMALL = dict(width=384, heads=6)
BASE = dict(width=768, heads=12)
LARGE = dict(width=1024, heads=16, depths=(4, 4, 12, 4))

VARIANTS: dict[str, dict[str, Any]] = {  # timm's names without the leading 'vit_'
  'tiny_patch16_224': TINY,
  'tiny_patch16_384': TINY | dict(image=384),
  'small_patch16_224': SMALL,
  'small_patch16_384': SMALL | dict(image=384),
  'small_patch32_224': SMALL | dict(patch=32),
  'small_patch32_384': SMALL | dict(patch=32, image=384),
  'base_patch8_224': BASE | dict(patch=8),
  'base_patch16_224': BASE,
  'base_patch16_384': BASE | dict(image=384),
  'base_patch32_224': BASE | dict(patch=32),
  'base_patch32_384': BASE | dict(patch=32, image=384),
  'large_patch16_224': LARGE,
  'large_patch16_384': LARGE | dict(image=384),
  'large_patch32_384': LARGE | dict(patch=32, image=384),
}


def build(variant: str = 'base_patch16_224', **fields: Any) -> ViT:
  """A ViT by timm's name, or 'custom', with any field replaced."""
  return variants.make(ViT, VARIANTS | variants.CUSTOM, variant, fields)
