import dataclasses

import numpy as np
import pytest

from dgsct_jax.scenes import labels as scene_labels
from dgsct_jax.scenes.compose import Knobs
from dgsct_jax.scenes.dataset import Read, Scene
from dgsct_jax.scenes.shapes import Shapes


def records(knobs, count=8):
  knobs = dataclasses.replace(knobs, size=32, sample_rate=1000)
  read = Read(Shapes(), knobs, 0)
  return [read(Scene(f'{i}', 'train', i)) for i in range(count)]


def test_parsing_tells_per_second_what_is_heard_and_seen_and_per_clip_only_what():
  both = []
  for record in records(scene_labels.LLP, 20):
    example = scene_labels.Parsing().map(record)
    assert np.array_equal(example['audio'], record['heard'])
    assert np.array_equal(example['visual'], record['seen'])
    assert np.array_equal(
      example['label'], (example['audio'].any(0) | example['visual'].any(0)).astype(np.float32)
    )
    assert example['label'].dtype == example['audio'].dtype == np.float32
    both.append((example['audio'].any(0), example['visual'].any(0)))
  audio, visual = np.array(both).swapaxes(0, 1)
  for state in (audio & visual, audio & ~visual, ~audio & visual):
    assert state.any(1).mean() > 0.3


@pytest.mark.parametrize('knobs', [scene_labels.S4, scene_labels.MS3])
def test_masks_are_of_objects_that_sound(knobs):
  for record in records(knobs):
    masks = scene_labels.SoundingMasks().map(record)['masks']
    assert masks.shape == (5, 32, 32) and masks.dtype == np.float32
    for mask, png, on in zip(masks, record['masks'], record['sounding']):
      ids = scene_labels.decode(png)
      assert np.array_equal(mask, np.isin(ids, 1 + np.flatnonzero(on[:-1])))


def test_s4_has_one_object_that_sounds_in_every_second_beside_silent_ones():
  found = [scene_labels.SoundingMasks().map(record)['masks'] for record in records(scene_labels.S4)]
  assert all(masks.any((1, 2)).all() for masks in found)
  ids = [
    np.unique(scene_labels.decode(png))
    for record in records(scene_labels.S4)
    for png in record['masks']
  ]
  assert np.mean([len(i) > 2 for i in ids]) > 0.3


def test_ms3_has_seconds_without_and_with_several_sounding_objects():
  count = []
  for record in records(scene_labels.MS3, 20):
    count += [(s & v).sum() for s, v in zip(record['sounding'][:, :-1], record['visible'])]
  assert {0, 1, 2} <= set(count)


def test_s4_training_has_the_mask_of_the_first_second_alone():
  record = records(scene_labels.S4, 1)[0]
  first = scene_labels.SoundingMasks(first=True).map(record)['masks']
  assert first.shape == (1, 32, 32)
  assert np.array_equal(first, scene_labels.SoundingMasks().map(record)['masks'][:1])


def test_masks_of_several_frames_a_second_are_refused():
  record = records(Knobs(segments=2, frames_per_second=2), 1)[0]
  with pytest.raises(ValueError, match='4 frames in 2 seconds'):
    scene_labels.SoundingMasks().map(record)
