"""YAMNet, a small convolutional tagger of sounds (AudioSet, 521 classes), as a backbone.

Plakal and Ellis, 2020; the layers of MobileNet (Howard et al., 2017) on a log-mel spectrogram.
"""

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from dgsct_jax.models.conv import ConvNorm, GridBlock
from dgsct_jax.models.layers import Dense, Stage, run_stages
from dgsct_jax.models.remat import Remat

RATE, FRAME, HOP, FFT = 16000, 400, 160, 512
FRAMES, BANDS, LOW, HIGH, OFFSET = 96, 64, 125.0, 7500.0, 0.001
LONG = (FRAMES - 1) * HOP + FRAME  # samples of a patch: 0.975 s
EPSILON = 1e-4
# Stride and width of each separable layer.
LAYERS = (
  *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256)),
  *((2, 512), *((1, 512) for _ in range(5)), (2, 1024), (1, 1024)),
)
# Layers of each block, and after each stage but the last the layer that halves the grid. The first
# two layers belong to the stem.
STAGES = ((1,), (1,), (3, 2), (1,))


class Separable(nn.Module):
  """A filter for each channel, then a mixture of the channels, each with norm and ReLU."""

  stride: int
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W d']:
    """The layer on a grid."""
    norm = dict(epsilon=EPSILON, dtype=self.dtype)
    x = nn.relu(ConvNorm(x.shape[-1], 3, self.stride, True, name='depthwise', **norm)(x))
    return nn.relu(ConvNorm(self.width, 1, name='pointwise', **norm)(x))


class Block(GridBlock):
  """Some separable layers. They have no residual: what the block gives replaces its input."""

  layers: tuple[tuple[int, int], ...]
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Makes the layers."""
    self.separable = [Separable(*layer, self.dtype) for layer in self.layers]

  def run(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W d']:
    """The block on a grid."""
    for layer in self.separable:
      x = layer(x)
    return x


class YAMNet(nn.Module):
  """A second of sound at 16 kHz -> tokens of the last grid: 3 moments × 2 bands of 1024 channels.

  Only the first 0.975 s are heard.
  """

  classes: int = 521
  dtype: Any = jnp.float32

  sample_rate = RATE
  depths = tuple(len(blocks) for blocks in STAGES)

  def setup(self) -> None:
    """Makes the layers."""
    self.entry = ConvNorm(32, 3, 2, epsilon=EPSILON, dtype=self.dtype)
    self.first = Block(FRAMES // 2, LAYERS[:2], self.dtype)
    # Of each stage the layers of its blocks, in turn, and the one that leaves it.
    layers, rows, stages = iter(LAYERS[2:]), FRAMES // 4, []
    for i, counts in enumerate(STAGES):
      blocks = [tuple(itertools.islice(layers, count)) for count in counts]
      leave = tuple(itertools.islice(layers, 1))
      block = functools.partial(Block, rows // 2**i, dtype=self.dtype)
      make = lambda j, block=block, blocks=blocks: block(blocks[j])
      merge = functools.partial(block, leave) if leave else None
      stages.append(Stage(len(blocks), make, merge))
    self.stages = stages
    self.classifier = Dense(self.classes, dtype=self.dtype)

  def stem(self, wave: Float[Array, 'b s'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of the log-mel spectrogram of a second. Raises ValueError for one of another rate."""
    x = nn.relu(self.entry(log_mel(wave)[..., None].astype(self.dtype)))
    return self.first(rearrange(x, 'b h w c -> b (h w) c'), train)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b m e']:
    """All stages, from the stem's tokens to the last ones."""
    return run_stages(self.stages, x, train)

  def norm(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """Nothing: every layer has its own norm."""
    return x

  def __call__(self, wave: Float[Array, 'b s'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of the last stage."""
    return self.norm(self.body(self.stem(wave, train), train))

  def classify(self, tokens: Float[Array, 'b n d']) -> Float[Array, 'b c']:
    """Logits of the classes of AudioSet, of which a sound may have several."""
    return self.classifier(tokens.mean(1))

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of tokens over frequency, from low to high, and time in a second."""
    return rearrange(weights, 't (x y) -> t y x', x=FRAMES // 32)


def log_mel(wave: Float[Array, 'b s']) -> Float[Array, 'b frames bands']:
  """Log-mel magnitudes of the first 0.975 s. Raises ValueError for a second of another rate."""
  if wave.shape[-1] != RATE:
    raise ValueError(
      f'YAMNet hears a second of {RATE} samples, not of {wave.shape[-1]}; set'
      f' config.model.audio.sample_rate={RATE} and build the data with --rate={RATE}.'
    )
  index = HOP * np.arange(FRAMES)[:, None] + np.arange(FRAME)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
  frames = wave.astype(jnp.float32)[:, index] * hann.astype(np.float32)
  magnitude = jnp.abs(jnp.fft.rfft(frames, FFT))
  return jnp.log(jnp.matmul(magnitude, mel_filters(), precision='highest') + OFFSET)


def mel_filters() -> Float32[np.ndarray, 'bins bands']:
  """Triangles on the HTK mel scale, not normalised; the constant has no weight."""
  mel = lambda hz: 1127 * np.log1p(np.asarray(hz) / 700)
  edges = np.linspace(mel(LOW), mel(HIGH), BANDS + 2)
  bins = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
  rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
  falling = (edges[2:] - bins) / np.diff(edges)[1:]
  filters = np.maximum(0, np.minimum(rising, falling))
  filters[0] = 0
  return filters.astype(np.float32)


def build(
  variant: str = 'audioset',
  sample_rate: int = RATE,
  remat: Remat = None,
  drop_path: float = 0.0,
  batch_stats: bool = False,
  spec_augment: bool = False,
  **fields: Any,
) -> YAMNet:
  """The network of that name; it has no drop-path, and is always as in evaluation.

  Raises:
    ValueError: there is no such network, or it hears no such rate.
  """
  if variant != 'audioset' or sample_rate != RATE:
    raise ValueError(
      f"YAMNet has the variant 'audioset' and the rate {RATE}; the config asks for {variant!r} and"
      f' {sample_rate}.'
    )
  if batch_stats or spec_augment:
    raise ValueError("YAMNet has no training mode: set config.model.backbone_mode='eval'.")
  del remat, drop_path
  return YAMNet(**fields)
