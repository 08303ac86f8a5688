"""The frozen backbones of torch_dgsct.py; masks, positions and mel filters are those of dgsct_jax.

Letters of shapes are those of dgsct_jax/models/__init__.py.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dgsct_jax.models import mel, windows

Tokens = Float[Tensor, 'b n d']
Windows = Float[Tensor, 'b w p d']  # w windows of p tokens

PATCH = 4
# HTS-AT's front end. DG-SCT repeats each second ten times.
RATE, N_FFT, HOP, MEL_BINS, HERTZ = 32000, 1024, 320, 64, (50.0, 14000.0)
TILE = 10


# Windows of a square grid of tokens.


def to_windows(x: Tokens, side: int, window: int) -> Windows:
  """Cuts a grid of side² tokens into windows of window²."""
  k = side // window
  return x.unflatten(1, (k, window, k, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_windows(x: Windows, side: int, window: int) -> Tokens:
  """Undoes `to_windows`."""
  k = side // window
  grid = x.unflatten(2, (window, window)).unflatten(1, (k, k))
  return grid.transpose(2, 3).flatten(1, 4)


class WindowAttention(nn.Module):
  """Attention within windows.

  V1 has dot products and a table of position biases; V2 has cosines with a learned scale, and a
  network for the biases.
  """

  mask: Tensor | None  # of each window [w p p]
  bias: Tensor  # of positions [k p p], or with the mask [w*k p p]
  qkv_bias: Tensor
  scale: Tensor  # of cosines [k 1 1] or [w*k 1 1]

  def __init__(self, v2: bool, width: int, heads: int, window: int, mask: Tensor | None):
    super().__init__()
    self.v2, self.heads, self.window = v2, heads, window
    self.qkv, self.proj = nn.Linear(width, 3 * width, bias=not v2), nn.Linear(width, width)
    if v2:
      self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
      self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
      self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
    else:
      table = 0.02 * torch.randn((2 * window - 1) ** 2, heads)
      self.relative_position_bias_table = nn.Parameter(table)
    self.register_buffer('mask', mask, persistent=False)
    self.register_load_state_dict_post_hook(lambda attention, _: attention.fix())
    self.fix()

  @torch.no_grad()
  def fix(self) -> None:
    """Computes what depends on the frozen weights alone."""
    window = self.window, self.window
    if self.v2:
      offsets = torch.from_numpy(windows.log_offsets(window)).to(self.q_bias)
      table = 16 * torch.sigmoid(self.cpb_mlp(offsets))
      qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
      scale = self.logit_scale.clamp(max=math.log(100)).exp()
      scale = scale if self.mask is None else scale.repeat(len(self.mask), 1, 1)
      self.register_buffer('scale', scale, persistent=False)
    else:
      table, qkv_bias = self.relative_position_bias_table, self.qkv.bias
    index = torch.from_numpy(windows.relative_index(window)).to(table.device)
    bias = table[index].permute(2, 0, 1)
    bias = bias if self.mask is None else (bias + self.mask[:, None]).flatten(0, 1)
    self.register_buffer('bias', bias.contiguous(), persistent=False)
    self.register_buffer('qkv_bias', qkv_bias.detach(), persistent=False)

  def forward(self, x: Windows) -> Windows:
    """Each token of a window attends to all of them."""
    w = x.shape[1]
    qkv = F.linear(x, self.qkv.weight, self.qkv_bias).unflatten(-1, (3, self.heads, -1))
    qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # [3 b w k p c]
    # Windows with masks of their own stand with the heads, others with the batch: so the fused
    # kernels broadcast one bias over the batch, and it is never copied.
    q, k, v = (qkv.flatten(1, 2) if self.mask is None else qkv.flatten(2, 3)).unbind()
    if self.v2:
      q, k = F.normalize(q, dim=-1) * self.scale, F.normalize(k, dim=-1)
    scale = 1.0 if self.v2 else None  # None: 1/√c
    x = F.scaled_dot_product_attention(q, k, v, self.bias[None], scale=scale)
    x = x.unflatten(0, (-1, w)) if self.mask is None else x.unflatten(1, (w, -1))
    return self.proj(x.transpose(2, 3).flatten(3))


class Block(nn.Module):
  """Window attention and MLP, each with a residual and a norm; V2's is at the end of the branch."""

  def __init__(self, v2: bool, width: int, heads: int, side: int, window: int, shift: int):
    super().__init__()
    # A grid no larger than the window is one window and does not shift.
    self.side, self.window, self.shift = side, min(side, window), shift if side > window else 0
    self.v2 = v2
    mask = None
    if self.shift:
      sizes = (side, side), (window, window), (shift, shift)
      mask = torch.as_tensor(np.asarray(windows.shift_mask(*sizes)))
    self.attn = WindowAttention(v2, width, heads, self.window, mask)
    self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    self.mlp = nn.Sequential(OrderedDict(fc1=fc1, gelu=nn.GELU(), fc2=fc2))

  def attend_windows(self, x: Tokens) -> Tokens:
    """Attention within the shifted windows."""
    if self.window == self.side:
      return self.attn(x[:, None])[:, 0]
    grid, by = (self.side, self.side), (self.shift, self.shift)
    if self.shift:
      x = x.unflatten(1, grid).roll((-by[0], -by[1]), (1, 2)).flatten(1, 2)
    x = from_windows(self.attn(to_windows(x, self.side, self.window)), self.side, self.window)
    return x.unflatten(1, grid).roll(by, (1, 2)).flatten(1, 2) if self.shift else x

  def attend(self, x: Tokens) -> Tokens:
    """The first half."""
    attend = self.attend_windows
    return x + (self.norm1(attend(x)) if self.v2 else attend(self.norm1(x)))

  def feed_forward(self, x: Tokens) -> Tokens:
    """The second half."""
    return x + (self.norm2(self.mlp(x)) if self.v2 else self.mlp(self.norm2(x)))

  def forward(self, x: Tokens) -> Tokens:
    """Both halves."""
    return self.feed_forward(self.attend(x))


class PatchEmbed(nn.Module):
  """Square patches of a picture as normalised tokens."""

  def __init__(self, channels: int, width: int):
    super().__init__()
    self.proj, self.norm = nn.Conv2d(channels, width, PATCH, PATCH), nn.LayerNorm(width)

  def forward(self, x: Float[Tensor, 'b c h w']) -> Tokens:
    """The tokens, in row-major order."""
    return self.norm(self.proj(x).flatten(2).mT)


class PatchMerging(nn.Module):
  """Joins each 2×2 neighbourhood of tokens and doubles the width; V2 normalises at the end."""

  def __init__(self, v2: bool, width: int, side: int):
    super().__init__()
    self.v2, self.side = v2, side
    self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
    self.norm = nn.LayerNorm((2 if v2 else 4) * width)

  def forward(self, x: Tokens) -> Float[Tensor, 'b n/4 2*d']:
    """The order of the four is (even, even), (odd row, even), (even, odd column), (odd, odd)."""
    half = self.side // 2
    x = x.unflatten(1, (half, 2, half, 2)).permute(0, 1, 3, 4, 2, 5)
    x = x.flatten(3).flatten(1, 2)
    return self.norm(self.reduction(x)) if self.v2 else self.reduction(self.norm(x))


class Stage(nn.Module):
  """Blocks at one resolution, and the merging of patches after them."""

  blocks: Sequence[Block]

  def __init__(self, blocks: Sequence[Block], downsample: nn.Module):
    super().__init__()
    self.blocks, self.downsample = cast(Any, nn.ModuleList(blocks)), downsample


class Sizes(NamedTuple):
  """Of a backbone; the sides of its picture and windows in pixels and tokens."""

  image: int
  width: int
  depths: Sequence[int]
  heads: Sequence[int]
  window: int


class Backbone(nn.Module):
  """Stages of blocks on a square grid of patches; `grids` are the tokens and width of each."""

  layers: Sequence[Stage]

  def __init__(self, v2: bool, channels: int, sizes: Sizes):
    super().__init__()
    self.patch_embed = PatchEmbed(channels, sizes.width)
    stages, self.grids = [], []
    for i, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads)):
      side, width = sizes.image // PATCH // 2**i, sizes.width * 2**i
      shifts = [sizes.window // 2 * (j % 2) for j in range(depth)]
      blocks = [Block(v2, width, heads, side, sizes.window, shift) for shift in shifts]
      last = i + 1 == len(sizes.depths)
      stages.append(Stage(blocks, nn.Identity() if last else PatchMerging(v2, width, side)))
      self.grids.append((side**2, width))
    self.layers = cast(Any, nn.ModuleList(stages))


class SwinV2(Backbone):
  """Swin V2 (Liu et al., 2022)."""

  def __init__(self, sizes: Sizes):
    super().__init__(True, 3, sizes)
    self.norm = nn.LayerNorm(self.grids[-1][1])

  def stem(self, frames: Float[Tensor, 'b 3 h w']) -> Tokens:
    """The tokens of pictures."""
    return self.patch_embed(frames)


class HTSAT(Backbone):
  """HTS-AT (Chen et al., 2022) on seconds of sound, without its last norm and tagging head."""

  filters: Tensor
  hann: Tensor

  def __init__(self, sizes: Sizes):
    super().__init__(False, 1, sizes)
    self.image = sizes.image
    self.register_buffer(
      'filters', torch.as_tensor(mel.mel_filters(RATE, N_FFT, MEL_BINS, *HERTZ)), persistent=False
    )
    self.register_buffer('hann', torch.hann_window(N_FFT), persistent=False)
    self.bn0 = nn.BatchNorm1d(MEL_BINS)

  def stem(self, wave: Float[Tensor, 'b s']) -> Tokens:
    """The tokens of waveforms of a second; up to their spectrogram in float32."""
    with torch.autocast(wave.device.type, enabled=False):
      image = self.fold(self.bn0(log_mel(wave, self.hann, self.filters).mT))
    return self.patch_embed(image)

  def fold(self, mel: Float[Tensor, 'b mel frames']) -> Float[Tensor, 'b 1 image image']:
    """Stretches the time axis and stacks the chunks of it that make a square."""
    size = mel.shape[1], self.image**2 // mel.shape[1]
    mel = F.interpolate(mel[:, None], size, mode='bicubic', align_corners=True)[:, 0]
    return mel.unflatten(2, (-1, self.image)).transpose(1, 2).flatten(1, 2)[:, None]


def log_mel(
  wave: Float[Tensor, 'b s'], window: Float[Tensor, 'fft'], filters: Float[Tensor, 'bins mel']
) -> Float[Tensor, 'b frames mel']:
  """The spectrogram of waveforms that are repeated `TILE` times, in decibels.

  All repetitions but the first and the last have the same frames, so three are enough.
  """
  period, rest = divmod(wave.shape[1], HOP)
  if rest:
    raise ValueError(f'{wave.shape[1]} samples are no multiple of {HOP}.')
  spectrum = torch.stft(wave.repeat(1, 3), N_FFT, HOP, window=window, return_complex=True)
  power = torch.view_as_real(spectrum).square().sum(-1)
  decibels = 10 * torch.log10((power.mT @ filters).clamp(min=1e-10))
  first, middle, last = decibels.split([period, period, period + 1], 1)
  return torch.cat([first, middle.repeat(1, TILE - 2, 1), last], 1)
