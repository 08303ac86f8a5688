"""Which track of a file is read, and what is no media file at all."""

import inspect
import os
import shutil
import stat

import av
import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import media, streams
from tests import clips, field

NO_PICTURES, NO_SOUND = np.zeros((0, 48, 64, 3), np.uint8), np.zeros((1, 0), np.float32)
STILL = clips.counter(2)[1:]
SLIDE = np.full((12, 48, 64, 3), 77, np.uint8)  # many pictures, all the same
MOVING = clips.counter(10)
TONE = clips.tone(32000, 0.5)
READERS = (
  media.tracks,
  media.probe,
  lambda path: media.frames(path, [0]),
  lambda path: media.waveform(path, 8000),
)


@pytest.mark.parametrize(
  'videos, index, note',
  [
    ([MOVING], 0, ''),
    ([STILL], 0, ''),
    ([MOVING, STILL], 0, ''),
    ([STILL, MOVING], 1, 'video track 2 of 2 is read: the first is a still picture'),
    ([SLIDE, MOVING], 1, 'video track 2 of 2 is read: the first is a still picture'),
    ([STILL, SLIDE], 1, 'video track 2 of 2 is read: the first is a still picture'),
    ([SLIDE, STILL], 0, ''),
    ([NO_PICTURES, MOVING], 1, 'video track 2 of 2 is read: the first is empty'),
    ([NO_PICTURES, STILL, MOVING], 2, 'video track 3 of 3 is read: the first is empty'),
    ([NO_PICTURES, STILL], 1, 'video track 2 of 2 is read: the first is empty'),
    ([MOVING, NO_PICTURES], 0, ''),
    ([MOVING, MOVING], 0, ''),
    ([NO_PICTURES], None, 'its video track is empty'),
    ([], None, ''),
  ],
)
def test_the_first_video_track_that_moves_is_read(tmp_path, videos, index, note):
  path = clips.write_tracks(tmp_path / 'a.mkv', videos, [TONE])
  assert media.tracks(path).video == (index, note)
  assert media.probe(path).has_video == (index is not None)
  if index is None:
    with pytest.raises(media.NoVideoTrack, match='a.mkv has no video track'):
      media.frames(path, [0])
  else:
    np.testing.assert_array_equal(media.frames(path, [0])[0], videos[index][0])


@pytest.mark.parametrize(
  'sounds, index, note',
  [
    ([TONE], 1, ''),
    ([TONE * 0], 1, ''),
    ([TONE * 0, TONE], 2, 'audio track 2 of 2 is read: the first is silent'),
    ([TONE * 0, TONE * 0], 1, ''),
    ([NO_SOUND, TONE], 2, 'audio track 2 of 2 is read: the first is empty'),
    ([NO_SOUND, TONE * 0, TONE], 3, 'audio track 3 of 3 is read: the first is empty'),
    ([NO_SOUND, TONE * 0], 2, 'audio track 2 of 2 is read: the first is empty'),
    ([np.concatenate([TONE, -TONE]), TONE], 1, ''),
    ([NO_SOUND], None, 'its audio track is empty'),
    ([], None, ''),
  ],
)
def test_the_first_audio_track_that_sounds_is_read(tmp_path, sounds, index, note):
  path = clips.write_tracks(tmp_path / 'a.mkv', [MOVING], sounds)
  assert media.tracks(path).audio == (index, note)
  assert media.tracks(path).notes == [note] * bool(note)
  assert media.probe(path).has_audio == (index is not None)
  if index is None:
    with pytest.raises(media.NoAudioTrack, match='a.mkv has no audio track'):
      media.waveform(path, 32000)
  else:
    expected = sounds[index - 1][0]
    np.testing.assert_allclose(media.waveform(path, 32000), expected, atol=1e-4)


def test_a_track_that_no_decoder_is_known_for_is_passed_over(tmp_path):
  path = clips.write_tracks(tmp_path / 'a.mkv', [STILL, MOVING], [TONE])
  path.write_bytes(path.read_bytes().replace(b'V_FFV1', b'V_NEW1', 1))
  video = media.tracks(path).video
  assert video == (1, 'video track 2 of 2 is read: the first cannot be decoded')
  np.testing.assert_array_equal(media.frames(path, [0])[0], MOVING[0])


def test_a_file_whose_only_track_has_no_decoder_says_so(tmp_path):
  path = clips.write_tracks(tmp_path / 'a.mkv', [MOVING])
  path.write_bytes(path.read_bytes().replace(b'V_FFV1', b'V_NEW1', 1))
  with pytest.raises(media.MediaError, match='a.mkv: there is no decoder for its video track'):
    media.frames(path, [0])


@pytest.mark.parametrize(
  'name, video, audio, note',
  [
    ('empty_audio.mkv', 0, None, 'its audio track is empty'),
    ('first_audio_empty.mkv', 0, 2, 'audio track 2 of 2 is read: the first is empty'),
    ('first_video_empty.mkv', 1, 2, 'video track 2 of 2 is read: the first is empty'),
    ('still_track_first.mkv', 1, 2, 'video track 2 of 2 is read: the first is a still picture'),
    ('antiphase.mkv', 0, 1, None),
    ('mirrored.mp4', 0, 1, None),
  ],
)
def test_files_that_users_brought(name, video, audio, note):
  found = media.tracks(field.path(name))
  assert (found.video.stream, found.audio.stream) == (video, audio)
  assert found.notes == ([note] if note else [])
  red = media.frames(field.path(name), [0, 2])[:, 2, -3 if name == 'mirrored.mp4' else 2]
  assert (red[:, 0] > 240).all() and (red[:, 1:] < 15).all()
  if audio is not None:
    sound = media.sound(field.path(name), 16000)
    assert np.sqrt(np.square(sound.wave).mean()) == pytest.approx(0.103, abs=3e-3)
    assert ('cancel' in sound.note) == (name == 'antiphase.mkv')


SUBTITLES = '1\n00:00:00,000 --> 00:00:02,000\nHello\n\n2\n00:00:02,500 --> 00:00:04,000\nYou\n'


def test_subtitles_alone_are_no_video(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_text(SUBTITLES)
  for read in READERS:
    with pytest.raises(media.MediaError, match='a.mp4 has neither sound nor picture'):
      read(path)


def test_a_file_of_empty_tracks_is_an_error(tmp_path):
  path = clips.write_tracks(tmp_path / 'a.mkv', [NO_PICTURES], [NO_SOUND])
  for read in READERS:
    with pytest.raises(media.MediaError, match='a.mkv'):
      read(path)


NAMES = (
  'rec-12:30:00',
  'http:a',
  'concat:a|b',
  '-x',
  '--',
  'a%02d',
  'a*?',
  'ä ö\n',
  'file:a',
  '|a',
)


@pytest.mark.parametrize('name', [*NAMES, os.fsdecode(b'\xff\xfe')], ids=ascii)
def test_every_name_of_a_local_file_is_one(tmp_path, monkeypatch, name):
  made = clips.write(tmp_path / 'made.mkv', MOVING, np.arange(10) / 10, TONE)
  monkeypatch.chdir(tmp_path)
  shutil.move(made, f'{name}.mkv')
  shutil.copyfile(field.path('mirrored.mp4'), f'{name}.mp4')
  assert media.probe(f'{name}.mkv').duration == pytest.approx(1, abs=0.1)
  np.testing.assert_array_equal(media.frames(f'{name}.mkv', [0])[0], MOVING[0])
  assert len(media.waveform(f'{name}.mkv', 32000)) == 16000
  assert media.frames(f'{name}.mp4', [0]).shape == (1, 64, 96, 3)
  Image.fromarray(STILL[0]).save(tmp_path / 'still.png')
  shutil.move(tmp_path / 'still.png', f'{name}.png')
  np.testing.assert_array_equal(media.frames(f'{name}.png', [0])[0], STILL[0])


def test_names_that_are_no_text_can_be_printed():
  assert media.printable(os.fsdecode(b'a\xff.mp4')) == 'a\\xff.mp4'
  assert media.printable('ä.mp4') == 'ä.mp4'


def test_pipes_folders_and_devices_are_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.mp4')
  (tmp_path / 'folder.mp4').mkdir()
  (tmp_path / 'link.mp4').symlink_to('/dev/zero')
  for name, kind in (('pipe', 'a named pipe'), ('folder', 'a folder'), ('link', 'a device')):
    for read in READERS:
      with pytest.raises(media.MediaError, match=f'{name}.mp4 is {kind}; give a video'):
        read(tmp_path / f'{name}.mp4')
  assert stat.S_ISFIFO(os.stat(tmp_path / 'pipe.mp4').st_mode)


@pytest.mark.parametrize('name', ['a\0b.mp4', 'x' * 300 + '.mp4', 'nowhere/b.mp4'])
def test_names_that_no_file_has_are_one_error(tmp_path, name):
  for read in READERS:
    with pytest.raises((media.MediaError, OSError)):
      read(tmp_path / name)


def test_a_list_of_files_that_are_not_there_is_no_missing_file(tmp_path):
  path = tmp_path / 'list.mp4'
  path.write_text('ffconcat version 1.0\nfile nowhere.mp4\n')
  with pytest.raises(media.MediaError, match='list.mp4 cannot be read'):
    streams.tracks(path)


@pytest.mark.parametrize(
  'codec, layout, exact', [('alac', '7.1(wide)', 1e-4), ('aac', '7.1', 0.05)]
)
def test_eight_channels_are_read_in_their_order(tmp_path, codec, layout, exact):
  levels, path = np.arange(8, dtype=np.float32) / 10, tmp_path / 'a.m4a'
  sound = av.AudioFrame.from_ndarray(np.tile(levels, (1, 16000)), format='flt', layout=layout)
  sound.sample_rate = 32000
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=32000, layout=layout)
    container.mux([*stream.encode(sound), *stream.encode()])
  with streams.reading(path) as container:
    heard = [streams.channels(frame) for frame in streams.decode(container, container.streams[0])]
  middle = np.concatenate(heard, 1)[:, 4000:12000].mean(1)
  np.testing.assert_allclose(middle, levels, atol=exact)
  assert media.waveform(path, 32000)[4000:12000].mean() == pytest.approx(levels.mean(), abs=exact)


class LateTrack:
  """A container in which another track begins, at which PyAV fails once."""

  def __init__(self):
    self.left = [1, 2, IndexError('list index out of range'), 3, 4, av.error.EOFError(1, 'x'), 5]

  def demux(self, streams):
    while self.left:
      packet = self.left.pop(0)
      if isinstance(packet, Exception):
        raise packet
      yield packet


def test_reading_goes_on_where_another_track_begins():
  demux = inspect.unwrap(streams._demux)  # without the check of types
  assert list(demux(LateTrack(), [])) == [1, 2, 3, 4]
