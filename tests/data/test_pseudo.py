"""Labels by CLIP and CLAP: what they say of seconds, and the command from clips to training."""

import numpy as np
import pytest

from configs import avvp, few_shot
from dgsct_jax.data import pipeline, pseudo
from dgsct_jax.data.pseudo_labels import STREAMS
from dgsct_jax.scenes import dataset
from dgsct_jax.tasks import registry


def test_a_class_of_the_clip_competes_with_absent_classes_alone():
  present = np.array([True, True, False, False])
  logits = np.log([[4.0, 4.0, 1.0, 3.0], [1.0, 12.0, 2.0, 2.0]])
  want = [[0.5, 0.5, 0, 0], [0.2, 0.75, 0, 0]]
  np.testing.assert_allclose(pseudo.label(logits, present), want, rtol=1e-6)
  np.testing.assert_array_equal(pseudo.label(999 * logits, np.ones(4, bool)), np.ones((2, 4)))


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Tiny random towers, and the composed clips of configs/avvp.py:tiny."""
  values = few_shot.get_config('llp_labels,tiny')
  clips = avvp.get_config('tiny').data
  values.data.update({name: x for name, x in clips.items() if name not in ('pseudo', 'blank')})
  values.data.update(dir=str(tmp_path_factory.mktemp('data')), shots=0)
  return values


def test_labels_of_random_towers_are_learned_from(config, tmp_path):
  model = pseudo.towers(config)
  assert '4 clips, 4 of them new' in pseudo.write(model, tmp_path)
  assert (tmp_path / 'classes.txt').read_text().split() == list(dataset.CLASSES['shapes'])
  training = avvp.get_config('tiny')
  training.data.update(dir=config.data.dir, pseudo=str(tmp_path))
  batches = pipeline.train(registry.build(training).data('train'), batch=4, seed=0)
  batch = next(batches)
  for stream in STREAMS:
    labels = batch[f'pseudo_{stream}']
    assert labels.shape == (4, 3, 8)
    np.testing.assert_array_equal((labels > 0).any(1), batch['label'] > 0)
    assert np.unique(labels).size > 4  # differ with the second

  kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob('*.npy')}
  lost = tmp_path / 'visual/train_000003.npy'
  before = np.load(lost)
  lost.unlink()
  assert '4 clips, 2 of them new' in pseudo.write(model, tmp_path)
  np.testing.assert_allclose(np.load(lost), before, rtol=1e-5)
  first = tmp_path / 'audio/train_000000.npy'
  assert first.stat().st_mtime_ns == kept[first]


def test_what_is_not_of_whole_clips_is_refused(config):
  other = config.copy_and_resolve_references()
  other.model.head.update(target='seconds', background=True)
  with pytest.raises(ValueError, match=r"shape \(3, 9\); labels.*8 classes occur.*'set' or 'clip'"):
    pseudo.towers(other)
