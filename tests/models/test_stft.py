"""Log magnitudes: shapes, borders, standardisation."""

import jax
import numpy as np
import pytest

from dgsct_jax.models import stft
from dgsct_jax.models.stft import LogMagnitude


def noise(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize('variant, samples', [('ma_avt_vggsound', 80000), ('ma_avt_cremad', 66150)])
def test_every_variant_hears_a_square_of_224(variant, samples):
  model = LogMagnitude(**stft.VARIANTS[variant])
  assert round(model.seconds * model.sample_rate) == samples
  assert jax.eval_shape(model.apply, {}, noise(1, samples)).shape == (1, 224, 224)


@pytest.mark.parametrize('n_fft', [64, 63])
def test_magnitudes_are_those_of_a_fourier_transform_under_a_periodic_hann_window(n_fft):
  wave = noise(2, 320)
  padded = np.pad(wave.astype(np.float64), ((0, 0), (n_fft // 2, n_fft // 2)))
  frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, 1)[:, ::32]
  hann = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
  x = np.log(np.abs(np.fft.rfft(frames * hann)) + 1e-7).swapaxes(1, 2)
  x = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
  found = jax.jit(LogMagnitude(n_fft=n_fft, hop=32).apply)({}, wave)
  np.testing.assert_allclose(found, x, atol=1e-3)


def test_what_is_louder_than_one_is_clipped_and_silence_is_zero():
  apply, wave = jax.jit(LogMagnitude(n_fft=64, hop=32).apply), 3 * noise(1, 320)
  np.testing.assert_array_equal(apply({}, wave), apply({}, wave.clip(-1, 1)))
  np.testing.assert_allclose(apply({}, 0 * wave), 0, atol=1e-3)


def test_log_magnitudes_of_a_data_set_are_built_by_name():
  assert stft.build('ma_avt_cremad', hop=100) == stft.LogMagnitude(22050, 447, 100, 3.0)
  with pytest.raises(ValueError, match="no variant 'ave'; choose one of ma_avt_vgg"):
    stft.build('ave')
  with pytest.raises(ValueError, match='LogMagnitude has no field mel_bins; it has dtype, hop'):
    stft.build(mel_bins=3)
