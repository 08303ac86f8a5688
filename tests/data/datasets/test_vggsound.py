"""VGGSound from both layouts, whole and in part; AVEL40k, its part with labels of seconds."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import records
from dgsct_jax.data.datasets import vggsound, vggsound_avel
from tests import clips

RATE = 800  # Hz, of all sound here
ROWS = [
  'a_aa-aaaaaa,30,"people, laughing",train',
  'bbbbbbbbbbb,0,dog barking,train',
  'ccccccccccc,100,dog barking,test',
  'ddddddddddd,7,"people, laughing",test',
]
CLIPS = {
  'train': ('a_aa-aaaaaa_000030', 'bbbbbbbbbbb_000000'),
  'test': ('ccccccccccc_000100', 'ddddddddddd_000007'),
}


def pictures(folder, count):
  folder.mkdir(parents=True)
  for i in range(1, count + 1):
    Image.fromarray(np.full((20, 30, 3), 20 * i, np.uint8)).save(folder / f'{i:06d}.jpg')


def labels(root):
  root.mkdir(parents=True, exist_ok=True)
  (root / 'vggsound.csv').write_text('\n'.join(ROWS) + '\n')
  return root


def released(root, soundfile):
  labels(root)
  for split, names in CLIPS.items():
    (root / 'audio' / split).mkdir(parents=True)
    for seconds, name in zip((10, 4), names):
      pictures(root / f'frames/{split}/Image-01-FPS/{name}.mp4', seconds)
      ramp = np.linspace(0, 0.5, seconds * RATE)
      soundfile.write(root / f'audio/{split}/{name}.wav', ramp, RATE)
  return root


def greys(record):
  return [np.asarray(Image.open(io.BytesIO(frame))).mean() for frame in record['frames']]


def build(recipe, out, **options):
  return records.write(recipe, out, **options)


def test_the_released_folder_is_read_and_short_sounds_are_looped(tmp_path):
  soundfile = pytest.importorskip('soundfile')
  released(tmp_path / 'data/vggsound', soundfile)
  folder = build(vggsound.recipe(tmp_path, rate=RATE), tmp_path / 'out')
  train = records.load(tmp_path / 'out', 'vggsound', 'train')
  assert (folder / 'classes.txt').read_text().splitlines() == ['dog barking', 'people, laughing']
  assert train.ids == list(CLIPS['train'])
  assert [train[i]['label'] for i in range(2)] == [1, 0]
  assert [len(train[i]['frames']) for i in range(2)] == [10, 4]
  np.testing.assert_allclose(train[0]['wave'] / 32768, np.linspace(0, 0.5, 10 * RATE), atol=1e-4)
  ramp = np.linspace(0, 0.5, 4 * RATE)
  expected = np.concatenate([ramp, ramp, ramp[: 2 * RATE]])
  np.testing.assert_allclose(train[1]['wave'] / 32768, expected, atol=1e-4)


def test_a_part_is_taken_by_a_list_of_ids_with_the_classes_of_all(tmp_path):
  soundfile = pytest.importorskip('soundfile')
  root = released(tmp_path, soundfile)
  (tmp_path / 'ids').write_text('a_aa-aaaaaa_000030\nddddddddddd_000007\n')
  build(vggsound.recipe(root, rate=RATE, ids=str(tmp_path / 'ids')), tmp_path / 'out')
  train, test = (records.load(tmp_path / 'out', 'vggsound', split) for split in CLIPS)
  assert train.ids == ['a_aa-aaaaaa_000030'] and test.ids == ['ddddddddddd_000007']
  assert train[0]['label'] == 1
  (tmp_path / 'ids').write_text('eeeeeeeeeee_000000')
  with pytest.raises(ValueError, match='1 clips that are not in vggsound.csv, such as eeee'):
    vggsound.recipe(root, ids=str(tmp_path / 'ids'))


@pytest.fixture(scope='session')
def video(tmp_path_factory):
  """42 s: the grey of a picture is its half second times 3, the pitch 10 Hz more each second."""
  path = tmp_path_factory.mktemp('video') / 'a.mkv'
  sound = np.concatenate([clips.tone(2000, 1, 10.0 * i) for i in range(42)], 1)
  return clips.write(path, clips.counter(84, (30, 40), 3), np.arange(84) / 2, sound, 2000)


def test_videos_are_cut_where_their_name_says_and_faults_are_listed(tmp_path, video):
  root = labels(tmp_path / 'in')
  for split, names in CLIPS.items():
    (root / 'video' / split).mkdir(parents=True)
    for name in names:
      shutil.copy(video, root / 'video' / split / f'{name}.mkv')
  with pytest.raises(ValueError, match=r'(?s)1 clips of vggsound.*ccccccccccc_000100: .*at 100 s'):
    build(vggsound.recipe(root, rate=RATE), tmp_path / 'out')
  build(vggsound.recipe(root, rate=RATE), tmp_path / 'out', skip_bad=True)
  record = records.load(tmp_path / 'out', 'vggsound', 'train')[0]
  assert [round(grey / 3) for grey in greys(record)] == [61 + 2 * i for i in range(10)]
  pitches = np.abs(np.fft.rfft(record['wave'].reshape(10, RATE), axis=1)).argmax(1)
  assert pitches.tolist() == [300 + 10 * i for i in range(10)]
  record = records.load(tmp_path / 'out', 'vggsound', 'test')[0]  # from 7 s on
  assert round(greys(record)[0] / 3) == 15


def test_rows_and_folders_that_are_wrong_are_said(tmp_path):
  labels(tmp_path)
  with pytest.raises(ValueError, match='neither the folders frames and audio, nor any video'):
    vggsound.recipe(tmp_path)
  path = tmp_path / 'vggsound.csv'
  path.write_text(ROWS[0] + '\nid,start,label,split\n')
  with pytest.raises(ValueError, match='line 2: .* is not a video, a second'):
    vggsound.labels(path)
  path.write_text('\n'.join(ROWS[:3]))
  with pytest.raises(ValueError, match="{'train': 2, 'test': 1} different classes"):
    vggsound.labels(path)


AVEL = [
  'split,category,video_id,label',
  'train,dog barking,12,"[0, 0, 1, 1, 1, 1, 1, 1, 1, 0]"',
  'test,"people, laughing",345678,"[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"',
]


def avel(root):
  root.mkdir(parents=True, exist_ok=True)
  (root / 'vggsound-avel40k_labels.csv').write_text('\n'.join(AVEL) + '\n')
  (root / 'VggsoundAVEL40kCategories.txt').write_text('people, laughing\ndog barking\n')
  return root


def test_avel_has_a_class_for_every_second(tmp_path):
  root = avel(tmp_path / 'data/vggsound')
  (root / 'wave').mkdir()
  for name in ('000012', '345678'):
    pictures(root / 'frames' / name, 12)
    np.save(root / f'wave/{name}.npy', np.full(10 * RATE, 0.5, np.float32))
  build(vggsound_avel.recipe(tmp_path, rate=RATE), tmp_path / 'out')
  train, test = (records.load(tmp_path / 'out', 'vggsound_avel', s)[0] for s in ('train', 'test'))
  assert train['id'] == '000012' and train['event'] == 1
  assert train['label'].tolist() == [2, 2] + [1] * 7 + [2]  # 2: background
  assert test['label'].tolist() == [0] * 10
  assert [round(grey / 20) for grey in greys(train)] == [1, 2, 3, 4, 5, 7, 8, 9, 10, 12]
  assert train['wave'].tolist() == [16384] * 10 * RATE


def test_avel_is_read_from_videos_and_wrong_rows_are_said(tmp_path, video):
  root = avel(tmp_path / 'in')
  (root / 'videos').mkdir()
  shutil.copy(video, root / 'videos/000012.mkv')
  with pytest.raises(ValueError, match='1 clips of vggsound_avel.*\n.*345678: .*No such file'):
    build(vggsound_avel.recipe(root, rate=RATE), tmp_path / 'out')
  shutil.copy(video, root / 'videos/345678.mkv')
  build(vggsound_avel.recipe(root, rate=RATE), tmp_path / 'out')
  record = records.load(tmp_path / 'out', 'vggsound_avel', 'train')[0]
  assert [round(grey / 3) for grey in greys(record)] == [1 + 2 * i for i in range(10)]
  (root / 'vggsound-avel40k_labels.csv').write_text('\n'.join([*AVEL, 'test,dog,1,"[1]"']))
  with pytest.raises(ValueError, match='line 4: label is .*; it must be a list of ten'):
    vggsound_avel.recipe(root)
