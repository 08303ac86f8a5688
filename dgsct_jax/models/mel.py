"""Waveform to the folded log-mel image of HTS-AT, on the device and in float32 throughout."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32, Int

from dgsct_jax.cubic import cubic_matrix
from dgsct_jax.models.layers import BatchNorm


@dataclasses.dataclass
class Settings:
  """The fields of the front end, which `LogMel` and the backbone around it share.

  size: the side of the image, in pixels. hop: samples from one frame to the next.
  tile: how often the waveform is repeated before the STFT; DG-SCT repeats each second ten times.
  batch_stats: normalise training batches by their own statistics and move the running ones, as the
    release does even while the encoder is frozen.
  spec_augment, mixup: used in training only.
  """

  sample_rate: int = 32000
  n_fft: int = 1024
  hop: int = 320
  mel_bins: int = 64
  fmin: float = 50.0
  fmax: float = 14000.0
  size: int = 256
  tile: int = 1
  batch_stats: bool = True
  spec_augment: bool = True
  mixup: bool = False
  dtype: Any = jnp.float32


class LogMel(Settings, nn.Module):
  """STFT power → log-mel → batch norm per mel bin → SpecAugment → mixup → a square image.

  The time axis is stretched to `size²/mel_bins` frames and cut into chunks of `size`, which are
  stacked over each other (released `htsat.reshape_wav2img`). The STFT and mel matrices are
  parameters because checkpoints hold them.
  """

  def setup(self) -> None:
    """Makes the matrices and the normalisation."""
    bins = self.n_fft // 2 + 1
    real, imag = (
      lambda key, shape, part=part: jnp.asarray(part) for part in stft_kernels(self.n_fft)
    )
    self.stft_real = self.param('stft_real', real, (self.n_fft, bins))
    self.stft_imag = self.param('stft_imag', imag, (self.n_fft, bins))
    mel = lambda key, shape: jnp.asarray(
      mel_filters(self.sample_rate, self.n_fft, self.mel_bins, self.fmin, self.fmax)
    )
    self.mel_basis = self.param('mel_basis', mel, (bins, self.mel_bins))
    self.bn0 = BatchNorm()

  def __call__(self, wave: Float[Array, 'b s'], train: bool) -> Float[Array, 'b size size 1']:
    """The image of waveforms in −1..1."""
    return self.image(self.normalise(self.log_mel(wave), train), train)

  def power(
    self, wave: Float[Array, 'b s']
  ) -> tuple[Float[Array, 'b distinct bins'], Int[np.ndarray, 'frames']]:
    """Power spectra of the distinct frames, and which of them each frame is."""
    samples, order = frame_samples(wave.shape[-1], self.tile, self.n_fft, self.hop)
    with jax.default_matmul_precision('highest'):
      frames = wave.astype(jnp.float32)[:, samples]
      return jnp.square(frames @ self.stft_real) + jnp.square(frames @ self.stft_imag), order

  def log_mel(self, wave: Float[Array, 'b s']) -> Float[Array, 'b frames mel']:
    """Log-mel spectrograms in decibels, at least −100."""
    power, order = self.power(wave)
    with jax.default_matmul_precision('highest'):
      mel = power @ self.mel_basis
    return (10 * jnp.log10(jnp.maximum(mel, 1e-10)))[:, order]

  def normalise(
    self, mel: Float[Array, 'b frames mel'], train: bool
  ) -> Float[Array, 'b frames mel']:
    """Batch norm per mel bin; in training SpecAugment and mixup."""
    mel = self.bn0(mel, train and self.batch_stats)
    if train and self.spec_augment:
      mel = spec_augment(self.make_rng('augment'), mel)
    if train and self.mixup:
      # As released: rows are mixed with those of the reversed batch; each row has its own share;
      # labels are not mixed.
      share = jax.random.beta(self.make_rng('augment'), 0.5, 0.5, (mel.shape[0], 1, 1))
      mel = share * mel + (1 - share) * mel[::-1]
    return mel

  def image(
    self, mel: Float[Array, 'b frames mel'], train: bool = False
  ) -> Float[Array, 'b size size 1']:
    """The folded square image; the time axis is cropped or stretched to fit."""
    frames, target = mel.shape[1], self.size**2 // self.mel_bins
    if frames > target:
      mel = self.crop(mel, target, train)
    elif frames < target:
      stretch = cubic_matrix(frames, target, align_corners=True)
      mel = jnp.einsum('of,bfm->bom', stretch, mel, precision='highest')
    return rearrange(mel, 'b (q c) m -> b (q m) c 1', c=self.size).astype(self.dtype)

  def crop(
    self, mel: Float[Array, 'b frames mel'], target: int, train: bool
  ) -> Float[Array, 'b target mel']:
    """`target` frames: a random window per row in training, the middle one otherwise.

    The release takes random windows in evaluation too.
    """
    surplus = mel.shape[1] - target
    if not train:
      return mel[:, surplus // 2 : surplus // 2 + target]
    starts = jax.random.randint(self.make_rng('augment'), (mel.shape[0],), 0, surplus + 1)
    return jax.vmap(lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, target))(
      mel, starts
    )


def frame_samples(
  samples: int, tile: int, n_fft: int, hop: int
) -> tuple[Int[np.ndarray, 'distinct n_fft'], Int[np.ndarray, 'frames']]:
  """Indices of the samples of each *distinct* STFT frame, and the distinct frame of each frame.

  Frames are centred on multiples of `hop` with reflected borders. The frames of a waveform repeated
  `tile` times repeat too, except those that touch a border: one period of them is computed and used
  `tile` times.
  """
  total, half = samples * tile, n_fft // 2
  frame = np.arange(total // hop + 1)
  distinct = frame.copy()
  if samples % hop == 0:
    period = samples // hop
    inside = (frame * hop >= half) & (frame * hop + half <= total)
    first = frame[inside][0] if inside.any() else 0
    distinct = np.where(inside, first + (frame - first) % period, frame)
  computed, order = np.unique(distinct, return_inverse=True)
  position = np.abs(computed[:, None] * hop - half + np.arange(n_fft))
  position = np.where(position < total, position, 2 * (total - 1) - position)
  return position % samples, order


def stft_kernels(
  n_fft: int,
) -> tuple[Float32[np.ndarray, 'n_fft bins'], Float32[np.ndarray, 'n_fft bins']]:
  """Real and imaginary part of the Fourier basis, times a periodic Hann window.

  As torchlibrosa.STFT has it.
  """
  n = np.arange(n_fft)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
  basis = hann[:, None] * np.exp(-2j * np.pi * np.outer(n, np.arange(n_fft // 2 + 1)) / n_fft)
  return basis.real.astype(np.float32), basis.imag.astype(np.float32)


def mel_filters(
  sample_rate: int, n_fft: int, mel_bins: int, fmin: float, fmax: float
) -> Float32[np.ndarray, 'bins mel']:
  """Triangular filters on Slaney's mel scale, normalised to unit area (librosa.filters.mel).

  The scale is linear to 1 kHz (3 mels per 200 Hz) and logarithmic above (27 mels per factor 6.4).

  Raises:
    ValueError: there is nothing from fmin to fmax Hz.
  """
  if not fmin < fmax:
    raise ValueError(f'Mel filters from fmin={fmin:g} to fmax={fmax:g} Hz; choose a larger fmax.')

  def to_mel(hz: np.ndarray | float) -> np.ndarray:
    return np.where(
      hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) * 27 / np.log(6.4)
    )

  def to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

  corners = to_hz(np.linspace(to_mel(fmin), to_mel(fmax), mel_bins + 2))
  ramps = corners - np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
  widths = np.diff(corners)
  rising, falling = -ramps[:, :-2] / widths[:-1], ramps[:, 2:] / widths[1:]
  filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (corners[2:] - corners[:-2]))
  return filters.astype(np.float32)


def spec_augment(
  key: Array,
  mel: Float[Array, 'b frames mel'],
  count: int = 2,
  time_width: int = 64,
  mel_width: int = 8,
) -> Float[Array, 'b frames mel']:
  """Zeroes `count` stripes of time and of mel bins per row (torchlibrosa.SpecAugmentation)."""

  def stripes(key: Array, length: int, width: int) -> Bool[Array, 'b length']:
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (mel.shape[0], count, 1), 0, width)
    starts = jax.random.randint(start_key, widths.shape, 0, length - widths)
    at = jnp.arange(length)
    return ((at >= starts) & (at < starts + widths)).any(1)

  time_key, mel_key = jax.random.split(key)
  frames, bins = mel.shape[1:]
  hidden = stripes(time_key, frames, min(time_width, frames))[:, :, None]
  hidden |= stripes(mel_key, bins, min(mel_width, bins))[:, None]
  return jnp.where(hidden, 0, mel)
