import dataclasses
import io
import subprocess
import sys
import textwrap

import grain
import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import records
from dgsct_jax.scenes import dataset
from dgsct_jax.scenes.compose import Knobs, compose
from dgsct_jax.scenes.shapes import Shapes

KNOBS = Knobs(segments=3, frames_per_second=2, size=32, sample_rate=2000)
CLIPS = {'train': 5, 'val': 2, 'test': 3}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  dataset.prepare(folder, Shapes(), KNOBS, clips=CLIPS, seed=7)
  return folder


def decode(image):
  return np.asarray(Image.open(io.BytesIO(image)))


def test_records_are_the_composed_clips_in_order(built):
  for split, count in CLIPS.items():
    source = records.load(built, 'scenes', split)
    assert len(source) == count
    for i in range(count):
      record, clip = source[i], compose(Shapes(), KNOBS, 7, split, i)
      assert record['id'] == f'{split}_{i:06d}'
      assert all(np.array_equal(decode(a), b) for a, b in zip(record['masks'], clip.masks))
      error = np.abs(np.stack([decode(f) for f in record['frames']]) - clip.frames.astype(float))
      assert error.mean() < 6
      assert np.abs(record['wave'] / 32768 - clip.wave).max() < 1 / 32768
      for name in ('boxes', 'sources', 'visible', 'sounding', 'level', 'seen', 'heard', 'label'):
        assert np.array_equal(record[name], getattr(clip, name)), name
        assert record[name].dtype == getattr(clip, name).dtype


def test_the_same_command_builds_nothing_anew_and_another_one_is_refused(built):
  before = {file: file.stat().st_mtime_ns for file in built.rglob('*')}
  dataset.prepare(built, Shapes(), KNOBS, clips=CLIPS, seed=7)
  assert {file: file.stat().st_mtime_ns for file in built.rglob('*')} == before
  for change in (
    {'seed': 8},
    {'clips': CLIPS | {'train': 6}},
    {'knobs': dataclasses.replace(KNOBS, hiss=0.5)},
    {'source': Shapes(Shapes().classes[::-1])},
  ):
    given = {'source': Shapes(), 'knobs': KNOBS, 'clips': CLIPS, 'seed': 7} | change
    with pytest.raises(ValueError, match='other clips or settings'):
      dataset.prepare(built, **given)


def test_two_data_sets_live_in_one_folder_under_two_names(built):
  dataset.prepare(built, Shapes(), KNOBS, clips={'train': 1}, seed=1, name='other')
  assert len(records.load(built, 'other', 'train')) == 1
  assert len(records.load(built, 'scenes', 'train')) == CLIPS['train']


def test_grain_shuffles_and_batches_the_records(built):
  source = records.load(built, 'scenes', 'train')
  batches = grain.MapDataset.source(source).shuffle(seed=0).map(lambda r: r['label']).batch(2)
  assert batches[0].shape == (2, KNOBS.segments)


def test_reading_imports_neither_tensorflow_nor_jax(built):
  code = f"""
      import sys
      from dgsct_jax.data import records
      assert len(records.load({str(built)!r}, 'scenes', 'val')[0]['frames']) == 6
      assert not {{'tensorflow', 'jax'}} & set(sys.modules), 'imported'
  """
  subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True, timeout=120)


def test_processes_build_the_same_records(built, tmp_path):
  dataset.prepare(tmp_path, Shapes(), KNOBS, clips=CLIPS, seed=7, workers=2)
  ours, theirs = (records.load(folder, 'scenes', 'test')[1] for folder in (built, tmp_path))
  assert np.array_equal(ours['wave'], theirs['wave']) and ours['frames'] == theirs['frames']
