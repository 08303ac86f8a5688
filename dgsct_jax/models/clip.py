"""CLIP (Radford et al., 2021) with a vision transformer.

Its image tower is a backbone of the dual encoder.
"""

import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from dgsct_jax.models import variants
from dgsct_jax.models.drop import DropPath
from dgsct_jax.models.layers import Dense, LayerNorm, Stage, gelu, run_stages
from dgsct_jax.models.maple import DeepPrompts
from dgsct_jax.models.remat import Remat, halves
from dgsct_jax.models.transformer import SelfAttention, causal

Activation = Literal['quick_gelu', 'gelu']
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def quick_gelu(x: Float[Array, '...']) -> Float[Array, '...']:
  """x·σ(1.702 x): what OpenAI's weights were trained with.

  Some of open_clip's have the exact GELU.
  """
  return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Any] = {'quick_gelu': quick_gelu, 'gelu': gelu}


class FeedForward(nn.Module):
  """Linear, activation, linear."""

  ratio: float = 4.0
  activation: Activation = 'quick_gelu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """New tokens."""
    d = x.shape[-1]
    x = Dense(int(d * self.ratio), dtype=self.dtype, name='fc1')(x)
    return Dense(d, dtype=self.dtype, name='fc2')(ACTIVATIONS[self.activation](x))


class CLIPBlock(nn.Module):
  """Attention and MLP, each normalised before the branch (released `ResidualAttentionBlock`).

  prompts: of pictures; the block is the `index`-th one of the image tower.
  """

  heads: int
  mlp_ratio: float = 4.0
  activation: Activation = 'quick_gelu'
  drop_path: float = 0.0
  dtype: Any = jnp.float32
  prompts: DeepPrompts | None = None
  index: int = 0

  def setup(self):
    """Makes the parts."""
    self.norm1 = LayerNorm(dtype=self.dtype)
    self.attn = SelfAttention(self.heads, dtype=self.dtype)
    self.norm2 = LayerNorm(dtype=self.dtype)
    self.mlp = FeedForward(self.mlp_ratio, self.activation, self.dtype)
    self.drop = DropPath(self.drop_path)

  def attend(
    self, x: Float[Array, 'b n d'], train: bool, mask: Bool[np.ndarray, '1 n n'] | None = None
  ) -> Float[Array, 'b n d']:
    """Attention and its residual."""
    if self.prompts and self.index:  # The stem has those of the first block.
      x = self.prompts.in_pictures(self.index, x)
    return x + self.drop(
      self.attn(self.norm1(x), train, None if mask is None else jnp.asarray(mask)), train
    )

  def feed_forward(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """MLP and its residual."""
    return x + self.drop(self.mlp(self.norm2(x)), train)

  def __call__(
    self, x: Float[Array, 'b n d'], train: bool, mask: Bool[np.ndarray, '1 n n'] | None = None
  ) -> Float[Array, 'b n d']:
    """Both halves; `mask` says who may look at whom."""
    return self.feed_forward(self.attend(x, train, mask), train)


class CLIPVision(nn.Module):
  """CLIP's image tower. Its tokens are the class token, those of the patches, those of prompts.

  depths: a transformer has no stages of its own; they are those of the partner that it meets block
  by block.
  pixels: mean and standard deviation of the normalisation of pictures.
  drop_path: CLIP has none.
  prompts: learned tokens beside those of the pictures; there are none without.
  """

  image: int = 224
  patch: int = 32
  width: int = 768
  depths: tuple[int, ...] = (2, 2, 6, 2)
  heads: int = 12
  mlp_ratio: float = 4.0
  features: int = 512
  activation: Activation = 'quick_gelu'
  pixels: tuple[tuple[float, ...], tuple[float, ...]] = (MEAN, STD)
  drop_path: float = 0.0
  remat: Remat = None
  dtype: Any = jnp.float32
  prompts: DeepPrompts | None = None

  def setup(self):
    """Makes the parts."""
    if self.image % self.patch:
      raise ValueError(
        f'Pictures of {self.image} pixels do not divide into patches of {self.patch}; choose a'
        ' multiple.'
      )
    Block = halves(self, CLIPBlock)
    rates = np.linspace(0, self.drop_path, sum(self.depths))

    def stage(i, depth):
      def block(j):
        index = sum(self.depths[:i]) + j
        rate = float(rates[index])
        # Without prompts blocks have no index, and so are alike (models/repeat.py).
        deep = (self.prompts, index) if self.prompts else ()
        return Block(self.heads, self.mlp_ratio, self.activation, rate, self.dtype, *deep)

      return Stage(depth, block)

    size = (self.patch, self.patch)
    tokens = (self.image // self.patch) ** 2 + 1
    init = nn.initializers.normal(self.width**-0.5)
    self.patch_embed = nn.Conv(
      self.width, size, size, padding='VALID', use_bias=False, dtype=self.dtype
    )
    self.class_token = self.param('class_token', init, (self.width,))
    self.positions = self.param('positions', init, (tokens, self.width))
    self.norm_pre = LayerNorm(dtype=self.dtype)
    self.stages = [stage(i, depth) for i, depth in enumerate(self.depths)]
    self.norm = LayerNorm(dtype=self.dtype)
    self.projection = Dense(self.features, use_bias=False, dtype=self.dtype)

  def stem(self, x: Float[Array, 'b height width 3'], train: bool = False) -> Float[Array, 'b n d']:
    """The class token and those of patches; of pictures normalised by `pixels`."""
    x = rearrange(self.patch_embed(x), 'b h w d -> b (h w) d')
    first = jnp.broadcast_to(self.class_token.astype(self.dtype), (len(x), 1, self.width))
    x = jnp.concatenate([first, x], 1) + self.positions.astype(self.dtype)
    return self.norm_pre(self.prompts.in_pictures(0, x) if self.prompts else x)

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of tokens where these lie in the picture; the class token and prompts lie nowhere."""
    side = self.image // self.patch
    return rearrange(weights[:, 1 : 1 + side**2], 't (y x) -> t y x', y=side)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
    """All blocks, from the stem's tokens to those of the last block, not normalised."""
    return run_stages(self.stages, x, train)

  def __call__(
    self, x: Float[Array, 'b height width 3'], train: bool = False
  ) -> Float[Array, 'b n d']:
    """Normalised tokens of the last block."""
    return self.norm(self.body(self.stem(x, train), train))

  def project(self, x: Float[Array, 'b n d']) -> Float[Array, 'b e']:
    """The feature of a picture from its normalised tokens.

    The class token's, not of unit length.
    """
    return self.projection(x[:, 0])


class CLIPText(nn.Module):
  """CLIP's text tower. A text is read at its end token, which has the largest id."""

  vocabulary: int = 49408
  context: int = 77
  width: int = 512
  depth: int = 12
  heads: int = 8
  mlp_ratio: float = 4.0
  features: int = 512
  activation: Activation = 'quick_gelu'
  dtype: Any = jnp.float32

  def setup(self):
    """Makes the parts."""
    block = lambda: CLIPBlock(self.heads, self.mlp_ratio, self.activation, dtype=self.dtype)
    self.words = nn.Embed(
      self.vocabulary, self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(0.02)
    )
    self.positions = self.param(
      'positions', nn.initializers.normal(0.01), (self.context, self.width)
    )
    self.blocks = [block() for _ in range(self.depth)]
    self.norm = LayerNorm(dtype=self.dtype)
    self.projection = Dense(self.features, use_bias=False, dtype=self.dtype)

  def embed(self, ids: Int[Array, 'c l']) -> Float[Array, 'c l d']:
    """The tokens of texts, without positions."""
    return self.words(ids)

  def encode(
    self, x: Float[Array, 'c l d'], end: Int[Any, 'c'], prompts: DeepPrompts | None = None
  ) -> Float[Array, 'c e']:
    """Features of embedded texts from the position of each one's end, not of unit length.

    What follows the end is never looked at, so `l` need not be the whole context.
    prompts: learned tokens beside those of the texts.
    """
    c, length, _ = x.shape
    if length > self.context:
      raise ValueError(
        f'Texts of {length} tokens; the text tower holds {self.context}. Shorten them.'
      )
    if prompts:
      x = prompts.in_texts(0, x)
    x = x + self.positions[:length].astype(self.dtype)
    for i, block in enumerate(self.blocks):
      if prompts and i:
        x = prompts.in_texts(i, x)
      x = block(x, False, causal(length))
    return self.projection(self.norm(x)[jnp.arange(c), end])

  def __call__(self, ids: Int[Array, 'c l']) -> Float[Array, 'c e']:
    """Features of texts, pooled at the end token, which has the highest id."""
    return self.encode(self.embed(ids), jnp.argmax(ids, -1))


class CLIP(nn.Module):
  """Both towers; `logit_scale` is the logarithm of the factor of cosines."""

  visual: CLIPVision
  text: CLIPText

  def setup(self):
    """Makes the parts."""
    self.logit_scale = self.param('logit_scale', nn.initializers.constant(math.log(1 / 0.07)), ())

  def __call__(
    self, x: Float[Array, 'b height width 3'], ids: Int[Array, 'c l']
  ) -> tuple[Float[Array, 'b e'], Float[Array, 'c e']]:
    """Features of pictures and of texts, not of unit length."""
    return self.visual.project(self.visual(x)), self.text(ids)


BASE = dict(width=768, depths=(2, 2, 6, 2), heads=12, features=512)
LARGE = dict(width=1024, depths=(4, 4, 12, 4), heads=16, features=768)
VISUAL = {  # OpenAI's names without the leading 'ViT-'; stages as those of HTS-AT
  'B/32': BASE | dict(patch=32),
  'B/16': BASE | dict(patch=16),
  'L/14': LARGE | dict(patch=14),
  'L/14@336px': LARGE | dict(patch=14, image=336),
}
TEXT = {
  name: dict(width=512, heads=8, features=512)
  if name.startswith('B')
  else dict(width=768, heads=12, features=768)
  for name in VISUAL
}


def build_vision(variant: str = 'B/32', **fields: Any) -> CLIPVision:
  """An image tower by OpenAI's name without 'ViT-', or 'custom', with any field replaced."""
  return variants.make(CLIPVision, VISUAL | variants.CUSTOM, variant, fields)


def build_text(variant: str = 'B/32', **fields: Any) -> CLIPText:
  """The text tower beside `build_vision`'s of that name, or 'custom', with any field replaced."""
  return variants.make(CLIPText, TEXT | variants.CUSTOM, variant, fields)


def build(
  variant: str = 'B/32', visual: dict[str, Any] | None = None, text: dict[str, Any] | None = None
) -> CLIP:
  """Both towers by name, with any of their fields replaced."""
  return CLIP(build_vision(variant, **visual or {}), build_text(variant, **text or {}))
