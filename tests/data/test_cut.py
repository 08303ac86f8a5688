"""The rules for fields of a record: which frames, how long a wave, and what is no clip."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import cut, records
from tests import clips


def pictures(folder, count, name='{:08d}.jpg'):
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(1, count + 1):
    Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(folder / name.format(i))
  return folder


@pytest.mark.parametrize(
  'total, expected',
  [
    (160, [1, 18, 36, 54, 71, 89, 107, 124, 142, 160]),
    (10, list(range(1, 11))),
    (60, [1, 7, 14, 20, 27, 33, 40, 46, 53, 60]),
    (3, [1, 1, 1, 1, 1, 2, 2, 2, 2, 3]),
  ],
)
def test_frames_are_spread_as_released(total, expected):
  assert [i + 1 for i in cut.spread(total, 10)] == expected


def test_pictures_are_taken_as_they_are_in_the_order_of_their_names(tmp_path):
  folder = pictures(tmp_path / 'v', 12)
  (folder / 'notes.txt').write_text('no picture')
  expected = [(folder / f'{i:08d}.jpg').read_bytes() for i in (1, 4, 8, 12)]
  assert cut.frame_files(folder, 4) == expected


def test_a_folder_without_pictures_or_with_a_broken_one_is_bad(tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(FileNotFoundError, match='empty has no pictures'):
    cut.frame_files(tmp_path / 'empty', 10)
  with pytest.raises(OSError, match='gone'):
    cut.frame_files(tmp_path / 'gone', 10)
  folder = pictures(tmp_path / 'v', 3)
  (folder / '00000002.jpg').write_bytes(b'x')
  with pytest.raises(ValueError, match='00000002.jpg is not a readable picture'):
    cut.frame_files(folder, 3)


def test_the_first_pictures_are_taken_if_there_are_enough(tmp_path):
  folder = pictures(tmp_path / 'v', 12)
  expected = [(folder / f'{i:08d}.jpg').read_bytes() for i in range(1, 11)]
  assert cut.first_files(folder, 10) == expected
  with pytest.raises(ValueError, match='v has 12 pictures; 13 are needed'):
    cut.first_files(folder, 13)


@pytest.mark.parametrize('length, expected', [(9.5, 0), (10, 0), (10.4, 0), (39.2, 30), (300, 30)])
def test_a_clip_is_found_in_the_clip_alone_and_in_the_whole_video(monkeypatch, length, expected):
  monkeypatch.setattr(cut.media, 'probe', lambda path: cut.media.Info(float(length), True, True))
  assert cut.start_of('a.mp4', 30.0, 10) == expected


@pytest.mark.parametrize('length', [3, 9, 11, 20, 38])
def test_a_video_that_is_neither_clip_nor_whole_is_refused(monkeypatch, length):
  monkeypatch.setattr(cut.media, 'probe', lambda path: cut.media.Info(float(length), True, True))
  with pytest.raises(ValueError, match=rf'a.mp4 lasts {length}.00 s: .* taken at 30 s'):
    cut.start_of('a.mp4', 30.0, 10)


@pytest.mark.parametrize(
  'start, length, expected',
  [
    (2.5, 10.3, 0),  # the clip
    (2.5, 12.2, 2.5),  # the video, or the clip from the first key frame on: the same
    (2.5, 12.76, 2.5),
    (2.5, 40, 2.5),
    (2.5, 11.7, None),  # less than 2.5 s before the clip: neither
    (12.5, 12.76, None),
    (12.5, 21.8, 12.5),  # too long for the clip with what is before it: the video, cut short
    (None, 5.4, None),
    (None, 10.4, 0),
    (None, 12.76, None),
    (None, 40, None),
  ],
)
def test_what_a_copied_clip_has_before_it_is_not_taken_for_the_clip(
  monkeypatch, start, length, expected
):
  monkeypatch.setattr(cut.media, 'probe', lambda path: cut.media.Info(float(length), True, True))
  if expected is None:
    with pytest.raises(cut.WrongLength, match=rf'a.mp4 lasts {length:.2f} s'):
      cut.start_of('a.mp4', start, 10)
  else:
    assert cut.start_of('a.mp4', start, 10) == expected


@pytest.mark.parametrize('shape', [(40,), (4, 10), (1, 40), (40, 1)])
@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int16])
def test_any_shape_with_the_right_count_is_a_wave(tmp_path, shape, dtype):
  wave = np.linspace(-1, 0.9, 40)
  stored = wave * 32768 if dtype == np.int16 else wave
  np.save(tmp_path / 'a.npy', stored.astype(dtype).reshape(shape))
  found = cut.wave_file(tmp_path / 'a.npy', 4, 10)
  assert found.dtype == np.int16
  np.testing.assert_allclose(found / 32768, wave, atol=1e-4)


@pytest.mark.parametrize('channels_first', [True, False])
def test_channels_are_averaged(tmp_path, channels_first):
  wave = np.stack([np.full(40, 0.5), np.full(40, -0.25)])
  np.save(tmp_path / 'a.npy', wave if channels_first else wave.T)
  assert cut.wave_file(tmp_path / 'a.npy', 4, 10).tolist() == [4096] * 40


def test_a_wave_is_trimmed_and_less_than_a_second_is_filled_with_silence(tmp_path):
  for length, filled in ((47, 0), (41, 0), (40, 0), (39, 1), (31, 9)):
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      found = cut.fit(np.full(length, 0.5, np.float32), 4, 10, 'a')
    assert found.tolist() == [16384] * (40 - filled) + [0] * filled
    assert [str(w.message) for w in caught] == (
      [f'a has {length} samples; silence was added up to 40'] if filled else []
    )


def test_a_stored_wave_that_is_too_long_is_remarked_on(tmp_path):
  np.save(tmp_path / 'a.npy', np.zeros(47))
  with pytest.warns(records.Remark, match='a.npy has 47 samples; those after 40 are left out'):
    cut.wave_file(tmp_path / 'a.npy', 4, 10)


@pytest.mark.parametrize(
  'wave, reason',
  [
    (np.zeros(30), r'a.npy has 30 samples = 3.00 s at 10 Hz; 4 s are needed'),
    (np.zeros(0), 'a.npy has 0 samples'),
    (np.array([0.0] * 39 + [np.nan]), 'a.npy has 1 samples that are not finite'),
    (np.full(40, 20000.0), 'a.npy reaches 2e[+]04; full scale is 1'),
    (np.zeros(40, np.int64), 'a.npy holds int64'),
    (np.array([{'a': 1}] * 40), 'a.npy is not a readable array'),
  ],
)
def test_a_wave_that_cannot_be_used_says_why(tmp_path, wave, reason):
  np.save(tmp_path / 'a.npy', wave)
  with pytest.raises(ValueError, match=reason):
    cut.wave_file(tmp_path / 'a.npy', 4, 10)


def test_a_file_that_is_no_array_says_so(tmp_path):
  for content in (b'', b'no array'):
    (tmp_path / 'a.npy').write_bytes(content)
    with pytest.raises(ValueError, match='a.npy is not a readable array'):
      cut.wave_file(tmp_path / 'a.npy', 4, 10)


def test_a_part_of_a_video_becomes_jpeg_files_and_a_wave(tmp_path):
  sound = np.concatenate([clips.tone(8000, 1), 0 * clips.tone(8000, 1)], 1)
  path = clips.write(tmp_path / 'a.mkv', clips.counter(20), np.arange(20) / 10, sound, rate=8000)
  frames = [np.asarray(Image.open(io.BytesIO(f))) for f in cut.video_frames(path, [0.5, 1.5], 24)]
  assert [frame.shape for frame in frames] == [(24, 32, 3)] * 2
  assert [round(frame.mean() / 8) for frame in frames] == [5, 15]
  assert np.abs(cut.video_wave(path, 1, 8000)).max() > 10000
  with pytest.warns(records.Remark, match='silence was added up to 8000'):
    assert np.abs(cut.video_wave(path, 1, 8000, start=1.1)).max() < 200
  with pytest.raises(cut.WrongLength, match='the sound of .*a.mkv has .*; 3 s are needed'):
    cut.video_wave(path, 3, 8000)


def test_of_a_file_that_is_longer_than_its_clip_the_first_seconds_are_taken_with_a_remark(tmp_path):
  path = clips.write(
    tmp_path / 'a.mkv', clips.counter(12), np.arange(12), clips.tone(8000, 12), 8000
  )
  with pytest.warns(records.Remark, match=r'it lasts 12\.\d+ s, of which the first 3 are taken'):
    cut.read_clip(path, 'a', [0.5, 1.5, 2.5], 8000, 24)


def test_videos_are_found_by_name_in_several_folders(tmp_path):
  (tmp_path / 'AVE').mkdir()
  for name in ('x.txt', 'b.MP4', 'AVE/a.b.webm'):
    (tmp_path / name).touch()
  found = cut.find_videos([tmp_path, tmp_path / 'AVE', tmp_path / 'gone'])
  assert found == {'b': tmp_path / 'b.MP4', 'a.b': tmp_path / 'AVE/a.b.webm'}


def test_the_root_is_found_where_the_releases_put_it(tmp_path):
  root = tmp_path / 'data/AVE'
  root.mkdir(parents=True)
  (root / 'labels').touch()
  for source in (tmp_path, tmp_path / 'data', root):
    assert cut.find_root(source, 'AVE', 'labels') == root
  with pytest.raises(ValueError, match='There is no labels in .*x/AVE.*--source'):
    cut.find_root(tmp_path / 'x', 'AVE', 'labels')


def test_what_is_odd_about_a_track_is_remarked(tmp_path):
  tone = clips.tone(8000, 1)
  sounds = [np.zeros((1, 0), np.float32), np.concatenate([tone, -tone])]
  videos = [np.zeros((0, 48, 64, 3), np.uint8), clips.counter(10)]
  path = clips.write_tracks(tmp_path / 'a.mkv', videos, sounds, rate=8000)
  with pytest.warns(records.Remark) as remarks:
    wave = cut.video_wave(path, 1, 8000)
    cut.video_frames(path, [0, 0.5], 48)
  np.testing.assert_allclose(wave / 32768, tone[0], atol=1e-3)
  told = [str(remark.message).removeprefix(f'{path}: ') for remark in remarks]
  assert told[0] == 'audio track 2 of 2 is read: the first is empty'
  assert told[1].startswith('the 2 channels cancel each other')
  assert told[2] == 'video track 2 of 2 is read: the first is empty'
