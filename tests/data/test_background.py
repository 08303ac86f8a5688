"""Pairs that do not belong together."""

import numpy as np
import pytest

from dgsct_jax.data.background import Mismatch

LABELS = [[0, 0, 3], [1, 3, 3], [0, 1, 3], [2, 2, 2]]  # 3 is background
RECORDS = [{'frames': [i], 'wave': i, 'label': np.int32(label)} for i, label in enumerate(LABELS)]


def drawn(index: int, **fields) -> list[dict]:
  transform = Mismatch(RECORDS, classes=3, **fields)
  rng = np.random.default_rng(0)
  return [transform.random_map(RECORDS[index], rng) for _ in range(2000)]


def test_one_pair_in_five_becomes_background():
  labels = np.array([example['label'] for example in drawn(0)])
  became = (labels == 3).all(1)
  assert became.mean() == pytest.approx(0.2, abs=0.03)
  assert (labels[~became] == LABELS[0]).all()


@pytest.mark.parametrize('index, others', [(0, {1, 3}), (1, {0, 3}), (2, {3}), (3, {0, 1, 2})])
def test_its_pictures_are_of_a_record_without_a_common_class_and_its_sound_is_its_own(
  index, others
):
  found = drawn(index, probability=1.0)
  pictures = [example['frames'][0] for example in found]
  assert set(pictures) == others
  assert max(map(pictures.count, others)) < 1.2 * len(found) / len(others)
  assert {example['wave'] for example in found} == {index}


def test_as_released_the_label_alone_changes():
  found = drawn(0, probability=1.0, mode='label_only')
  assert {example['frames'][0] for example in found} == {0}
  assert all((example['label'] == 3).all() for example in found)


def test_records_are_left_as_they_were():
  drawn(0, probability=1.0)
  assert [list(record['label']) for record in RECORDS] == LABELS


def test_a_clip_may_have_one_label():
  records = [{'frames': [i], 'label': i} for i in range(2)]
  found = Mismatch(records, 2, 1.0).random_map(records[0], np.random.default_rng(0))
  assert found['label'] == 2 and found['frames'] == [1]


def test_what_cannot_be_is_refused():
  with pytest.raises(ValueError, match="bg_mode is 'native'; set one of mismatch, label_only"):
    Mismatch(RECORDS, 3, mode='native')
  with pytest.raises(ValueError, match=r'none of another class than \[0\] among 1000 of 1 records'):
    Mismatch(RECORDS[:1], 3, 1.0).random_map(RECORDS[0], np.random.default_rng(0))
