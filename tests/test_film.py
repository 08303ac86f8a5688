"""A film is as long as its source, sounds like it, and glows where the attention is."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dgsct_jax import film
from dgsct_jax.data import media
from dgsct_jax.data.clips import Length, measure
from dgsct_jax.tracks import Frames, Heat, Mask
from tests import clips
from tests import media as real
from tests.data.test_clips import bursts, remux


def codecs(path):
  with av.open(str(path)) as container:
    return [stream.codec.canonical_name for stream in container.streams]


def heat(maps):
  """Attention over 4 × 4 parts of the pictures, [t 16]."""
  t = len(maps)
  return Heat('looks at', maps.reshape(t, 4, 4), Frames('frames', np.zeros((t, 8, 8, 3), np.uint8)))


def draw(source, target, overlay=None, captions=()):
  length = measure(source)
  film.draw(source, target, length, range(max(1, round(length.seconds))), overlay, captions)
  return target


def loudness(path):
  wave = media.waveform(path, 8000)
  return np.abs(wave[: len(wave) // 200 * 200]).reshape(-1, 200).mean(1)


@pytest.mark.parametrize('suffix, codec', [('.mp4', 'aac'), ('.mkv', 'aac'), ('.ts', 'aac')])
def test_the_sound_is_that_of_the_source_at_the_same_time(tmp_path, suffix, codec):
  suffix_of = '.mkv' if suffix == '.mkv' else '.mp4'  # pcm, which mp4 does not take, or aac
  path = clips.write(tmp_path / f'a{suffix_of}', clips.counter(30), np.arange(30) / 10, bursts(3))
  path = remux(path, tmp_path / 'b.ts') if suffix == '.ts' else path
  made = draw(path, tmp_path / 'film.mp4')
  assert codecs(made) == ['h264', codec]
  before, after = loudness(path), loudness(made)
  n = min(len(before), len(after))
  assert n >= 118 and np.corrcoef(before[:n], after[:n])[0, 1] > 0.99


def test_sound_that_cannot_be_copied_is_encoded(tmp_path):
  path = real.rock_band() / 'demo.rm'  # ac3, cut in a way of its own
  film.draw(path, tmp_path / 'film.mp4', Length(2.0, 48, Fraction(24)), range(2))
  assert codecs(tmp_path / 'film.mp4') == ['h264', 'aac']
  before, after = loudness(path)[40:2000], loudness(tmp_path / 'film.mp4')[40:2000]
  assert np.corrcoef(before, after)[0, 1] > 0.99


def test_a_silent_source_gives_a_film_without_sound(tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(5), np.arange(5) / 10)
  assert codecs(draw(path, tmp_path / 'film.mp4')) == ['h264']


def test_each_second_glows_where_its_attention_is(tmp_path):
  grey = np.full((30, 96, 128, 3), 90, np.uint8)
  path = clips.write(tmp_path / 'a.mp4', grey, np.arange(30) / 10)
  maps = np.full((3, 16), 0.1)
  corners = [(0, 0), (0, 3), (3, 3)]
  for i, (row, column) in enumerate(corners):
    maps[i, 4 * row + column] = 1
  frames = media.frames(draw(path, tmp_path / 'film.mp4', heat(maps)), [0.5, 1.15, 1.9, 2.5])
  for frame, (row, column) in zip(frames, [corners[i] for i in (0, 1, 1, 2)]):
    red = frame[..., 0].astype(float) - frame[..., 2]
    y, x = np.unravel_index(red.argmax(), red.shape)
    assert (y * 4 // 96, x * 4 // 128) == (row, column)


def test_a_caption_that_is_wider_than_the_picture_has_several_lines():
  picture = np.zeros((120, 160, 3), np.uint8)
  rows = lambda text: np.flatnonzero(film._caption(text, picture.shape[:2])(picture).any((1, 2)))
  short, long = rows('0:03  dog'), rows('0:03  seen a dog · heard a dog, burping, eructation')
  assert long.max() == short.max() and len(long) >= 2 * len(short)
  write = film._caption('0:03  seen a dog · heard a dog, burping, eructation', picture.shape[:2])
  written = write(picture)
  assert not written[:, -2:].any()  # nothing is cut off


def test_captions_change_with_the_seconds(tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(20, (64, 160), 0), np.arange(20) / 10)
  made = draw(path, tmp_path / 'film.mp4', captions=['0:00  dog', ''])
  first, second = media.frames(made, [0.5, 1.5]).astype(int)
  assert first[-16:].max() > 200 and second[-16:].max() < 100
  assert abs(first[:40] - second[:40]).max() < 12


@pytest.mark.parametrize(
  'size, expected',
  [((48, 64), (48, 64)), ((49, 65), (48, 64)), ((720, 1280), (360, 640)), ((1000, 30), (640, 20))],
)
def test_films_have_even_sides_and_are_not_large(tmp_path, size, expected):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(2, size), [0, 0.1])
  assert media.frames(draw(path, tmp_path / 'film.mp4'), [0]).shape[1:3] == expected


def test_pictures_that_lie_on_their_side_are_turned(tmp_path):
  path = clips.turn(clips.write(tmp_path / 'a.mp4', clips.counter(4), np.arange(4) / 10))
  assert media.frames(draw(path, tmp_path / 'film.mp4'), [0]).shape[1:3] == (64, 48)


def test_a_second_that_is_not_told_of_shows_the_nearest_one(tmp_path):
  grey = np.full((60, 96, 128, 3), 90, np.uint8)
  path = clips.write(tmp_path / 'a.mp4', grey, np.arange(60) / 10)
  maps = np.full((2, 16), 0.1)
  maps[0, 0] = maps[1, 15] = 1
  film.draw(path, tmp_path / 'film.mp4', measure(path), (0, 4), heat(maps), ('early', 'late'))
  for frame, left in zip(
    media.frames(tmp_path / 'film.mp4', [1.5, 3.5, 5.5]), (True, False, False)
  ):
    red = frame[..., 0].astype(float) - frame[..., 2]
    assert (np.unravel_index(red.argmax(), red.shape)[1] < 64) == left


def test_masks_are_coloured_and_the_rest_of_the_picture_is_as_it_was(tmp_path):
  grey = np.full((20, 96, 128, 3), 90, np.uint8)
  path = clips.write(tmp_path / 'a.mp4', grey, np.arange(20) / 10)
  probability = np.zeros((2, 6, 8), np.float32)
  probability[1, :3, :4] = 1
  mask = Mask('sounds', probability, Frames('frames', np.zeros((2, 6, 8, 3), np.uint8)))
  first, second = media.frames(draw(path, tmp_path / 'film.mp4', mask), [0.5, 1.5]).astype(int)
  assert np.abs(first - 90).max() < 12 and np.abs(second[64:, 80:] - 90).max() < 12
  red = second[:40, :56, 0] - second[:40, :56, 2]
  assert red.min() > 60


def test_without_an_overlay_the_pictures_are_as_they_were(tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(4, step=60), np.arange(4))
  before, after = (
    media.frames(file, [0.5, 2.5]) for file in (path, draw(path, tmp_path / 'film.mp4'))
  )
  assert np.abs(before.astype(int) - after).max() < 8


def test_fast_pictures_are_thinned_out(tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(60, step=4), np.arange(60) / 60)
  assert measure(draw(path, tmp_path / 'film.mp4')).pictures in (30, 31)


def test_slow_pictures_are_repeated_so_that_attention_can_change(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(3), [0, 2, 4])
  assert measure(draw(path, tmp_path / 'film.mp4')).pictures >= 5 * 4


def test_seconds_that_are_not_there_hold_the_last_picture(tmp_path):
  path = tmp_path / 'a.png'
  Image.fromarray(clips.counter(3)[2]).save(path)
  film.draw(path, tmp_path / 'film.mp4', Length(3.0, 1, Fraction(25)), range(3))
  assert measure(tmp_path / 'film.mp4')[:2] == (pytest.approx(3, abs=0.05), 75)
