"""What is drawn of tracks stands at its second, its place and its height."""

import numpy as np
import pytest
from matplotlib import text
from PIL import Image

from dgsct_jax import figures
from dgsct_jax.tracks import Bars, Frames, Heat, Mask, Spectrum, Steps

NAMES = ('dog', 'bell', 'Male speech, man speaking')
RATE = 4000


def render(figure, tmp_path):
  figure.savefig(tmp_path / 'x.png')
  return np.asarray(Image.open(tmp_path / 'x.png').convert('RGB'))


def columns_of(image, label):
  """Horizontal positions, over the width, at which the colour of a class is the only one."""
  rgb = [int(figures.colour(label)[i : i + 2], 16) for i in (1, 3, 5)]
  return np.flatnonzero((image == rgb).all(-1).sum(0) > 8)


def perception(t=4, seed=0):
  """Frames and sound of noise."""
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 255, (t, 20, 32, 3), np.uint8)
  wave = rng.normal(size=(t, RATE)).astype(np.float32) / 9
  return Frames('frames', frames), Spectrum('sound', wave)


def heat(weights):
  frames = np.zeros((len(weights), 8, 8, 3), np.uint8)
  return Heat('looks at', weights, Frames('frames', frames))


def lay_over(track, frame, second=0):
  return figures.over(track, second, frame.shape[:2])(frame)


def test_attention_glows_at_its_token():
  frame = np.full((48, 64, 3), 100, np.uint8)
  weights = np.ones((1, 4, 4), np.float32)
  weights[0, 1, 2] = 9
  drawn = lay_over(heat(weights), frame)
  y, x = np.unravel_index(drawn.astype(int)[..., 0].argmax(), (48, 64))
  assert 12 <= y < 24 and 32 <= x < 48
  assert len(np.unique(drawn[-6:, :20])) == 1  # elsewhere the frame is grey


def test_equal_attention_shows_no_pattern():
  rng = np.random.default_rng(0)
  weights = 1 / 16 + 1e-6 * rng.random((2, 4, 4))
  drawn = lay_over(heat(weights), np.full((32, 32, 3), 100, np.uint8))
  assert np.ptp(drawn.astype(int), (0, 1)).max() <= 1
  assert np.ptp(drawn[0, 0].astype(int)) <= 1  # grey


def test_each_second_has_its_own_attention_over_one_scale():
  weights = np.ones((2, 4, 4))
  weights[0, 0, 0], weights[1, 3, 3] = 2, 9
  frame = np.full((32, 32, 3), 100, np.uint8)
  first, second = (lay_over(heat(weights), frame, i)[..., 0].astype(int) for i in (0, 1))
  assert second.max() > first.max()
  assert np.unravel_index(second.argmax(), second.shape) > (24, 24)


def test_a_mask_is_coloured_where_it_is_likely_and_has_an_outline():
  frame = np.full((40, 40, 3), 90, np.uint8)
  probability = np.zeros((1, 10, 10), np.float32)
  probability[0, :5, :5] = 1
  track = Mask('sounds', probability, Frames('frames', frame[None]))
  drawn = lay_over(track, frame)
  assert (drawn[25:, 25:] == 90).all()
  inside = (90 + figures.SOUNDING) / 2
  assert np.abs(drawn[5:15, 5:15] - inside).max() <= 1
  assert (drawn[0, :15] == figures.SOUNDING.astype(np.uint8)).all()  # the outline
  assert (lay_over(track._replace(probability=0 * probability), frame) == frame).all()


def test_bars_stand_at_the_seconds_of_their_class(tmp_path):
  line = np.array([0, 0, 3, 1])
  image = render(figures.draw((*perception(), Bars('predicted', line, NAMES))), tmp_path)
  dog, bell = columns_of(image, 0), columns_of(image, 1)
  second = figures.SECOND * 100
  left = dog[0]
  assert abs(dog[-1] - (left + 2 * second)) < 5
  assert abs(bell[0] - (left + 3 * second)) < 5 and abs(bell[-1] - (left + 4 * second)) < 5
  assert not columns_of(image, 2).size


def test_dollar_signs_are_drawn_as_they_are(tmp_path):
  """Between two of them, matplotlib else sees a formula, often a wrong one."""
  title, names = r'Is it $5\ or $6?', (r'$\%$', '$', 'a $b$')
  figure = figures.draw((*perception(), Bars('$true$', np.array([0, 1, 2, 2]), names)), title)
  render(figure, tmp_path)
  texts = figure.findobj(text.Text)
  drawn = {found.get_text() for found in texts}
  assert {title, '$true$', *names} <= drawn
  assert not any(found.get_parse_math() for found in texts if '$' in found.get_text())


def test_steps_are_as_high_as_their_share(tmp_path):
  _, sound = perception()
  values = np.array([0.0, 1.0, 0.5, 0.0])
  image = render(figures.draw((sound, Steps('event', values, 0.5))), tmp_path)
  heights = (image == (107, 146, 184)).all(-1).sum(0)  # #6b92b8
  second = round(figures.SECOND * 100)
  left = np.flatnonzero(heights)[0]
  whole, half = heights[left + second // 2], heights[left + second + second // 2]
  assert abs(whole - 40) <= 3 and abs(half - 20) <= 3  # of 0.4 inches, less the line
  assert abs(np.flatnonzero(heights)[-1] - (left + 2 * second)) < 3


@pytest.mark.parametrize('seconds', [1, 3, 10, 11])
def test_clips_of_any_length_are_drawn(seconds, tmp_path):
  rng = np.random.default_rng(1)
  line = rng.integers(0, 4, seconds)
  frames, sound = perception(seconds)
  tracks = (
    frames,
    Heat('looks at', rng.random((seconds, 4, 4)), frames),
    Mask('sounds', rng.random((seconds, 10, 16)), frames),
    sound,
    Heat('listens to', rng.random((seconds, 2, 8)), sound),
    Steps('event', rng.random(seconds), 0.5),
    Bars('true', line, NAMES),
    Bars('predicted', line, NAMES),
  )
  image = render(figures.draw(tracks, 'a clip'), tmp_path)
  assert image.shape[0] > 480 * -(-seconds // 10)


def test_moments_that_are_not_heard_are_drawn_without_light(tmp_path):
  _, sound = perception()
  weights = np.ones((4, 2, 8))
  weights[:, :, 4:] = np.nan
  weights[:, 0, 0] = 3
  image = render(figures.draw((Heat('listens to', weights, sound),)), tmp_path)
  body = image[60:-40, 100:-100].astype(int)
  coloured = np.ptp(body, -1).max(0) > 40
  second = figures.SECOND * 100
  halves = [
    coloured[int(i * second) : int((i + 0.45) * second)].any() for i in np.arange(0, 4, 0.5)
  ]
  assert all(halves[::2]) and not any(halves[1::2])


def test_an_hour_fits_on_a_picture(tmp_path):
  line = np.repeat(np.arange(4), 900)
  tracks = (
    Frames('frames', np.zeros((3600, 16, 16, 3), np.uint8)),
    Spectrum('sound', np.zeros((3600, 500), np.float32)),
    Bars('predicted', line, NAMES),
  )
  image = render(figures.draw(tracks), tmp_path)
  assert image.shape[0] < 5000 and all(columns_of(image, c).size for c in range(3))


def test_what_is_no_track_is_refused():
  with pytest.raises(TypeError, match='track'):
    figures.draw((('name', np.zeros(3)),))


def test_silence_is_dark():
  spectra = figures._spectra(np.zeros((3, RATE), np.float32), [range(2), range(2, 3)])
  assert all(spectrum.max() == 0 for spectrum in spectra.values())


def test_a_tone_stands_at_its_height_and_time():
  time = np.arange(3 * RATE) / RATE
  wave = np.where(time > 2, np.sin(2 * np.pi * 1000 * time), 0).reshape(3, RATE)
  (spectrum,) = figures._spectra(wave, [range(3)]).values()
  row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
  assert column > 0.66 * spectrum.shape[1]
  mels = np.linspace(0.75, 15 + np.log(2) * 27 / np.log(6.4), 66)  # of 50 and 2000 Hz
  assert abs(row - (63 - (np.searchsorted(mels, 15) - 1))) <= 1  # 1000 Hz is 15 mel
