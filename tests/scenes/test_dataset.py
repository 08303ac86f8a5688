"""Composed clips are records like others, and so are the questions about them."""

import dataclasses
import io
import json
import subprocess
import sys
import textwrap

import grain
import numpy as np
import pytest
from PIL import Image

from configs import avqa, quickstart
from dgsct_jax.data import pipeline, records, transforms
from dgsct_jax.data.questions import KINDS
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


def test_a_source_that_is_not_known_is_named():
  fields = quickstart.get_config().data
  fields.source = 'dreams'
  with pytest.raises(ValueError, match="source is 'dreams'; choose one of shapes, stamps"):
    dataset.load(fields, 'train')


# Questions.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('questions')


def fields(folder, **changes):
  """`config.data` of the tiny config of AVQA: six clips, two questions of every type about each."""
  found = avqa.get_config('tiny').data
  found.update({'dir': str(folder)} | changes)
  return found


def written(asked):
  return [(q['video_id'], q['question_content'], q['templ_values']) for q in asked.questions]


def test_each_question_comes_with_its_clip(folder):
  source = dataset.load_questions(fields(folder), 'train')
  clips = records.load(folder, fields(folder).name, 'train')
  assert len(source) == len(source.questions) > 20
  assert [q['question_id'] for q in source.questions] == list(range(len(source)))
  for i, question in enumerate(source.questions):
    record = source[i]
    assert record['id'] == question['video_id']
    clip = next(clips[j] for j in range(6) if clips[j]['id'] == record['id'])
    assert np.array_equal(record['wave'], clip['wave'])
    assert [source.answers[i] for i in record['answer']] == [question['anser']]
    assert list(KINDS[record['kind'][0]]) == json.loads(question['type'])
    assert record['question'].shape == (1, 14)
    words = [source.words[word] for word in record['question'][0] if word]
    assert all(value in words for value in json.loads(question['templ_values']))


def test_questions_are_asked_once_and_their_vocabulary_does_not_depend_on_the_split(folder):
  source = dataset.load_questions(fields(folder), 'train')
  (file,) = source.clips.folder.glob('questions-train-each2-seed3.json')
  before = file.stat().st_mtime_ns
  again = dataset.load_questions(fields(folder), 'train')
  assert file.stat().st_mtime_ns == before and again.questions == source.questions
  other = dataset.load_questions(fields(folder), 'val')
  assert (source.words, source.answers) == (other.words, other.answers)
  assert not list(file.parent.glob('*.part'))


def test_another_number_of_questions_or_another_seed_gives_others(folder, tmp_path):
  two = dataset.load_questions(fields(folder), 'train')
  each = {'train': 1, 'val': 1, 'test': 1}
  one = dataset.load_questions(fields(folder, each=each), 'train')
  assert len(one) < len(two)
  assert written(dataset.load_questions(fields(folder), 'train')) == written(two)
  ask = lambda seed: dataset.write_questions(
    two.clips, dataset.CLASSES['shapes'], 'train', 32, seed, 2
  )
  assert ask(3) == two.questions and ask(4) != two.questions


def test_splits_are_asked_apart(folder):
  """The same clips under the names of two splits are asked other questions."""
  clips = dataset.load(fields(folder), 'train')
  ask = lambda split: dataset.write_questions(clips, dataset.CLASSES['shapes'], split, 32, 3, 1)
  assert ask('train') == ask('train') and ask('train') != ask('val')


def test_questions_of_other_clips_are_refused(folder):
  source = dataset.load_questions(fields(folder), 'test')
  (file,) = source.clips.folder.glob('questions-test-*.json')
  kept = file.read_text()
  file.write_text(json.dumps([{'video_id': 'train_000001'}]))
  with pytest.raises(ValueError, match="1 clips that '.*_tiny' does not have.*Remove it"):
    dataset.load_questions(fields(folder), 'test')
  file.write_text(kept)


def test_the_pipeline_makes_batches_of_questions(folder):
  given = pipeline.Dataset(
    dataset.load_questions(fields(folder), 'train'),
    (
      transforms.DecodeFrames(32, (0.0,) * 3, (1.0,) * 3),
      transforms.DecodeWave(3, 1000),
      transforms.Keep(('video', 'wave', 'question', 'answer')),
    ),
  )
  batch = next(pipeline.train(given, batch=4, seed=0))
  assert batch['question'].shape == (4, 1, 14) and batch['answer'].shape == (4, 1)
  assert batch['video'].shape == (4, 3, 32, 32, 3) and batch['wave'].shape == (4, 3, 1000)
