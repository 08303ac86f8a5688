"""CREMA-D from both layouts, split as released and by actor."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import records
from dgsct_jax.data.datasets import cremad
from tests import clips

RATE = 800  # Hz, of all sound here
ACTORS = [f'{1001 + i}' for i in range(12)]
CLIPS = [f'{actor}_{sentence}_XX' for actor in ACTORS for sentence in ('DFA_ANG', 'IEO_SAD')]


def lists(root):
  (root / 'Annotations').mkdir(parents=True)
  for name, found in (('train', CLIPS[4:]), ('test', CLIPS[:4])):
    rows = [f'{clip},{clip.split("_")[2]}' for clip in found]
    (root / f'Annotations/{name}.csv').write_text('\n'.join(rows), encoding='utf-8-sig')
  return root


def released(root):
  soundfile = pytest.importorskip('soundfile')
  lists(root)
  (root / 'AudioWAV').mkdir()
  for clip in CLIPS:
    folder = root / 'frames/Image-01-FPS' / clip
    folder.mkdir(parents=True)
    for i in (1, 2):
      Image.fromarray(np.full((20, 30, 3), 60 * i, np.uint8)).save(folder / f'{i:05d}.jpg')
    soundfile.write(root / f'AudioWAV/{clip}.wav', np.linspace(0, 0.5, 2 * RATE), RATE)
  return root


def test_the_released_folder_is_read_and_sounds_are_looped(tmp_path):
  root = released(tmp_path)
  records.write(cremad.recipe(root, rate=RATE), tmp_path / 'out')
  train, test = (records.load(tmp_path / 'out', 'cremad', split) for split in ('train', 'test'))
  assert len(train) == 20 and test.ids == CLIPS[:4]
  assert [test[i]['label'] for i in range(4)] == [5, 2, 5, 2]
  assert len(test[0]['frames']) == 2
  ramp = np.linspace(0, 0.5, 2 * RATE)
  np.testing.assert_allclose(test[0]['wave'] / 32768, np.append(ramp, ramp[:RATE]), atol=1e-4)


def test_no_actor_is_in_two_splits(tmp_path):
  root = released(tmp_path)
  records.write(cremad.recipe(root, rate=RATE, split='actors'), tmp_path / 'out')
  splits = {
    split: records.load(tmp_path / 'out', 'cremad_actors', split)
    for split in ('train', 'val', 'test')
  }
  actors = {split: {clip[:4] for clip in found.ids} for split, found in splits.items()}
  assert {split: len(found) for split, found in actors.items()} == {'train': 9, 'val': 1, 'test': 2}
  assert len(set.union(*actors.values())) == 12
  assert sum(len(found) for found in splits.values()) == 24


def test_videos_are_read_too(tmp_path):
  root = lists(tmp_path / 'in')
  (root / 'VideoFlash').mkdir()
  path = clips.write(
    tmp_path / 'a.mkv', clips.counter(25), np.arange(25) / 10, clips.tone(2000, 2.5, 100.0), 2000
  )
  for clip in CLIPS[1:]:
    shutil.copy(path, root / f'VideoFlash/{clip}.mkv')
  with pytest.raises(ValueError, match=f'1 clips of cremad.*\n.*{CLIPS[0]}: .*No such file'):
    records.write(cremad.recipe(root, rate=RATE), tmp_path / 'out')
  records.write(cremad.recipe(root, rate=RATE), tmp_path / 'out', skip_bad=True)
  record = records.load(tmp_path / 'out', 'cremad', 'test')[0]
  greys = [np.asarray(Image.open(io.BytesIO(frame))).mean() for frame in record['frames']]
  assert [round(grey / 8) for grey in greys[:2]] == [5, 15]
  assert np.abs(np.fft.rfft(record['wave'].reshape(3, RATE), axis=1)).argmax(1)[0] == 100


def test_what_is_wrong_or_missing_is_said(tmp_path):
  with pytest.raises(ValueError, match='no AudioWAV or VideoFlash'):
    cremad.recipe(tmp_path)
  (tmp_path / 'VideoFlash').mkdir()
  with pytest.raises(ValueError, match='train.csv is missing; use --split=actors'):
    cremad.recipe(tmp_path)
  with pytest.raises(ValueError, match="split='random'; choose"):
    cremad.recipe(tmp_path, split='random')
  (tmp_path / 'VideoFlash/1001_DFA_JOY_XX.flv').touch()
  with pytest.raises(ValueError, match='none of the emotions'):
    cremad.recipe(tmp_path, split='actors')
  lists(tmp_path)
  (tmp_path / 'VideoFlash/1001_DFA_JOY_XX.flv').unlink()
  with pytest.raises(ValueError, match='neither the folder frames/Image-01-FPS, nor videos'):
    cremad.recipe(tmp_path)
  (tmp_path / 'Annotations/test.csv').write_text('1001_DFA_ANG_XX,JOY\n')
  with pytest.raises(ValueError, match="test.csv, line 1: 'JOY' is none of the emotions"):
    cremad.recipe(tmp_path)
