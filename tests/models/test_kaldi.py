"""Kaldi's filter banks: frames, filters, padding, what is constant."""

import jax
import numpy as np
import pytest

from dgsct_jax.models import kaldi
from dgsct_jax.models.kaldi import Fbank

fbank = jax.jit(kaldi.fbank, static_argnums=(1, 2, 3))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def silence(samples: int) -> np.ndarray:
  return np.zeros((1, samples), np.float32)


@pytest.mark.parametrize(
  'samples, shift, hop, frames',
  [(16000, 4.4, 70, 223), (16000, 5.2, 83, 188), (16000, 10.0, 160, 98), (31200, 10.0, 160, 193)],
)
def test_frames_lie_wholly_within_the_wave(samples, shift, hop, frames):
  model = Fbank(mel_bins=8, shift=shift)
  assert model.hop == hop
  assert fbank.eval_shape(silence(samples), 16000, 8, hop).shape == (1, frames, 8)


@pytest.mark.parametrize(
  'mel_bins, empty',
  [
    (192, [2, 5, 8, 11, 14, 19, 24, 29]),
    (224, [2, 3, 6, 9, 10, 13, 16, 19, 20, 23, 28, 31, 34, 39, 44, 53]),
    (64, []),
  ],
)
def test_filters_narrower_than_a_step_of_the_transform_are_empty(mel_bins, empty):
  filters = kaldi.mel_filters(16000, 512, mel_bins)
  assert filters.shape == (257, mel_bins)
  assert list(np.flatnonzero(~filters.any(0))) == empty


def test_silence_and_empty_bins_are_at_the_floor():
  floor = np.log(np.finfo(np.float32).eps)
  np.testing.assert_allclose(fbank(silence(400), 16000, 192, 83), floor, rtol=1e-6)
  loud = np.asarray(fbank(noise(1, 400), 16000, 192, 83))
  np.testing.assert_allclose(loud[..., 29], floor, rtol=1e-6)
  assert loud[..., 30].min() > floor + 1


def test_the_filter_banks_are_those_of_the_stated_steps():
  wave = noise(2, 1000)
  frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), 400, 1)[:, ::160]
  frames = frames - frames.mean(-1, keepdims=True)
  before = np.concatenate([frames[..., :1], frames[..., :-1]], -1)
  power = np.abs(np.fft.rfft((frames - 0.97 * before) * np.hanning(400), 512)) ** 2
  wanted = np.log(power @ kaldi.mel_filters(16000, 512, 20))
  np.testing.assert_allclose(fbank(wave, 16000, 20, 160), wanted, atol=1e-4)


def test_a_constant_does_not_pass():
  wave = noise(1, 800) / 2
  np.testing.assert_allclose(
    fbank(wave + 0.25, 16000, 20, 160), fbank(wave, 16000, 20, 160), atol=1e-3
  )


def test_the_picture_is_standardised_then_padded_or_cut():
  wave = noise(2, 1200)
  energies = np.asarray(fbank(wave, 16000, 8, 160))
  fields = dict(mel_bins=8, shift=10.0, mean=-3.0, std=2.0)
  wanted = (energies + 3) / 4
  picture = lambda frames: np.asarray(jax.jit(Fbank(frames=frames, **fields).apply)({}, wave))
  long = picture(9)
  np.testing.assert_allclose(long[:, :6], wanted, rtol=1e-5)
  assert long.shape == (2, 9, 8) and not long[:, 6:].any()
  np.testing.assert_allclose(picture(4), wanted[:, :4], rtol=1e-5)


def test_less_than_a_frame_of_sound_is_refused():
  with pytest.raises(ValueError, match='has 400 samples, the wave 399'):
    fbank(silence(399), 16000, 8, 160)


@pytest.mark.parametrize('variant', kaldi.VARIANTS)
def test_every_variant_hears_a_square_picture(variant):
  model = Fbank(**kaldi.VARIANTS[variant])
  wave = silence(round(model.seconds * model.sample_rate))
  assert jax.eval_shape(model.apply, {}, wave).shape == (1, model.frames, model.mel_bins)
  assert model.frames == model.mel_bins
