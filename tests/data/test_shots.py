"""A few clips of each class."""

import numpy as np
import pytest

from dgsct_jax.data import records, shots, targets

# Class by class: 0 three times, 1 once, 2 twice; and clips of two classes and of none.
SETS = [{0}, {2}, {0, 1}, {1}, {0}, set(), {2}, {0}]


class Records(records.Records):
  def __init__(self):
    self.ids = [f'clip{i}' for i in range(len(SETS))]

  def __len__(self):
    return len(SETS)

  def __getitem__(self, i):
    return {'label': np.array([c in SETS[i] for c in range(4)], int)}


def choose(k, seed=None):
  return shots.choose(Records(), (targets.OfSet(),), k, seed)


def test_the_first_of_each_class_are_taken_class_by_class_and_all_where_there_are_fewer():
  assert choose(1).places == (0, 3, 1)
  assert choose(2).places == (0, 4, 3, 1, 6)
  assert choose(9).ids == ['clip0', 'clip4', 'clip7', 'clip3', 'clip1', 'clip6']


def test_a_seed_draws_others_of_the_same_classes():
  drawn = {choose(1, seed).places for seed in range(20)}
  assert len(drawn) > 3 and all([SETS[i] for i in places] == [{0}, {1}, {2}] for places in drawn)
  assert choose(2, 5).places == choose(2, 5).places


def test_shots_must_be_positive_and_some_clip_must_have_one_class():
  with pytest.raises(ValueError, match='shots is -1; give at least 1, or 0 for all'):
    choose(-1)
  none = type('None_', (Records,), {'__getitem__': lambda self, i: {'label': np.ones(4)}})()
  with pytest.raises(ValueError, match='No clip of the training data has one class alone'):
    shots.choose(none, (targets.OfSet(),), 1)
