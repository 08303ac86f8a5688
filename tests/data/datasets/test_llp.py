"""LLP from both layouts; the odd rows of the real annotation files."""

import collections
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import records
from dgsct_jax.data.datasets import llp
from tests import annotations, clips

RATE = 800  # Hz, of all sound here
VIDEOS = ('aaaaaaaaaaa', 'b_bb-bbbbb_', 'ccccccccccc', 'ddddddddddd')


def label_files(root):
  root.mkdir(parents=True, exist_ok=True)
  tables = {
    'AVVP_train.csv': 'filename\tevent_labels\naaaaaaaaaaa_20_30\tSpeech,Dog\n'
    'b_bb-bbbbb__101.8_111.8\tCat\n',
    'AVVP_val_pd.csv': 'filename\tevent_labels\nccccccccccc_0_10\tClapping,Clapping\n',
    'AVVP_test_pd.csv': 'filename\tevent_labels\nddddddddddd_30_40\tCar\n',
    'AVVP_eval_audio.csv': 'filename\tonset\toffset\tevent_labels\n'
    'ccccccccccc_0_10\t0\t3\tClapping\nccccccccccc_0_10\t2\t5\tClapping\n'
    'ddddddddddd_30_40\t9\t0\tCar\nnowhere\t0\t10\tCar\n'
    'aaaaaaaaaaa_20_30\t0\t10\tDog\n',
    'AVVP_eval_visual.csv': 'filename\tonset\toffset\tevent_labels\n'
    'ddddddddddd_30_40\t8\t10\tCar\n',
  }
  for name, text in tables.items():
    (root / name).write_text(text)
  return root


def released(root, motion=False):
  label_files(root)
  for number, video in enumerate(VIDEOS):
    folder = root / 'LLP_dataset/frame' / video
    folder.mkdir(parents=True)
    for i in range(1, 11):
      Image.fromarray(np.full((20, 30, 3), 20 * i, np.uint8)).save(folder / f'{i:08d}.jpg')
    for name, array in {
      'wave': np.full((10, RATE), number / 8, np.float32),
      'feats/r2plus1d_18': np.full((10, 512), number, np.float32),
    }.items():
      if name == 'wave' or motion:
        (root / 'LLP_dataset' / name).mkdir(parents=True, exist_ok=True)
        np.save(root / 'LLP_dataset' / name / f'{video}.npy', array)
  return root


def build(source, out, **options):
  return records.write(llp.recipe(source, rate=RATE), out, **options)


def test_the_released_folder_is_stored_as_it_is(tmp_path):
  root = released(tmp_path / 'data/AVVP')
  build(tmp_path, tmp_path / 'out')
  train = records.load(tmp_path / 'out', 'llp', 'train')
  assert train.ids == ['aaaaaaaaaaa_20_30', 'b_bb-bbbbb__101.8_111.8']
  record = train[1]
  files = [root / f'LLP_dataset/frame/b_bb-bbbbb_/{i:08d}.jpg' for i in range(1, 11)]
  assert record['frames'] == [file.read_bytes() for file in files]
  assert record['wave'].tolist() == [4096] * 10 * RATE
  assert 'motion' not in record
  assert np.flatnonzero(train[0]['label']).tolist() == [0, 3]


def test_seconds_are_labelled_in_val_and_test_alone(tmp_path):
  released(tmp_path)
  build(tmp_path, tmp_path / 'out')
  train, val, test = (records.load(tmp_path / 'out', 'llp', split)[0] for split in llp.SPLITS)
  assert not train['audio'].any() and not train['visual'].any()
  clapping = llp.CLASSES.index('Clapping')
  assert val['audio'][:, clapping].tolist() == [1] * 5 + [0] * 5  # two rows that overlap
  assert val['audio'].sum() == 5 and not val['visual'].any()
  assert val['label'].sum() == 1  # named twice
  assert not test['audio'].any()  # from 9 to 0
  assert test['visual'][:, 1].tolist() == [0] * 8 + [1] * 2
  assert val['audio'].shape == (10, 25) and val['audio'].dtype == np.float32


def test_motion_features_are_kept_where_there_are_any(tmp_path):
  root = released(tmp_path, motion=True)
  build(tmp_path, tmp_path / 'out')
  np.testing.assert_array_equal(
    records.load(tmp_path / 'out', 'llp', 'test')[0]['motion'], np.full((10, 512), 3)
  )
  np.save(root / 'LLP_dataset/feats/r2plus1d_18/ccccccccccc.npy', np.zeros((9, 512)))
  with pytest.raises(ValueError, match=r'  ccccccccccc_0_10: .*c.npy has the shape \(9, 512\)'):
    build(tmp_path, tmp_path / 'again')
  (root / 'LLP_dataset/feats/r2plus1d_18/ccccccccccc.npy').unlink()
  with pytest.raises(ValueError, match=r'  ccccccccccc_0_10: .*ccccccccccc.npy is missing'):
    build(tmp_path, tmp_path / 'again')


@pytest.fixture(scope='session')
def long_video(tmp_path_factory):
  """42 s: the grey of a picture is its half second times 3, the pitch 10 Hz more each second."""
  path = tmp_path_factory.mktemp('video') / 'a.mkv'
  sound = np.concatenate([clips.tone(2000, 1, 10.0 * i) for i in range(42)], 1)
  return clips.write(path, clips.counter(84, (30, 40), 3), np.arange(84) / 2, sound, 2000)


def test_clips_are_cut_out_of_whole_videos(tmp_path, long_video):
  label_files(tmp_path)
  (tmp_path / 'video').mkdir()
  sound = clips.tone(2000, 10, 50.0)
  short = clips.write(tmp_path / 'short.mkv', clips.counter(10), np.arange(10), sound, 2000)
  for name in ('aaaaaaaaaaa', 'ddddddddddd'):
    shutil.copy(long_video, tmp_path / 'video' / f'{name}.mkv')
  for name in ('b_bb-bbbbb__101.8_111.8', 'ccccccccccc'):
    shutil.copy(short, tmp_path / 'video' / f'{name}.mkv')
  build(tmp_path, tmp_path / 'out')
  record = records.load(tmp_path / 'out', 'llp', 'train')[0]  # from 20 to 30 s
  greys = [np.asarray(Image.open(io.BytesIO(frame))).mean() for frame in record['frames']]
  assert [round(grey / 3) for grey in greys] == [2 * second + 1 for second in range(20, 30)]
  pitches = np.abs(np.fft.rfft(record['wave'].reshape(10, RATE), axis=1)).argmax(1)
  assert pitches.tolist() == [10 * second for second in range(20, 30)]
  record = records.load(tmp_path / 'out', 'llp', 'train')[1]  # the clip alone
  assert np.abs(np.fft.rfft(record['wave'])).argmax() == 500


def test_all_bad_clips_are_listed(tmp_path, long_video):
  label_files(tmp_path)
  for name in ('aaaaaaaaaaa', 'b_bb-bbbbb_', 'ccccccccccc'):
    shutil.copy(long_video, tmp_path / f'{name}.mkv')
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)2 clips of llp.*b_bb-bbbbb__101.8_111.8: .*lasts 42.00 s: .*taken at 101.8 s.*'
      r'ddddddddddd_30_40: .*No such file'
    ),
  ):
    build(tmp_path, tmp_path / 'out')


def test_what_is_missing_or_unknown_is_said(tmp_path):
  label_files(tmp_path)
  with pytest.raises(ValueError, match='neither the folders frame and wave in LLP_dataset, nor'):
    llp.recipe(tmp_path)
  (tmp_path / 'AVVP_val_pd.csv').write_text('filename\tevent_labels\nx\tSpeech,Sneeze\n')
  with pytest.raises(ValueError, match="AVVP_val_pd.csv, line 2: the event 'Sneeze' is none of"):
    llp.labels(tmp_path)
  (tmp_path / 'AVVP_eval_audio.csv').unlink()
  with pytest.raises(ValueError, match='AVVP_eval_audio.csv is missing'):
    llp.labels(tmp_path)


def test_the_real_splits_have_the_published_sizes_and_are_disjoint():
  splits = llp.labels(annotations.folder('llp'))
  assert {split: len(found) for split, found in splits.items()} == {
    'train': 10000,
    'val': 649,
    'test': 1200,
  }
  videos = collections.Counter(clip.video for found in splits.values() for clip in found)
  assert len(videos) == 11849 and set(videos.values()) == {1}
  assert sum('.' in clip.id[11:] for clip in splits['train']) == 5  # parts of seconds
  for found in splits.values():
    for clip in found:
      assert clip.start == float(clip.id[12:].split('_')[0]) and clip.events


def test_the_real_annotations_of_seconds_cover_what_they_should():
  splits = llp.labels(annotations.folder('llp'))
  covered = {
    (split, kind): sum(bool(getattr(clip, kind)) for clip in splits[split])
    for split in ('val', 'test')
    for kind in ('heard', 'seen')
  }
  assert covered == {
    ('val', 'heard'): 645,
    ('test', 'heard'): 1195,
    ('val', 'seen'): 579,
    ('test', 'seen'): 1079,
  }
  backwards = unlike = 0
  for split in ('val', 'test'):
    for clip in splits[split]:
      backwards += sum(end <= start for _, start, end in clip.heard)
      events = {event for event, *_ in clip.heard + clip.seen}
      unlike += events != set(clip.events)
      audio, visual = llp.raster(clip.heard), llp.raster(clip.seen)
      assert set(np.flatnonzero((audio + visual).sum(0))) <= events
  assert backwards <= 6 and unlike == 30 + 52
