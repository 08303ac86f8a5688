"""Shares in double precision, seconds as a clock has them."""

import numpy as np
import pytest

from dgsct_jax.tasks import views


def test_softmax_is_over_the_last_axis_and_bears_large_numbers():
  logits = np.array([[1000.0, 1000.0], [0.0, np.log(3)]], np.float32)
  np.testing.assert_allclose(views.softmax(logits), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-7)
  assert views.softmax(logits).dtype == np.float64


def test_sigmoid_of_opposites_is_one():
  x = np.linspace(-30, 30, 7, dtype=np.float32)
  np.testing.assert_allclose(views.sigmoid(x) + views.sigmoid(-x), 1, rtol=1e-12)
  assert views.sigmoid(np.float32(0)) == 0.5


@pytest.mark.parametrize('second, text', [(0, '0:00'), (67, '1:07'), (3600, '60:00')])
def test_a_second_as_a_clock_has_it(second, text):
  assert views.clock(second) == text
