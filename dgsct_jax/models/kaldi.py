"""Kaldi's log-mel filter banks as pictures, on the device: what LAVISH and MA-AVT hear."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from dgsct_jax.models import variants

EPSILON = np.finfo(np.float32).eps  # the floor of the energies, −15.9424 after the logarithm


class Fbank(nn.Module):
  """Waveform to log-mel energies, standardised and padded with zeros or cut to `frames`.

  As torchaudio's `compliance.kaldi.fbank` with a Hann window of 25 ms, pre-emphasis 0.97 and
  neither energy nor dither. The release subtracts the mean of the file first; that changes nothing,
  since the mean of each frame is subtracted anyway.

  shift: milliseconds from frame to frame, cut to whole samples. mean, std: the result is
  (x − mean) / (2·std). seconds: of sound that a segment holds, for `place`.
  """

  sample_rate: int = 16000
  mel_bins: int = 192
  shift: float = 5.2
  frames: int = 192
  mean: float = -4.984795570373535
  std: float = 3.7079780101776123
  seconds: float = 1.0
  dtype: Any = jnp.float32

  @property
  def hop(self) -> int:
    """Samples from frame to frame."""
    return int(self.sample_rate * self.shift / 1000)

  def __call__(self, wave: Float[Array, 'b s']) -> Float[Array, 'b frames mel']:
    """Standardised filter banks, padded to the length of the release."""
    x = (fbank(wave, self.sample_rate, self.mel_bins, self.hop) - self.mean) / (2 * self.std)
    # As released: padded after the standardisation, with what is then the mean and not silence.
    x = jnp.pad(x, ((0, 0), (0, max(0, self.frames - x.shape[1])), (0, 0)))
    return x[:, : self.frames].astype(self.dtype)

  @nn.nowrap
  def place(self, picture: Float[np.ndarray, 't y x']) -> Float[np.ndarray, 't x y']:
    """What lies over the picture, over frequency, from low to high, and time in the segment.

    Padding is left out; moments after the last frame are nan.
    """
    parts = picture.shape[1]
    frame = (np.arange(parts) + 0.5) / parts * self.seconds * self.sample_rate / self.hop
    row = (frame / self.frames * parts).astype(int)
    found = picture[:, row.clip(0, parts - 1)].swapaxes(1, 2)
    return np.where(row < parts, found, np.nan)


LAVISH_AVQA = dict(shift=10.0, mean=-5.385333061218262, std=3.5928637981414795, seconds=1.95)
LAVISH_AVS = dict(shift=10.0, mean=-5.210531711578369, std=3.5918314456939697)
# As released: the mean and deviation are those of 128 mel bins every 10 ms.
MA_AVT_AVE = dict(mel_bins=224, shift=4.4, frames=224, mean=-4.1426, std=3.2001)
VARIANTS = {  # `Fbank` of each data set
  'lavish_ave': {},
  'lavish_avqa': LAVISH_AVQA,
  'lavish_avs': LAVISH_AVS,
  'ma_avt_ave': MA_AVT_AVE,
}


def build(variant: str = 'lavish_ave', **fields: Any) -> Fbank:
  """The filter banks of a data set, with any field replaced."""
  return variants.make(Fbank, VARIANTS, variant, fields)


def fbank(
  wave: Float[Array, 'b s'], sample_rate: int, mel_bins: int, hop: int
) -> Float32[Array, 'b frames mel']:
  """Natural logarithms of mel energies, of frames of 25 ms that lie wholly within the wave.

  Raises ValueError where the wave is shorter than one frame.
  """
  window = sample_rate // 40
  if wave.shape[-1] < window:
    raise ValueError(
      f'A frame of Kaldi filter banks has {window} samples, the wave {wave.shape[-1]}; give at'
      ' least 25 ms of sound.'
    )
  starts = np.arange(0, wave.shape[-1] - window + 1, hop)
  real, imag = frame_kernels(window)
  with jax.default_matmul_precision('highest'):
    frames = wave.astype(jnp.float32)[:, starts[:, None] + np.arange(window)]
    power = jnp.square(frames @ real) + jnp.square(frames @ imag)
    mel = power @ mel_filters(sample_rate, 2 * (real.shape[1] - 1), mel_bins)
  return jnp.log(jnp.maximum(mel, EPSILON))


@functools.cache
def frame_kernels(
  window: int, preemphasis: float = 0.97
) -> tuple[Float32[np.ndarray, 'window bins'], Float32[np.ndarray, 'window bins']]:
  """Real and imaginary part of all that is linear in a frame, up to its spectrum.

  The mean is subtracted, then 0.97 of the sample before (of itself, for the first), then comes a
  symmetric Hann window, zeros up to a power of two and the Fourier transform.
  """
  n_fft = 1 << (window - 1).bit_length()
  centre = np.eye(window) - 1 / window
  emphasise = np.eye(window) - preemphasis * np.eye(window, k=-1)
  emphasise[0, 0] -= preemphasis
  fourier = np.exp(-2j * np.pi * np.outer(np.arange(window), np.arange(n_fft // 2 + 1)) / n_fft)
  kernels = (emphasise @ centre).T @ (np.hanning(window)[:, None] * fourier)
  return kernels.real.astype(np.float32), kernels.imag.astype(np.float32)


@functools.cache
def mel_filters(
  sample_rate: int, n_fft: int, mel_bins: int, fmin: float = 20.0
) -> Float32[np.ndarray, 'bins mel']:
  """Kaldi's triangular filters from `fmin` to Nyquist, straight on its scale 1127·ln(1 + f/700).

  As released: filters narrower than a step of the Fourier transform are empty, and such a bin is
  always at the floor.
  """
  to_mel = lambda hz: 1127 * np.log1p(hz / 700)
  corners = np.linspace(to_mel(fmin), to_mel(sample_rate / 2), mel_bins + 2)
  # Of the highest bin Kaldi takes nothing.
  ramps = to_mel(np.arange(n_fft // 2) * sample_rate / n_fft)[:, None] - corners
  widths = np.diff(corners)
  filters = np.minimum(ramps[:, :-2] / widths[:-1], -ramps[:, 2:] / widths[1:])
  return np.pad(np.maximum(0, filters), ((0, 1), (0, 0))).astype(np.float32)
