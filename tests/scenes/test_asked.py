import dataclasses
import json

import numpy as np
import pytest

from dgsct_jax.data import pipeline, records, scene_labels, scene_questions, transforms
from dgsct_jax.data.datasets import scene_questions as dataset
from dgsct_jax.data.datasets import scenes
from dgsct_jax.scenes.shapes import Shapes

KNOBS = dataclasses.replace(scene_labels.MUSIC, segments=4, size=32, sample_rate=1000)
CLASSES = Shapes().classes


@pytest.fixture()
def built(tmp_path):
  scenes.prepare(tmp_path, Shapes(), KNOBS, clips={'train': 6, 'val': 2})
  return tmp_path


def test_each_question_comes_with_its_clip(built):
  source = dataset.load(built, 'scenes', 'train', CLASSES, 32)
  written = json.loads((built / 'scenes/avqa-train.json').read_text())
  clips = records.load(built, 'scenes', 'train')
  assert len(source) == len(written) > 20
  assert [question['question_id'] for question in written] == list(range(len(written)))
  for i, question in enumerate(written):
    record = source[i]
    assert record['id'] == question['video_id']
    clip = next(clips[j] for j in range(6) if clips[j]['id'] == record['id'])
    assert np.array_equal(record['wave'], clip['wave'])
    assert [source.answers[i] for i in record['answer']] == [question['anser']]
    assert list(scene_questions.KINDS[record['kind'][0]]) == json.loads(question['type'])
    assert record['question'].shape == (1, 14)
    words = [source.words[word] for word in record['question'][0] if word]
    assert all(value in words for value in json.loads(question['templ_values']))


def test_the_file_is_asked_once_and_its_vocabulary_does_not_depend_on_the_split(built):
  source = dataset.load(built, 'scenes', 'train', CLASSES, 32)
  before = (built / 'scenes/avqa-train.json').stat().st_mtime_ns
  dataset.load(built, 'scenes', 'train', CLASSES, 32, seed=5)
  assert (built / 'scenes/avqa-train.json').stat().st_mtime_ns == before
  other = dataset.load(built, 'scenes', 'val', CLASSES, 32)
  assert (source.words, source.answers) == (other.words, other.answers)
  assert not list((built / 'scenes').glob('*.part'))


def test_questions_of_other_clips_are_refused(built):
  (built / 'scenes/avqa-val.json').write_text(json.dumps([{'video_id': 'train_000001'}]))
  with pytest.raises(ValueError, match="1 clips that 'scenes' does not have.*Remove it"):
    dataset.load(built, 'scenes', 'val', CLASSES, 32)


def test_the_pipeline_makes_batches_of_questions(built):
  source = dataset.load(built, 'scenes', 'train', CLASSES, 32)
  given = pipeline.Dataset(
    source,
    (
      transforms.DecodeFrames(32),
      transforms.DecodeWave(4, 1000),
      transforms.Keep(('video', 'wave', 'question', 'answer')),
    ),
  )
  batch = next(pipeline.train(given, batch=4, seed=0))
  assert batch['question'].shape == (4, 1, 14) and batch['answer'].shape == (4, 1)
  assert batch['video'].shape == (4, 4, 32, 32, 3) and batch['wave'].shape == (4, 4, 1000)
