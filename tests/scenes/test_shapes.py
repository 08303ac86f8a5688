import numpy as np
import pytest

from dgsct_jax.scenes.shapes import SHAPES, Shapes
from dgsct_jax.scenes.voices import VOICES

ALL = Shapes(tuple(SHAPES))


def features(wave, rate):
  """Mean log spectrum and how it varies: enough to tell timbres, not pitches."""
  wave = wave / wave.std()
  frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.hanning(512)
  power = np.log(np.abs(np.fft.rfft(frames)) ** 2 + 1e-3)
  power = power[:, :256].reshape(len(power), 32, 8).mean(-1)
  return np.concatenate([power.mean(0), power.std(0), np.abs(np.diff(power, axis=0)).mean(0)])


def test_there_is_a_voice_for_every_shape():
  assert len(VOICES) == len(SHAPES) == 12 and len(Shapes().classes) == 8


@pytest.mark.parametrize('label', range(12))
def test_a_picture_is_cut_to_an_object_in_sight(label):
  rng = np.random.default_rng(label)
  for _ in range(5):
    picture = ALL.picture(label, rng, 'train')
    alpha = picture[..., 3]
    assert picture.dtype == np.uint8 and min(alpha.shape) > 30
    assert 0.15 < (alpha > 128).mean() < 0.95
    assert (alpha > 64).any(1)[3:-3].all() and (alpha > 64).any(0)[3:-3].all()


def test_a_ring_has_a_hole():
  alpha = ALL.picture(ALL.classes.index('ring'), np.random.default_rng(0), 'train')[..., 3]
  y, x = np.array(alpha.shape) // 2
  assert alpha[y, x] == 0


@pytest.mark.parametrize('rate', [4000, 16000])
@pytest.mark.parametrize('label', range(12))
def test_a_sound_has_its_length_and_no_long_pause(label, rate):
  rng = np.random.default_rng(label)
  for seconds in (1, 3):
    wave = ALL.sound(label, rng, 'train', seconds, rate)
    assert wave.shape == (seconds * rate,) and wave.dtype == np.float32
    assert np.isfinite(wave).all()
    power = np.sqrt(
      (
        wave[: wave.size // (3 * rate // 10) * (3 * rate // 10)].reshape(-1, 3 * rate // 10) ** 2
      ).mean(1)
    )
    assert (power > 0.15 * wave.std()).all()


def test_timbre_tells_the_voice_and_pitch_does_not():
  """The nearest of a few examples by coarse spectral statistics has the same voice."""
  rng = np.random.default_rng(0)
  many = lambda count: np.array(
    [[features(ALL.sound(c, rng, 'train', 1, 8000), 8000) for _ in range(count)] for c in range(12)]
  )
  known, new = many(24), many(6)
  scale = known.reshape(-1, known.shape[-1]).std(0)
  distance = np.linalg.norm((new[:, :, None, None] - known) / scale, axis=-1)
  guess = distance.min(-1).argmin(-1)
  assert (guess == np.arange(12)[:, None]).mean() > 0.85


def test_two_pictures_of_a_class_differ_in_colour():
  rng = np.random.default_rng(0)
  colours = [ALL.picture(0, rng, 'train')[40:56, 40:56, :3].mean((0, 1)) for _ in range(8)]
  assert np.std(colours, 0).min() > 20


def test_unknown_and_repeated_classes_are_named():
  with pytest.raises(ValueError, match='blob'):
    Shapes(('disc', 'blob'))
  with pytest.raises(ValueError, match='repeat'):
    Shapes(('disc', 'disc'))
