"""The audio front end: STFT, mel, stretch, masking and fold."""

import functools

import jax
import numpy as np
import pytest

from dgsct_jax.cubic import cubic_matrix
from dgsct_jax.models import mel
from dgsct_jax.models.mel import LogMel

KEY = jax.random.key(0)
SMALL = dict(sample_rate=4000, n_fft=128, hop=32, mel_bins=16, fmax=2000.0, size=32)


def variables(model: LogMel) -> dict:
  """The front end has no random parameters, so none of it needs tracing."""
  bins = model.n_fft // 2 + 1
  real, imag = mel.stft_kernels(model.n_fft)
  basis = mel.mel_filters(model.sample_rate, model.n_fft, model.mel_bins, model.fmin, model.fmax)
  ones, zeros = np.ones(model.mel_bins, np.float32), np.zeros(model.mel_bins, np.float32)
  assert real.shape == imag.shape == (model.n_fft, bins)
  return {
    'params': {
      'stft_real': real,
      'stft_imag': imag,
      'mel_basis': basis,
      'bn0': {'scale': ones, 'bias': zeros},
    },
    'batch_stats': {'bn0': {'mean': zeros, 'var': ones}},
  }


def noise(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames='train')
def compiled(model: LogMel, method: str, variables: dict, x: jax.Array, **train: bool):
  rngs = {'augment': KEY}
  return model.apply(variables, x, **train, rngs=rngs, mutable='batch_stats', method=method)


def apply(model: LogMel, method: str, x: np.ndarray, **train: bool) -> tuple:
  """What a method returns, and the statistics after it."""
  return jax.device_get(compiled(model, method, variables(model), x, **train))


def log_mel(model: LogMel, wave: np.ndarray) -> np.ndarray:
  return apply(model, 'log_mel', wave)[0]


def test_filters_of_no_frequencies_are_refused():
  with pytest.raises(ValueError, match='from fmin=50 to fmax=50 Hz; choose a larger fmax'):
    mel.mel_filters(100, 8, 4, 50.0, 50.0)


@functools.cache
def tones() -> np.ndarray:
  """Log-mel of the specification's wave: a second of 1 and 3 kHz, heard ten times."""
  n = np.arange(32000)
  wave = 0.5 * np.sin(2 * np.pi * 1000 * n / 32000) + 0.25 * np.sin(2 * np.pi * 3000 * n / 32000)
  return log_mel(LogMel(tile=10), wave[None].astype(np.float32))[0]


def test_variables_above_are_the_initial_ones():
  model = LogMel(**SMALL)
  initial = jax.jit(functools.partial(model.init, train=False))(KEY, np.ones((1, 320), np.float32))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), initial, variables(model))


def test_two_tones_give_the_released_decibels():
  x = tones()
  assert x.shape == (1001, 64)
  assert x[500].argmax() == 17
  assert x.max() == pytest.approx(23.6653, abs=2e-4)
  assert x.min() >= -100
  np.testing.assert_allclose(x[0, :4], [0.4481, 0.8728, 0.8101, 0.9343], atol=2e-3)


def test_silence_is_at_the_floor():
  np.testing.assert_array_equal(log_mel(LogMel(**SMALL), np.zeros((1, 320), np.float32)), -100)


@pytest.mark.parametrize('samples, frames', [(320000, 1001), (160000, 501), (32000, 101)])
def test_frames_are_centred_on_multiples_of_the_hop(samples, frames):
  position, order = mel.frame_samples(samples, 1, 1024, 320)
  assert len(order) == frames
  assert position[order].shape == (frames, 1024)
  assert (position[order][5] == 5 * 320 - 512 + np.arange(1024)).all()


def test_a_tiled_second_needs_one_period_of_frames_and_its_borders():
  position, order = mel.frame_samples(32000, 10, 1024, 320)
  assert len(order) == 1001 and len(position) == 104  # 100 of the period, two at each border


@pytest.mark.parametrize(
  'samples, tile', [(320, 1), (320, 3), (96, 10), (100, 4), (33, 7), (128, 2)]
)
def test_frames_of_a_tiled_wave_read_the_samples_of_the_plainly_tiled_one(samples, tile):
  wave = noise(samples)
  position, order = mel.frame_samples(samples, tile, 64, 32)
  padded = np.pad(np.tile(wave, tile), 32, mode='reflect')
  frames = np.lib.stride_tricks.sliding_window_view(padded, 64)[::32]
  np.testing.assert_array_equal(wave[position][order], frames)


def test_a_tiled_wave_gives_the_log_mel_of_the_plainly_tiled_one():
  wave = noise(2, 320)
  plain = log_mel(LogMel(**SMALL), np.tile(wave, 5))
  np.testing.assert_allclose(log_mel(LogMel(tile=5, **SMALL), wave), plain, atol=1e-4)


def test_the_power_is_that_of_a_fourier_transform_under_a_periodic_hann_window():
  wave = noise(1, 320)
  (power, order), _ = apply(LogMel(**SMALL), 'power', wave)
  frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave[0], 64, mode='reflect'), 128)[::32]
  hann = np.sin(np.pi * np.arange(128) / 128) ** 2
  np.testing.assert_allclose(power[0, order], np.abs(np.fft.rfft(frames * hann)) ** 2, atol=1e-3)


def test_stft_kernels_have_the_released_values():
  real, imag = mel.stft_kernels(1024)
  assert real.shape == imag.shape == (1024, 513)
  assert real[0, 0] == 0 and real[512, 0] == 1
  assert real[1, 0] == pytest.approx(9.4124e-6, rel=1e-4)
  assert imag[256, 1] == pytest.approx(-0.5, abs=1e-7)


def test_mel_filters_are_slaneys():
  filters = mel.mel_filters(32000, 1024, 64, 50.0, 14000.0)
  assert filters.shape == (513, 64)
  assert filters.sum() == pytest.approx(2.048126, abs=1e-5)
  assert filters.max() == pytest.approx(0.0181495, abs=1e-7)
  rows = {column: np.flatnonzero(filters[:, column]) for column in (0, 31, 63)}
  assert {c: (r[0], r[-1]) for c, r in rows.items()} == {0: (2, 5), 31: (68, 75), 63: (401, 447)}
  assert (filters >= 0).all() and filters.any(0).all()


def test_filters_above_the_nyquist_frequency_are_empty():
  filters = mel.mel_filters(16000, 1024, 64, 50.0, 14000.0)
  reached = filters.any(0)
  assert reached[:50].all() and not reached[-8:].any()


def test_the_time_axis_is_stretched_by_torchs_cubic():
  x = np.sin(np.float32(0.37) * np.arange(1001, dtype=np.float32))
  y = cubic_matrix(1001, 1024, align_corners=True) @ x
  np.testing.assert_allclose(
    y[[0, 1, 2, 511, 512, 1022, 1023]],
    [0, 0.3503450, 0.6569965, 0.5145280, 0.1726487, -0.8751966, -0.6502649],
    atol=1e-6,
  )


def image(model: LogMel, x: np.ndarray, train: bool = False) -> np.ndarray:
  return apply(model, 'image', x, train=train)[0]


def test_chunks_of_time_are_stacked_over_each_other():
  model = LogMel(**SMALL)  # 64 frames of 16 bins in a square of 32: two chunks
  x = noise(2, 64, 16)
  folded = image(model, x)
  assert folded.shape == (2, 32, 32, 1)
  for chunk, bin, column in ((0, 0, 0), (0, 15, 31), (1, 3, 7)):
    at = 16 * chunk + bin, column
    np.testing.assert_array_equal(folded[:, *at, 0], x[:, 32 * chunk + column, bin])


def test_short_spectrograms_are_stretched_and_keep_their_ends():
  x = noise(1, 41, 16)
  unfolded = image(LogMel(**SMALL), x)[0, :, :, 0].reshape(2, 16, 32).swapaxes(1, 2).reshape(64, 16)
  np.testing.assert_allclose(unfolded[[0, -1]], x[0, [0, -1]], atol=1e-5)
  np.testing.assert_allclose(unfolded, cubic_matrix(41, 64, True) @ x[0], atol=1e-5)


def test_long_spectrograms_are_cut_in_the_middle_in_evaluation():
  x = np.broadcast_to(np.arange(74, dtype=np.float32)[:, None], (2, 74, 16))
  folded = image(LogMel(**SMALL), x)
  assert folded[0, 0, 0, 0] == 5 and folded[0, -1, -1, 0] == 68


def test_long_spectrograms_are_cut_anywhere_in_training_each_row_for_itself():
  x = np.broadcast_to(np.arange(67, dtype=np.float32)[:, None], (64, 67, 16))
  folded = image(LogMel(**SMALL), x, train=True)
  starts = folded[:, 0, 0, 0]
  assert set(starts) == {0, 1, 2, 3}
  np.testing.assert_array_equal(folded[:, -1, -1, 0], starts + 63)


@pytest.fixture(scope='module')
def masked() -> np.ndarray:
  """Where SpecAugment hid something, of 400 rows."""
  hidden = np.asarray(jax.jit(mel.spec_augment)(KEY, np.ones((400, 100, 64), np.float32)))
  assert set(np.unique(hidden)) == {0, 1}
  return hidden == 0


def test_spec_augment_hides_whole_frames_and_whole_bins(masked):
  frames, bins = masked.all(2), masked.all(1)
  np.testing.assert_array_equal(masked, frames[:, :, None] | bins[:, None])


def test_spec_augment_hides_no_more_than_two_stripes_of_their_widths(masked):
  frames, bins = masked.all(2), masked.all(1)
  stripes = lambda x: (np.diff(x.astype(int), axis=1, prepend=0, append=0) == 1).sum(1)
  assert bins.sum(1).max() <= 2 * 7
  assert stripes(bins).max() == 2 and stripes(frames).max() == 2
  assert bins.sum(1)[stripes(bins) == 1].max() <= 14 and (bins.sum(1) == 0).any()
  # Two uniform widths of 0 to 7 hide 7 bins on average, less where the stripes overlap.
  assert 6 < bins.sum(1).mean() < 7
  assert frames.sum(1).max() > 64


def test_spec_augment_hides_stripes_of_time_up_to_63_frames():
  once = jax.jit(functools.partial(mel.spec_augment, count=1))
  alone = once(KEY, np.ones((800, 300, 16), np.float32))
  widths = (np.asarray(alone) == 0).all(2).sum(1)
  assert widths.min() == 0 and widths.max() == 63
  assert widths.mean() == pytest.approx(31.5, abs=2)


def test_rows_are_masked_independently(masked):
  assert len({row.tobytes() for row in masked}) > 390


def normalise(x: np.ndarray, train: bool, **fields) -> tuple[np.ndarray, dict]:
  model = LogMel(**SMALL | dict(batch_stats=False, spec_augment=False) | fields)
  y, moved = apply(model, 'normalise', x, train=train)
  return y, moved['batch_stats']['bn0']


def test_spec_augment_acts_in_training_only():
  x = noise(8, 40, 16)
  fields = dict(spec_augment=True)
  np.testing.assert_allclose(normalise(x, False, **fields)[0], x, rtol=2e-5)
  trained = normalise(x, True, **fields)[0]
  assert (trained == 0).any()
  np.testing.assert_allclose(trained[trained != 0], x[trained != 0], rtol=2e-5)


def test_without_its_options_training_is_evaluation():
  x = noise(2, 40, 16)
  np.testing.assert_array_equal(normalise(x, True)[0], normalise(x, False)[0])


def test_batch_statistics_move_in_training_only_where_asked_for():
  x = 3 + noise(2, 40, 16)
  moved = normalise(x, True, batch_stats=True)[1]
  np.testing.assert_allclose(moved['mean'], 0.1 * x.mean((0, 1)), rtol=1e-4)
  for train, batch_stats in ((True, False), (False, True)):
    kept = normalise(x, train, batch_stats=batch_stats)[1]
    assert (kept['mean'] == 0).all() and (kept['var'] == 1).all()


def test_mixup_blends_each_row_with_the_reversed_order_by_shares_of_its_own():
  rows = 3000
  x = np.broadcast_to(np.arange(rows, dtype=np.float32)[:, None, None], (rows, 2, 16))
  mixed = normalise(x, True, mixup=True)[0]
  np.testing.assert_allclose(mixed, np.broadcast_to(mixed[:, :1, :1], mixed.shape), rtol=1e-6)
  own, partner = x[:, 0, 0], x[::-1, 0, 0]
  shares = (mixed[:, 0, 0] - partner) / (own - partner)
  assert -0.1 < shares.min() and shares.max() < 1.1  # 0 to 1, but for rounding
  assert shares.mean() == pytest.approx(0.5, abs=0.03)
  assert shares.var() == pytest.approx(1 / 8, abs=0.01)  # of Beta(1/2, 1/2)
  assert abs(np.corrcoef(shares, shares[::-1])[0, 1]) < 0.1
  np.testing.assert_allclose(normalise(x, False, mixup=True)[0], x, rtol=2e-5)
