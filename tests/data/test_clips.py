"""A file is cut into windows as a data set cuts its clips, and what had to be made up is said."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from dgsct_jax.data import clips, media, transforms
from dgsct_jax.data.datasets import ave, music_avqa
from dgsct_jax.models.swin_v2 import SwinV2
from dgsct_jax.scenes import dataset as scenes
from tests import clips as made
from tests import media as real

T, RATE = 10, 4000  # seconds of a window, Hz


def bursts(seconds, rate=32000):
  """A tone that sounds in every other quarter of a second."""
  wave = made.tone(rate, seconds)
  return wave * (np.arange(wave.shape[1]) * 4 // rate % 2 == 0)


def remux(source, target):
  """The same tracks in another container."""
  with av.open(str(source)) as given, av.open(str(target), 'w') as container:
    streams = [container.add_stream_from_template(stream) for stream in given.streams]
    for packet in given.demux():
      if packet.dts is not None:
        packet.stream = streams[packet.stream_index]
        container.mux(packet)
  return target


def video(path, seconds, sound=None, rate=10):
  count = round(seconds * rate)
  sound = made.tone(32000, seconds) if sound is None else sound
  return made.write(path, made.counter(count, step=2), np.arange(count) / rate, sound)


def tens(length):
  """Windows of ten seconds, the pictures in their middles."""
  return clips.consecutive(length, clips.middles(T))


def open_file(path, windows=tens):
  return clips.open_file(path, RATE, windows)


# How long a file is.


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.ts'])
def test_the_length_is_that_of_all_packets(tmp_path, suffix):
  path = made.write(tmp_path / 'a.mp4', made.counter(30), np.arange(30) / 10, bursts(2))
  path = path if suffix == '.mp4' else remux(path, tmp_path / f'b{suffix}')
  length = clips.measure(path)
  assert length.seconds == pytest.approx(3, abs=0.1) and length.pictures == 30


def test_sound_that_goes_on_after_the_picture_counts(tmp_path):
  path = made.write(tmp_path / 'a.mkv', made.counter(5), np.arange(5) / 10, bursts(3))
  assert clips.measure(path).seconds == pytest.approx(3, abs=0.1)


def test_a_track_that_is_not_read_does_not_count(tmp_path):
  pictures, short, long = made.counter(10), bursts(1), bursts(3)
  path = made.write_tracks(tmp_path / 'a.mkv', [pictures], [short, long])
  assert media.tracks(path).audio.stream == 1
  assert clips.measure(path).seconds == pytest.approx(1, abs=0.1)


def test_a_file_that_breaks_off_is_as_long_as_what_is_left(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
  path = made.write(tmp_path / 'a.mkv', noise, np.arange(40) / 10)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  assert media.probe(path).duration == pytest.approx(4, abs=0.2)  # what the header says
  assert clips.measure(path).seconds == pytest.approx(2, abs=0.4)


def test_a_header_that_is_wrong_is_not_believed():
  path = real.rock_band() / 'demo.m1v'  # says 0.12 s
  assert clips.measure(path).seconds == pytest.approx(60, abs=0.3)


def test_a_file_without_pictures_has_none(tmp_path):
  path = made.write(tmp_path / 'a.mkv', sound=bursts(1))
  assert clips.measure(path)[:2] == (pytest.approx(1, abs=0.1), 0)


def test_the_rate_of_a_film_is_neither_too_fast_nor_too_slow(tmp_path):
  fast = made.write(tmp_path / 'a.mp4', made.counter(60, step=4), np.arange(60) / 60)
  slow = made.write(tmp_path / 'b.mkv', made.counter(3), [0, 2, 4])
  assert clips.measure(fast).rate == Fraction(30) and clips.measure(slow).rate >= 5


# Windows.


@pytest.mark.parametrize('length, count', [(0.2, 1), (10, 1), (10.4, 1), (10.6, 2), (35, 4)])
def test_windows_follow_one_another_to_the_end(length, count):
  windows = tens(length)
  assert [window.seconds for window in windows] == [
    tuple(range(10 * i, 10 * i + 10)) for i in range(count)
  ]
  assert all(w.times == tuple(second + 0.5 for second in w.seconds) for w in windows)


def test_seconds_are_spread_over_a_file_as_music_avqa_is_cut():
  window = clips.spread(60.4, 10)
  assert window.seconds == (0, 6, 13, 19, 26, 32, 39, 45, 52, 59)
  assert window.times == tuple(second + 0.5 for second in window.seconds)
  assert clips.spread(60.4, 10) == music_avqa.KIND.windows(None, 60.4)[0]


def test_frames_of_scenes_are_taken_in_the_middle_of_seconds():
  from configs import quickstart  # pylint: disable=g-import-not-at-top

  first, second = scenes.windows(quickstart.get_config().data, 20)
  assert (*first.times, *second.times)[9:12] == (9.5, 10.5, 11.5)


# What the model gets.


@pytest.mark.parametrize(
  'seconds, expected', [(0.4, 1), (1.4, 1), (3.6, 4), (10, 10), (10.3, 10), (12, 12)]
)
def test_a_file_has_as_many_seconds_as_fit_best(tmp_path, seconds, expected):
  file = open_file(video(tmp_path / 'a.mp4', seconds))
  assert file.seconds == expected and file.starts == tuple(range(expected))


def test_padding_repeats_the_last_frame_in_silence(tmp_path):
  ((record, pictures),) = open_file(video(tmp_path / 'a.mkv', 3)).examples(256)
  wave = record['wave'].reshape(T, RATE)
  assert len(record['frames']) == T and not wave[3:].any() and wave[2].any()
  assert record['frames'][3:] == record['frames'][3:4] * (T - 3)
  assert pictures.shape == (T, clips.THUMBNAIL, round(clips.THUMBNAIL * 64 / 48), 3)
  np.testing.assert_array_equal(pictures[3:], pictures[3:4].repeat(T - 3, 0))


def test_windows_go_on_where_the_one_before_ended(tmp_path):
  path = video(tmp_path / 'a.mkv', 12)
  found = [record for record, _ in open_file(path).examples(256)]
  assert len(found) == 2
  wave = np.concatenate([record['wave'] for record in found]) / 32768
  expected = media.waveform(path, RATE)
  np.testing.assert_allclose(wave[: len(expected)], expected, atol=1e-4)
  decode = transforms.DecodeFrames(32, *SwinV2.pixels)
  brightness = np.concatenate([decode.map(record)['video'] for record in found]).mean((1, 2, 3))
  assert (np.diff(brightness[:12]) > 0).all()


def test_a_clip_of_ave_is_cut_as_in_training(tmp_path):
  path = video(tmp_path / 'a.mp4', 10)
  expected = ave.Read(RATE, 256, 16)(ave.Entry('a', 0, 2, 0, 10, str(path)))
  windows = lambda length: ave.KIND.windows(None, length)
  ((record, _),) = open_file(path, windows).examples(ave.KIND.side(None))
  np.testing.assert_array_equal(record['wave'], expected['wave'])
  decode = transforms.DecodeFrames(32, *SwinV2.pixels)
  np.testing.assert_array_equal(decode.map(record)['video'], decode.map(expected)['video'])


def test_what_is_shown_ends_with_the_file(tmp_path):
  file = open_file(video(tmp_path / 'a.mkv', 12))
  shown = file.shown([pictures for _, pictures in file.examples(256)], ['Is it?'])
  assert shown.seconds == tuple(range(12)) and shown.title == 'a.mkv' and shown.asked == ('Is it?',)
  assert shown.frames.shape[0] == 12 and shown.wave.shape == (12, RATE)
  assert 0.4 < np.abs(shown.wave).max() < 0.6  # full scale is 1
  outputs = np.arange(20).reshape(2, 10)
  np.testing.assert_array_equal(shown.join(outputs), np.arange(12))


# Notes.


def test_silence_is_said(tmp_path):
  wave = made.tone(32000, 4)
  wave[:, :66000] = 0
  path = video(tmp_path / 'a.mkv', 4, wave)
  assert open_file(path).notes == ('silence in 2 of 4 seconds',)
  path = video(tmp_path / 'b.mkv', 4, 0 * wave)
  assert open_file(path).notes == ('the audio track is silent',)


def test_a_missing_sound_is_said(tmp_path):
  path = made.write(tmp_path / 'a.mp4', made.counter(20), np.arange(20) / 10)
  file = open_file(path)
  assert file.notes == ('no audio track: silence stands in for it',) and file.seconds == 2


def test_a_still_picture_is_shown_for_a_window(tmp_path):
  path = tmp_path / 'a.jpg'
  Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(path)
  file = open_file(path)
  assert file.seconds == T and file.length.seconds == T
  assert file.notes == (
    'no audio track: silence stands in for it',
    'a still picture: it is shown for 10 seconds',
  )


def test_sound_alone_is_heard_before_black_frames(tmp_path):
  file = open_file(made.write(tmp_path / 'a.mkv', sound=made.tone(32000, 3)))
  assert file.seconds == 3 and file.notes[0].startswith('no video track: black frames')
  ((_, pictures),) = file.examples(256)
  assert not pictures.any()


def test_samples_that_are_not_numbers_are_refused(tmp_path):
  wave = np.zeros(8000, np.float32)
  wave[100] = np.nan
  soundfile.write(tmp_path / 'a.wav', wave, 8000, 'FLOAT')
  with pytest.raises(ValueError, match='not finite'):
    open_file(tmp_path / 'a.wav')


# Pictures.


def test_frames_come_back_from_what_the_model_gets():
  mean, std = SwinV2.pixels
  frames = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3), np.uint8)
  video = (frames / np.float32(255) - np.float32(mean)) / np.float32(std)
  np.testing.assert_array_equal(clips.pixels(video, mean, std), frames)
