"""Linear-frequency log magnitudes, on the device: what MA-AVT hears of VGGSound and CREMA-D."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models import variants
from dgsct_jax.models.mel import stft_kernels


class LogMagnitude(nn.Module):
  """Waveform to log(|STFT| + 1e-7), each clip standardised by its own mean and deviation.

  Frames are centred on multiples of `hop` between borders of zeros, as librosa 0.9.2 has it, under
  a periodic Hann window. The lowest frequency is the first row. As released: frequency runs down
  the rows here and along the columns in `kaldi.Fbank`.

  seconds: of sound that a segment holds; the picture shows all of it.
  """

  sample_rate: int = 16000
  n_fft: int = 446
  hop: int = 358
  seconds: float = 5.0
  dtype: Any = jnp.float32

  def __call__(self, wave: Float[Array, 'b s']) -> Float[Array, 'b frequencies frames']:
    """Log magnitudes, standardised over each clip."""
    half = self.n_fft // 2
    wave = jnp.pad(jnp.clip(wave.astype(jnp.float32), -1, 1), ((0, 0), (half, half)))
    starts = np.arange(0, wave.shape[-1] - self.n_fft + 1, self.hop)
    real, imag = stft_kernels(self.n_fft)
    with jax.default_matmul_precision('highest'):
      frames = wave[:, starts[:, None] + np.arange(self.n_fft)]
      magnitude = jnp.sqrt(jnp.square(frames @ real) + jnp.square(frames @ imag))
    x = jnp.log(magnitude + 1e-7).swapaxes(1, 2)
    # Twice: a silent clip's mean is off by a rounding that the division would blow up.
    for _ in range(2):
      x -= x.mean((1, 2), keepdims=True)
    return (x / (x.std((1, 2), keepdims=True) + 1e-9)).astype(self.dtype)

  @nn.nowrap
  def place(self, picture: Float[np.ndarray, 't y x']) -> Float[np.ndarray, 't y x']:
    """What lies over the picture, over frequency, from low to high, and time in the segment."""
    return picture


VARIANTS: dict[str, dict[str, Any]] = {  # `LogMagnitude` of each data set
  'ma_avt_vggsound': {},
  'ma_avt_cremad': dict(sample_rate=22050, n_fft=447, hop=296, seconds=3.0),
}


def build(variant: str = 'ma_avt_vggsound', **fields: Any) -> LogMagnitude:
  """The log magnitudes of a data set, with any field replaced."""
  return variants.make(LogMagnitude, VARIANTS, variant, fields)
