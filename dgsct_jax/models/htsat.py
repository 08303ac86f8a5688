"""HTS-AT (Chen et al., 2022): a Swin V1 over a folded log-mel image.

The halves of its blocks can be run one by one, as the dual encoder does.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
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
)
from dgsct_jax.models.mel import LogMel, Settings
from dgsct_jax.models.products import match, matmul
from dgsct_jax.models.remat import Remat, halves


class WindowAttention(nn.Module):
  """Dot-product attention within windows, with a table of relative-position biases."""

  heads: int
  window: tuple[int, int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w n d'], mask: Float[Array, 'w n n'] | None
  ) -> Float[Array, 'b w n d']:
    """Each of the n tokens of a window attends to all of them; the mask is added to the logits."""
    d = x.shape[-1]
    offsets = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
    table = self.param(
      'relative_position_bias_table', nn.initializers.truncated_normal(0.02), (offsets, self.heads)
    )
    qkv = Dense(3 * d, dtype=self.dtype, name='qkv')(x)
    check_divides(qkv.shape[-1] // 3, self.heads, 'heads')
    q, k, v = rearrange(qkv, 'b w n (three k c) -> three b w k n c', three=3, k=self.heads)
    logits = match(q * (d // self.heads) ** -0.5, k).astype(jnp.float32)
    logits += jnp.moveaxis(table[windows.relative_index(self.window)], -1, 0)
    if mask is not None:
      logits += mask[:, None]
    weights = nn.softmax(logits).astype(self.dtype)
    x = rearrange(matmul(weights, v), 'b w k n c -> b w n (k c)')
    return Dense(d, dtype=self.dtype, name='proj')(x)


class HTSATBlock(nn.Module):
  """Window attention and MLP, each normalised before the branch (pre-norm)."""

  heads: int
  grid: tuple[int, int]
  window: int
  shift: int | Int[Array, '']
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  traced = ('shift',)  # blocks that differ in this alone can share a loop (models/repeat.py)

  def setup(self) -> None:
    """Makes the layers; the window and the shift are fitted to the grid."""
    self.windows = windows.clamp(self.grid, self.window, self.shift)
    self.norm1 = LayerNorm(dtype=self.dtype)
    self.attn = WindowAttention(self.heads, self.windows[0], self.dtype)
    self.norm2 = LayerNorm(dtype=self.dtype)
    self.mlp = Mlp(self.mlp_ratio, self.dtype)
    self.drop = DropPath(self.drop_path)

  def attend(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """The first half: normalisation, window attention and its residual."""
    return x + self.drop(windows.attend(self.attn, self.norm1(x), self.grid, *self.windows), train)

  def feed_forward(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """The second half: normalisation, MLP and its residual."""
    return x + self.drop(self.mlp(self.norm2(x)), train)

  def __call__(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """Both halves."""
    return self.feed_forward(self.attend(x, train), train)


class HTSAT(Settings, nn.Module):
  """HTS-AT on waveforms; `VARIANTS` holds the three released configurations.

  With `drop_path=0.`, `batch_stats=False` and `spec_augment=False`, training and evaluation are the
  same function. See `mel.Settings` for the fields of the front end.
  """

  patch: int = 4
  width: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  heads: tuple[int, ...] = (4, 8, 16, 32)
  window: int = 8
  mlp_ratio: float = 4.0
  classes: int = 527
  drop_path: float = 0.1
  remat: Remat = None

  def setup(self) -> None:
    """Makes the front end, the stages and the tagging head."""
    Block = halves(self, HTSATBlock)
    rates = np.linspace(0, self.drop_path, sum(self.depths))

    def stage(i: int, depth: int) -> Stage:
      side = self.size // self.patch // 2**i
      grid = (side, side)

      def block(j: int) -> HTSATBlock:
        return Block(
          self.heads[i],
          grid,
          self.window,
          self.window // 2 * (j % 2),
          self.mlp_ratio,
          float(rates[sum(self.depths[:i]) + j]),
          self.dtype,
        )

      merges = i + 1 < len(self.depths)
      return Stage(depth, block, (lambda: PatchMerging(grid, True, self.dtype)) if merges else None)

    shared = [field.name for field in dataclasses.fields(Settings)]
    self.mel = LogMel(**{name: getattr(self, name) for name in shared})
    self.patch_embed = PatchEmbed(self.width, self.patch, self.dtype)
    self.stages = [stage(i, depth) for i, depth in enumerate(self.depths)]
    self.norm = LayerNorm(dtype=self.dtype)
    rows = self.size // self.patch // 2 ** (len(self.depths) - 1) * self.mel_bins // self.size
    self.tscam_conv = nn.Conv(self.classes, (rows, 3), padding=((0, 0), (1, 1)), dtype=self.dtype)

  def stem(self, wave: Float[Array, 'b s'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of the patches of the folded log-mel image."""
    return self.patch_embed(self.mel(wave, train))

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of the last stage's tokens over frequency, from low to high, and time in a second.

    The model gets each second `tile` times in a row; the weights of tokens of the same moment are
    averaged. Moments that are cropped away because the image holds fewer frames are nan.
    """
    side, chunks = math.isqrt(weights.shape[1]), self.size // self.mel_bins
    tokens = rearrange(weights, 't (q f u) -> t f (q u)', q=chunks, u=side)
    frames = self.sample_rate * self.tile // self.hop + 1
    held = min(frames, self.size**2 // self.mel_bins)
    skipped = (frames - held) // 2  # as `LogMel.crop` does in evaluation
    parts = tokens.shape[-1]
    part = (np.arange(parts) + 0.5) / parts
    moment = (np.arange(self.tile)[:, None] + part) * self.sample_rate / self.hop  # in frames
    index = np.floor((moment - skipped) / held * parts).astype(int)
    heard = (index >= 0) & (index < parts)
    total = np.where(heard, tokens[:, :, index.clip(0, parts - 1)], 0).sum(2)
    return np.where(heard.any(0), total / np.maximum(heard.sum(0), 1), np.nan)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b last_n last_d']:
    """All blocks, from the stem's tokens to those of the last stage, not normalised."""
    return run_stages(self.stages, x, train)

  def __call__(self, wave: Float[Array, 'b s'], train: bool = False) -> Float[Array, 'b n d']:
    """Normalised tokens of the last stage."""
    return self.norm(self.body(self.stem(wave, train), train))

  def tag(self, wave: Float[Array, 'b s']) -> dict[str, Float[Array, '...']]:
    """The tagging head of HTS-AT itself, in evaluation.

    Returns `clip_logits` [b c] and `frame_logits` [b frames c], whose sigmoids are the released
    `clipwise_output` and `framewise_output`. Spectrograms longer than the image are cut into crops
    of half their length, one every quarter of it. As released, the *probabilities* of the crops are
    averaged; the logits returned are those of the averages.
    """
    mel = self.mel.normalise(self.mel.log_mel(wave), False)
    frames, held = mel.shape[1], self.size**2 // self.mel_bins
    if frames <= held:
      return self.tag_image(self.mel.image(mel))
    crop, hop = (frames - 1) // 2, (frames - 1) // 4
    crops = [
      self.tag_image(self.mel.image(mel[:, i : i + crop])) for i in range(0, frames - crop - 1, hop)
    ]
    mean = {name: sum(nn.sigmoid(c[name]) for c in crops) / len(crops) for name in crops[0]}
    return {name: jnp.log(p) - jnp.log1p(-p) for name, p in mean.items()}

  def tag_image(self, image: Float[Array, 'b size size 1']) -> dict[str, Float[Array, '...']]:
    """As `tag`, from a folded log-mel image."""
    x = self.norm(self.body(self.patch_embed(image)))
    chunks = self.size // self.mel_bins
    side = self.size // self.patch // 2 ** (len(self.depths) - 1)
    # Undo the fold: the chunks stacked over each other become consecutive in time again.
    x = rearrange(x, 'b (q f t) d -> b f (q t) d', q=chunks, t=side)
    x = self.tscam_conv(x)[:, 0]
    return {
      'clip_logits': x.mean(1),
      'frame_logits': repeat(x, 'b t c -> b (t r) c', r=self.patch * 2 ** (len(self.depths) - 1)),
    }


VARIANTS: dict[str, dict[str, Any]] = {
  'audioset': dict(),
  'esc50': dict(classes=50),
  'scv2': dict(classes=35, sample_rate=16000, hop=160),
}


def build(variant: str = 'audioset', **fields: Any) -> HTSAT:
  """A released HTS-AT by name, with any field replaced."""
  return variants.make(HTSAT, VARIANTS, variant, fields)
