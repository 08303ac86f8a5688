"""Targets: the labels of a clip as rows over the classes."""

import numpy as np
import pytest

from dgsct_jax.data import targets

LABEL = np.array([3, 1, 1, 0, 3])  # of three classes; 3 is background


@pytest.mark.parametrize('background', [True, False])
def test_seconds_have_their_class_and_background_one_of_its_own_or_none(background):
  target = targets.OfSeconds(3, background).map({'label': LABEL})['target']
  assert target.dtype == np.float32 and target.shape == (5, 3 + background)
  np.testing.assert_array_equal(target.argmax(-1)[1:4], [1, 1, 0])
  np.testing.assert_array_equal(target.sum(-1), [background, 1, 1, 1, background])


def test_the_class_of_a_clip_is_its_first_event():
  of = lambda label: targets.OfClip(3).map({'label': np.array(label)})['target']
  np.testing.assert_array_equal(of(LABEL), [0, 1, 0])
  assert not of([3, 3]).any()


def test_a_set_is_taken_as_it_is():
  target = targets.OfSet().map({'label': np.array([1, 0, 1])})['target']
  np.testing.assert_array_equal(target, [1, 0, 1])
  assert target.dtype == np.float32
