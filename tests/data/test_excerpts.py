"""Parts of records, in segments of several seconds."""

import numpy as np
import pytest

from dgsct_jax.data import records
from dgsct_jax.data.excerpts import Excerpt, RandomExcerpt, hold_out

RATE = 10
RECORD = {'wave': np.arange(100), 'frames': list(range(10)), 'label': np.int32(7), 'id': 'a'}


def test_evaluation_hears_and_sees_what_the_release_does():
  """Of ten seconds those from the third on, and the picture of the fifth."""
  found = Excerpt(1, 5, RATE).map(RECORD)
  np.testing.assert_array_equal(found['wave'], np.arange(30, 80))
  assert found['frames'] == [5] and found['id'] == 'a'
  np.testing.assert_array_equal(found['label'], np.int32([7]))


def test_training_starts_at_any_sample_and_sees_the_middle():
  transform, rng = RandomExcerpt(Excerpt(1, 5, RATE)), np.random.default_rng(0)
  found = [transform.random_map(RECORD, rng) for _ in range(500)]
  starts = [int(x['wave'][0]) for x in found]
  assert set(starts) == set(range(51)) and all(len(x['wave']) == 50 for x in found)
  assert all(x['frames'] == [int(s / RATE + 2.5)] for x, s in zip(found, starts))


def test_a_record_of_segments_of_one_second_stays_as_it_is():
  record = RECORD | {'label': np.int32(range(10))}
  for found in (
    Excerpt(10, 1, RATE).map(record),
    RandomExcerpt(Excerpt(10, 1, RATE)).random_map(record, np.random.default_rng(0)),
  ):
    np.testing.assert_array_equal(found['wave'], record['wave'])
    np.testing.assert_array_equal(found['label'], record['label'])
    assert found['frames'] == record['frames']


def test_pictures_may_be_fewer_than_seconds():
  short = RECORD | {'frames': [0, 1, 2, 3]}
  assert Excerpt(1, 5, RATE).map(short)['frames'] == [3]


@pytest.mark.parametrize(
  'picture, training, evaluation', [('first', {0}, 0), ('any', set(range(10)), 5)]
)
def test_the_picture_may_be_another(picture, training, evaluation):
  excerpt, rng = Excerpt(1, 5, RATE, picture), np.random.default_rng(0)
  drawn = {RandomExcerpt(excerpt).random_map(RECORD, rng)['frames'][0] for _ in range(300)}
  assert drawn == training and excerpt.map(RECORD)['frames'] == [evaluation]


def test_an_unknown_picture_is_refused():
  with pytest.raises(ValueError, match="picture is 'last'; choose one of middle, first, any"):
    Excerpt(1, 5, RATE, 'last')


class Records(records.Records):
  def __init__(self, count):
    self.ids = range(count)

  def __getitem__(self, index):
    return {'id': self.ids[index]}


def test_what_is_held_out_of_training_is_not_in_it():
  all_of_it = Records(25)
  train, val = (hold_out(all_of_it, 10, split) for split in ('train', 'val'))
  assert [val[i]['id'] for i in range(len(val))] == [0, 10, 20]
  assert {train[i]['id'] for i in range(len(train))} == set(range(25)) - {0, 10, 20}
  for every in (1, 26):
    with pytest.raises(ValueError, match=f'hold_out is {every}; to take every n-th of 25'):
      hold_out(all_of_it, every, 'val')
