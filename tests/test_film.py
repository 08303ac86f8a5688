"""A film is as long as its source, sounds like it, and glows where the attention is."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dgsct_jax import film
from dgsct_jax.data import media
from tests import clips
from tests import media as real


def bursts(seconds, rate=32000):
  """A tone that sounds in every other quarter of a second."""
  wave = clips.tone(rate, seconds)
  return wave * (np.arange(wave.shape[1]) * 4 // rate % 2 == 0)


def remux(source, target):
  """The same tracks in another container."""
  with av.open(str(source)) as given, av.open(str(target), 'w') as made:
    streams = [made.add_stream_from_template(stream) for stream in given.streams]
    for packet in given.demux():
      if packet.dts is not None:
        packet.stream = streams[packet.stream_index]
        made.mux(packet)
  return target


def codecs(path):
  with av.open(str(path)) as container:
    return [stream.codec.canonical_name for stream in container.streams]


def draw(source, target, maps=None, captions=None):
  length = film.measure(source)
  t = max(1, round(length.seconds))
  maps = np.ones((t, 16)) if maps is None else maps
  film.draw(source, target, length.seconds, length.rate, maps, captions or [''] * t)
  return target


def loudness(path):
  wave = media.waveform(path, 8000)
  return np.abs(wave[: len(wave) // 200 * 200]).reshape(-1, 200).mean(1)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.ts'])
def test_the_length_is_that_of_all_packets(tmp_path, suffix):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(30), np.arange(30) / 10, bursts(2))
  path = path if suffix == '.mp4' else remux(path, tmp_path / f'b{suffix}')
  length = film.measure(path)
  assert length.seconds == pytest.approx(3, abs=0.1) and length.pictures == 30


def test_sound_that_goes_on_after_the_picture_counts(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(5), np.arange(5) / 10, bursts(3))
  assert film.measure(path).seconds == pytest.approx(3, abs=0.1)


def test_a_file_that_breaks_off_is_as_long_as_what_is_left(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
  path = clips.write(tmp_path / 'a.mkv', noise, np.arange(40) / 10)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  assert media.probe(path).duration == pytest.approx(4, abs=0.2)  # what the header says
  assert film.measure(path).seconds == pytest.approx(2, abs=0.4)


def test_a_header_that_is_wrong_is_not_believed():
  path = real.rock_band() / 'demo.m1v'  # says 0.12 s
  assert film.measure(path).seconds == pytest.approx(60, abs=0.3)


def test_a_file_without_pictures_has_none(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', sound=bursts(1))
  assert film.measure(path)[:2] == (pytest.approx(1, abs=0.1), 0)


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
  film.draw(path, tmp_path / 'film.mp4', 2.0, Fraction(24), np.ones((2, 16)), ['', ''])
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
  frames = media.frames(draw(path, tmp_path / 'film.mp4', maps), [0.5, 1.15, 1.9, 2.5])
  for frame, (row, column) in zip(frames, [corners[i] for i in (0, 1, 1, 2)]):
    red = frame[..., 0].astype(float) - frame[..., 2]
    y, x = np.unravel_index(red.argmax(), red.shape)
    assert (y * 4 // 96, x * 4 // 128) == (row, column)


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


def test_fast_pictures_are_thinned_out(tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(60, step=4), np.arange(60) / 60)
  length = film.measure(path)
  assert length.rate == Fraction(30)
  assert film.measure(draw(path, tmp_path / 'film.mp4')).pictures in (30, 31)


def test_slow_pictures_are_repeated_so_that_attention_can_change(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(3), [0, 2, 4])
  assert film.measure(path).rate >= 5


def test_seconds_that_are_not_there_hold_the_last_picture(tmp_path):
  path = tmp_path / 'a.png'
  Image.fromarray(clips.counter(3)[2]).save(path)
  film.draw(path, tmp_path / 'film.mp4', 3.0, Fraction(25), np.ones((3, 16)), [''] * 3)
  assert film.measure(tmp_path / 'film.mp4')[:2] == (pytest.approx(3, abs=0.05), 75)
