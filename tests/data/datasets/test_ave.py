"""AVE from both layouts; the labels and splits of the real annotation files."""

import io
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import pipeline, records, transforms
from dgsct_jax.data.datasets import ave
from tests import annotations, clips

RATE = 800  # Hz, of all sound here
ROWS = [
  'Bark&aaaaaaaaaaa&good&0&10',
  'Flute&bbbbbbbbbbb&good&2&5',
  'Bark&ccccccccccc&good&6&8',
  'Mandolin&bbbbbbbbbbb&good&3&10',
]
SPLITS = {'train': [3, 0], 'val': [1], 'test': [2]}


def prepare(source, out, skip_bad=False, workers=0, **cutting):
  return records.write(
    ave.recipe(source, rate=RATE, **cutting), out, workers=workers, skip_bad=skip_bad
  )


def load(out, split):
  return records.load(out, 'ave', split)


def label_files(root, orders=True, lists=True):
  root.mkdir(parents=True, exist_ok=True)
  head = 'Category&VideoID&Quality&StartTime&EndTime'
  (root / 'Annotations.txt').write_text('\n'.join([head, *ROWS]) + '\n')
  for name, rows in SPLITS.items():
    if orders:
      with h5py.File(root / f'{name}_order.h5', 'w') as file:
        file['order'] = np.array(rows)
    if lists:
      (root / f'{name}Set.txt').write_text(''.join(ROWS[i] + '\n' for i in rows))
  return root


def released(root, frames=20):
  """data/AVE of the release: the grey of a frame is its number, the wave a ramp."""
  label_files(root, lists=False)
  for video in ('aaaaaaaaaaa', 'bbbbbbbbbbb', 'ccccccccccc'):
    folder = root / 'frames' / video
    folder.mkdir(parents=True)
    for i in range(1, frames + 1):
      picture = Image.fromarray(np.full((20, 30, 3), 5 * i, np.uint8))
      picture.save(folder / f'{i:08d}.jpg', quality=90)
    (root / 'wave').mkdir(exist_ok=True)
    np.save(root / 'wave' / f'{video}.npy', np.linspace(-1, 0.99, 10 * RATE, dtype=np.float32))
  return root


@pytest.fixture(scope='session')
def video(tmp_path_factory):
  """Ten seconds: the grey of a picture is its second times 20, the pitch of the sound 100 Hz."""
  pictures = clips.counter(10, size=(300, 400), step=20)
  return clips.write(
    tmp_path_factory.mktemp('video') / 'a.mp4',
    np.repeat(pictures, 5, 0),
    np.arange(50) / 5,
    clips.tone(32000, 10, 100.0),
  )


def raw(root, video):
  """The folder of the data set's authors."""
  label_files(root, orders=False)
  (root / 'AVE').mkdir()
  for name in ('aaaaaaaaaaa', 'bbbbbbbbbbb', 'ccccccccccc'):
    shutil.copy(video, root / 'AVE' / f'{name}.mp4')
  return root


def grey(encoded):
  return np.asarray(Image.open(io.BytesIO(encoded))).mean()


def test_the_released_folder_is_stored_as_it_is(tmp_path):
  root = released(tmp_path / 'data/AVE')
  prepare(tmp_path, tmp_path / 'out')
  train = load(tmp_path / 'out', 'train')
  assert [train[i]['row'] for i in range(2)] == [3, 0]
  record = train[0]
  assert record['id'] == 'bbbbbbbbbbb'
  numbers = [1, 3, 5, 7, 9, 11, 13, 15, 17, 20]  # int(linspace(1, 20, 10))
  files = [root / 'frames/bbbbbbbbbbb' / f'{i:08d}.jpg' for i in numbers]
  assert record['frames'] == [file.read_bytes() for file in files]
  np.testing.assert_allclose(record['wave'] / 32768, np.linspace(-1, 0.99, 10 * RATE), atol=1e-4)
  assert record['event'] == 27 and record['label'].tolist() == [28] * 3 + [27] * 7
  assert load(tmp_path / 'out', 'test')[0]['label'].tolist() == [28] * 6 + [2] * 2 + [28] * 2


def test_raw_videos_give_a_frame_of_every_second_and_its_sound(tmp_path, video):
  source = raw(tmp_path / 'AVE_Dataset', video)
  prepare(source, tmp_path / 'out', side=100, workers=1)
  record = load(tmp_path / 'out', 'val')[0]
  assert [round(grey(frame) / 20) for frame in record['frames']] == list(range(10))
  with Image.open(io.BytesIO(record['frames'][0])) as frame:
    assert frame.size == (133, 100)
  wave = record['wave'] / 32768
  assert np.abs(np.fft.rfft(wave)).argmax() == 1000  # 100 Hz in ten seconds
  assert record['label'].tolist() == [28] * 2 + [8] * 3 + [28] * 5


def test_a_batch_has_the_fields_that_the_task_expects(tmp_path):
  released(tmp_path / 'AVE')
  prepare(tmp_path, tmp_path / 'out')
  decode = (
    transforms.DecodeFrames(16),
    transforms.DecodeWave(10, RATE),
    transforms.Keep(('video', 'wave', 'label')),
  )
  dataset = pipeline.Dataset(load(tmp_path / 'out', 'train'), decode)
  batch = next(pipeline.train(dataset, batch=2, seed=0))
  assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
    'video': ((2, 10, 16, 16, 3), 'float32'),
    'wave': ((2, 10, RATE), 'float32'),
    'label': ((2, 10), 'int32'),
    'index': ((2,), 'int32'),
    'valid': ((2,), 'float32'),
  }


def test_all_faults_of_a_released_folder_are_listed_and_the_rest_built_on_request(tmp_path):
  root = released(tmp_path / 'AVE')
  (root / 'frames/aaaaaaaaaaa/00000009.jpg').write_bytes(b'broken')
  np.save(root / 'wave/ccccccccccc.npy', np.zeros(5 * RATE, np.float32))
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)2 clips of ave cannot be used:.*aaaaaaaaaaa: .*00000009.jpg is not a readable picture.*'
      r'ccccccccccc: .*5.00 s at 800 Hz; 10 s are needed'
    ),
  ):
    prepare(root, tmp_path / 'out')
  with pytest.raises(ValueError, match=r"no data set 'ave'.*data.prepare ave"):
    load(tmp_path / 'out', 'train')
  with pytest.raises(ValueError, match="No clip of ave, split 'test'"):
    prepare(root, tmp_path / 'out', skip_bad=True)
  np.save(root / 'wave/ccccccccccc.npy', np.zeros(10 * RATE, np.float32))
  prepare(root, tmp_path / 'out', skip_bad=True)
  assert [len(load(tmp_path / 'out', name)) for name in SPLITS] == [1, 1, 1]


def test_all_faults_of_raw_videos_are_listed(tmp_path, video):
  root = raw(tmp_path / 'AVE_Dataset', video)
  (root / 'AVE/aaaaaaaaaaa.mp4').unlink()
  (root / 'AVE/bbbbbbbbbbb.mp4').write_bytes(b'broken')
  clips.write(root / 'AVE/ccccccccccc.mp4', clips.counter(3), [0, 0.1, 0.2])
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)4 clips of ave.*bbbbbbbbbbb: .*cannot be read as video.*'
      r'aaaaaaaaaaa: .*No such file.*aaaaaaaaaaa.mp4.*bbbbbbbbbbb: .*'
      r'ccccccccccc: .*lasts 0\.\d+ s; more than 9 s are needed'
    ),
  ):
    prepare(root, tmp_path / 'out')


def test_a_video_without_sound_is_bad(tmp_path, video):
  root = raw(tmp_path / 'AVE_Dataset', video)
  clips.write(root / 'AVE/ccccccccccc.mp4', clips.counter(11), np.arange(11))
  with pytest.raises(ValueError, match='1 clips.*\n.*ccccccccccc.mp4 has no audio track'):
    prepare(root, tmp_path / 'out')


def test_label_files_that_contradict_each_other_are_refused(tmp_path):
  root = released(tmp_path / 'AVE')
  label_files(root)
  (root / 'valSet.txt').write_text(ROWS[0] + '\n')
  with pytest.raises(ValueError, match='val_order.h5 and .*valSet.txt name different clips'):
    ave.recipe(root)
  (root / 'valSet.txt').write_text('Bark&zzzzzzzzzzz&good&0&10\n')
  with pytest.raises(ValueError, match='valSet.txt, line 1: zzzzzzzzzzz is not in Annotations.txt'):
    ave.recipe(root)
  (root / 'valSet.txt').write_text('Barking&zzzzzzzzzzz&good&0&10\n')
  with pytest.raises(ValueError, match='valSet.txt, line 1: .*is not a known class'):
    ave.recipe(root)


def test_what_is_missing_is_said(tmp_path):
  with pytest.raises(ValueError, match='no Annotations.txt'):
    ave.recipe(tmp_path)
  label_files(tmp_path)
  with pytest.raises(ValueError, match='neither the folders frames and wave, nor videos'):
    ave.recipe(tmp_path)
  (tmp_path / 'test_order.h5').unlink()
  (tmp_path / 'testSet.txt').unlink()
  (tmp_path / 'aaaaaaaaaaa.mp4').touch()
  with pytest.raises(ValueError, match='neither test_order.h5 nor testSet.txt'):
    ave.recipe(tmp_path)


def test_the_real_annotations_are_read_completely():
  root = annotations.folder('ave')
  rows = ave.annotations(root)
  assert len(rows) == 4143 and len({row.id for row in rows}) == 4097
  assert (root / 'categories.txt').read_text().splitlines() == list(ave.CLASSES)
  with h5py.File(root / 'mil_labels.h5') as file:
    clip_labels = file['avadataset'][:]
  assert clip_labels.shape == (4143, 29) and (clip_labels.sum(1) == 1).all()
  assert clip_labels.argmax(1).tolist() == [row.event for row in rows]
  for row in rows:
    foreground = sum(label != ave.BACKGROUND for label in row.label)
    assert set(row.label) <= {row.event, ave.BACKGROUND} and foreground == row.end - row.start


def test_the_real_splits_have_the_published_sizes_and_agree():
  root = annotations.folder('ave')
  rows = ave.annotations(root)
  splits = ave.splits(root, rows)  # order files and lists are compared there
  assert {name: len(found) for name, found in splits.items()} == {
    'train': 3339,
    'val': 402,
    'test': 402,
  }
  assert sorted(sum(splits.values(), [])) == list(range(4143))
  foreground = {
    name: np.mean([np.array(rows[i].label) != ave.BACKGROUND for i in found])
    for name, found in splits.items()
  }
  assert round(100 * foreground['train'], 2) == 83.14
  assert round(100 * foreground['test'], 2) == 82.21
  videos = {name: {rows[i].id for i in found} for name, found in splits.items()}
  assert len(videos['train'] & videos['test']) == 8
  assert len(videos['train'] & videos['val']) == 10
