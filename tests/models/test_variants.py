"""Constructors of modules."""

import functools

import pytest
from flax import linen as nn

from dgsct_jax.models.layers import Dense
from dgsct_jax.models.variants import Partial


def test_constructors_of_equal_fields_are_equal():
  make = Partial(nn.Dense, 3, use_bias=False, dtype='float32')
  same = Partial(Partial(nn.Dense, dtype='float32'), 3, use_bias=False)
  assert make == same and hash(make) == hash(same) and {make: 1}[same] == 1
  assert make() == same()


@pytest.mark.parametrize(
  'other',
  [
    Partial(nn.Dense, 4, use_bias=False),
    Partial(nn.Dense, 3, use_bias=True),
    Partial(nn.Dense, 3),
    Partial(nn.Dense, features=3, use_bias=False),
    Partial(Dense, 3, use_bias=False),
    functools.partial(nn.Dense, 3, use_bias=False),
    nn.Dense,
  ],
)
def test_others_are_not(other):
  assert Partial(nn.Dense, 3, use_bias=False) != other


def test_a_field_that_is_given_again_counts():
  assert Partial(nn.Dense, 3)(use_bias=False) == nn.Dense(3, use_bias=False)
  assert Partial(Partial(nn.Dense, 3, use_bias=True), use_bias=False) == Partial(
    nn.Dense, 3, use_bias=False
  )
