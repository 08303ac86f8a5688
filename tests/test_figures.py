from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgsct_jax import figures
from dgsct_jax.models import mel

NAMES = ('dog', 'bell', 'Male speech, man speaking')
RATE = 4000


def render(figure, tmp_path):
  figure.savefig(tmp_path / 'x.png')
  return np.asarray(Image.open(tmp_path / 'x.png').convert('RGB'))


def columns_of(image, label):
  """Horizontal positions, over the width, at which the colour of a class is the only one."""
  rgb = [int(figures.colour(label)[i : i + 2], 16) for i in (1, 3, 5)]
  return np.flatnonzero((image == rgb).all(-1).sum(0) > 8)


def clip(t=4, seed=0, **changes):
  rng = np.random.default_rng(seed)
  line = np.full(t, len(NAMES))
  given = dict(
    frames=rng.integers(0, 255, (t, 20, 32, 3), np.uint8),
    wave=rng.normal(size=(t, RATE)).astype(np.float32) / 9,
    timelines={'predicted': line},
    names=NAMES,
  )
  return figures.clip(**given | changes)


def heard_by_tokens(wave, **fields):
  """What lies under each of the 8 × 8 tokens of the model's own image of a waveform."""
  front = mel.LogMel(
    sample_rate=RATE, n_fft=128, mel_bins=16, fmin=50.0, fmax=2000.0, size=32, **fields
  )
  variables = front.init(jax.random.key(0), jnp.asarray(wave), False)
  image = np.asarray(front.apply(variables, jnp.asarray(wave), False))
  return image.reshape(8, 4, 8, 4).mean((1, 3)).reshape(1, 64)


# Front ends that stretch a spectrogram, hear every second twice, or only its middle.
FRONT_ENDS = [dict(tile=1, hop=70), dict(tile=2, hop=126), dict(tile=1, hop=20)]


@pytest.mark.parametrize('fields', FRONT_ENDS)
@pytest.mark.parametrize('place', [0.38, 0.53, 0.63])
def test_unfolded_attention_lies_where_the_sound_is(fields, place):
  audio = SimpleNamespace(size=32, mel_bins=16, **fields)
  wave = np.zeros((1, RATE), np.float32)
  wave[0, int(place * RATE)] = 1
  energy = heard_by_tokens(wave, **fields)
  bands = figures.unfold(energy - energy.min() + 1e-3, RATE, audio)
  part = (np.nanargmax(bands[0].sum(0)) + 0.5) / bands.shape[-1]
  assert abs(part - place) < 0.09 * fields['tile']  # of 16 tokens of which each hears a tile


def test_unfolded_attention_starts_with_low_bands():
  audio = SimpleNamespace(size=32, mel_bins=16, tile=1, hop=64)
  wave = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)[None].astype(np.float32)
  energy = heard_by_tokens(wave, tile=1, hop=64)
  assert figures.unfold(energy, RATE, audio)[0].mean(1).argmax() == 0


def test_moments_that_the_model_does_not_hear_have_no_attention():
  audio = SimpleNamespace(size=32, mel_bins=16, tile=1, hop=20)  # 201 frames, of which 64 are held
  bands = figures.unfold(np.ones((2, 64)), RATE, audio)
  assert bands.shape == (2, 4, 16)
  known = np.isfinite(bands).all((0, 1))
  assert not known[:5].any() and known[6:10].all() and not known[11:].any()


def test_every_second_of_a_repeated_one_is_averaged():
  audio = SimpleNamespace(size=32, mel_bins=16, tile=4, hop=251)  # 64 frames for four seconds
  tokens = np.zeros((1, 2, 4, 8))  # chunk, band, part
  tokens[0, 0, :, :4] = 1  # the first of four repeats
  bands = figures.unfold(tokens.reshape(1, 64), RATE, audio)
  np.testing.assert_allclose(bands, 0.25)


def test_attention_glows_at_its_token():
  frame = np.full((48, 64, 3), 100, np.uint8)
  weights = np.ones(16, np.float32)
  weights[1 * 4 + 2] = 9  # second row, third column
  drawn = figures.over_frame(frame, weights, figures.attention_scale(weights[None]))
  y, x = np.unravel_index(drawn.astype(int)[..., 0].argmax(), (48, 64))
  assert 12 <= y < 24 and 32 <= x < 48
  assert len(np.unique(drawn[-6:, :20])) == 1  # elsewhere the frame is grey


def test_equal_attention_shows_no_pattern():
  rng = np.random.default_rng(0)
  weights = 1 / 16 + 1e-6 * rng.random((2, 16))
  scale = figures.attention_scale(weights)
  drawn = figures.over_frame(np.full((32, 32, 3), 100, np.uint8), weights[0], scale)
  assert np.ptp(drawn.astype(int), (0, 1)).max() <= 1
  assert np.ptp(drawn[0, 0].astype(int)) <= 1  # grey


def test_tokens_that_are_no_square_grid_are_refused():
  with pytest.raises(ValueError, match='12 weights are no square grid'):
    figures.over_frame(
      np.zeros((8, 8, 3), np.uint8), np.ones(12), figures.attention_scale(np.ones((1, 12)))
    )


def test_bars_stand_at_the_seconds_of_their_class(tmp_path):
  line = np.array([0, 0, 3, 1])
  image = render(clip(timelines={'predicted': line}), tmp_path)
  dog, bell = columns_of(image, 0), columns_of(image, 1)
  second = figures.SECOND * 100
  left = dog[0]
  assert abs(dog[-1] - (left + 2 * second)) < 5
  assert abs(bell[0] - (left + 3 * second)) < 5 and abs(bell[-1] - (left + 4 * second)) < 5
  assert not columns_of(image, 2).size


@pytest.mark.parametrize('seconds', [1, 3, 10, 11])
def test_clips_of_any_length_are_drawn(seconds, tmp_path):
  rng = np.random.default_rng(1)
  line = rng.integers(0, 4, seconds)
  image = render(
    clip(
      seconds,
      timelines={'true': line, 'predicted': line},
      visual_map=rng.random((seconds, 16)),
      audio_map=rng.random((seconds, 2, 8)),
      event=rng.random(seconds),
      title='a clip',
    ),
    tmp_path,
  )
  assert image.shape[0] > 400 * -(-seconds // 10)


def test_an_hour_fits_on_a_picture(tmp_path):
  line = np.repeat(np.arange(4), 900)
  frames = np.zeros((3600, 16, 16, 3), np.uint8)
  image = render(
    clip(frames=frames, wave=np.zeros((3600, 500), np.float32), timelines={'predicted': line}),
    tmp_path,
  )
  assert image.shape[0] < 5000 and all(columns_of(image, c).size for c in range(3))


def test_silence_is_dark():
  spectra = figures._spectra(np.zeros((3, RATE), np.float32), [range(2), range(2, 3)])
  assert all(spectrum.max() == 0 for spectrum in spectra)


def test_a_tone_stands_at_its_height_and_time():
  time = np.arange(3 * RATE) / RATE
  wave = np.where(time > 2, np.sin(2 * np.pi * 1000 * time), 0).reshape(3, RATE)
  (spectrum,) = figures._spectra(wave, [range(3)])
  row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
  assert column > 0.66 * spectrum.shape[1]
  mels = np.linspace(0.75, 15 + np.log(2) * 27 / np.log(6.4), 66)  # of 50 and 2000 Hz
  assert abs(row - (63 - (np.searchsorted(mels, 15) - 1))) <= 1  # 1000 Hz is 15 mel


def test_frames_come_back_from_what_the_model_gets():
  from dgsct_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD

  frames = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3), np.uint8)
  video = (frames / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD
  np.testing.assert_array_equal(figures.pixels(video), frames)


def test_every_clip_of_a_batch_that_counts_has_its_picture(tmp_path):
  rng = np.random.default_rng(0)
  batch = {
    'video': rng.normal(size=(3, 2, 16, 16, 3)),
    'wave': rng.normal(size=(3, 2, RATE)),
    'label': rng.integers(0, 4, (3, 2)),
    'mask': np.float32([1, 1, 0]),
  }
  outputs = {
    'event_logits': rng.normal(size=(3, 2)),
    'visual_map': rng.random((3, 2, 16)),
    'audio_map': rng.random((3, 2, 64)),
  }
  figures.event_clips(
    outputs,
    batch,
    tmp_path,
    predicted=batch['label'],
    names=NAMES,
    audio=SimpleNamespace(size=32, mel_bins=16, tile=1, hop=64),
  )
  assert sorted(file.name for file in tmp_path.iterdir()) == ['clip_0.png', 'clip_1.png']
