"""Shapes and initial variables without compiling the model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.models import lazy
from dgsct_jax.models.layers import BatchNorm, Dense
from dgsct_jax.models.variants import Partial

KEY = jax.random.key(7)


class Tiny(nn.Module):
  """All kinds of initial values: random, constant, numpy, statistics."""

  def setup(self):
    self.table = self.param('table', lambda key: jnp.asarray(np.arange(6.0).reshape(2, 3)))
    self.dense, self.norm, self.out = Dense(3), BatchNorm(), [Dense(3), Dense(3)]
    self.drop = nn.Dropout(0.5)

  def __call__(self, x, train):
    x = self.norm(self.dense(x), train) + self.table[0]
    x = self.drop(x, deterministic=not train)
    for layer in self.out:
      x = layer(x)
    return x


@pytest.fixture(scope='module')
def expected() -> dict:
  return tree.flatten(Tiny().init(KEY, jnp.ones((4, 5)), train=False))


def test_values_equal_those_of_init(expected):
  values = tree.flatten(lazy.init(Tiny(), KEY, jnp.ones((4, 5)), train=False))
  assert values.keys() == expected.keys()
  for path, value in values.items():
    np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_shapes_stand_for_arrays(expected):
  shape = jax.ShapeDtypeStruct((4, 5), jnp.float32)
  values = tree.flatten(lazy.init(Tiny(), KEY, shape, train=False))
  jax.tree.map(np.testing.assert_array_equal, values, expected)


def test_shapes_are_those_of_init(expected):
  shapes = tree.flatten(lazy.shapes(Tiny(), jnp.ones((4, 5)), train=False))
  of = lambda leaves: {path: (leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
  assert of(shapes) == of(expected)


def test_equal_models_are_traced_once():
  traced = []

  class Counted(nn.Module):
    make: Any
    offset: int = 0

    @nn.compact
    def __call__(self, x, train=False):
      traced.append(train)
      return self.make()(x) + self.offset

  x = jnp.ones((1, 3))
  for kernel in (2, 2, 4):
    model = Counted(Partial(Dense, kernel))
    lazy.shapes(model, x, train=False)
    drawn = lazy.init(model, KEY, jax.ShapeDtypeStruct(x.shape, x.dtype), train=False)
    assert drawn['params']['Dense_0']['kernel'].shape == (3, kernel)
  assert traced == [False, False]  # of two and of four channels
  lazy.shapes(model, x, train=True)
  lazy.shapes(model, x[:, :2], train=True)
  lazy.shapes(model.clone(offset=1), x, train=True)
  assert traced[2:] == [True, True, True]


def test_a_field_may_be_an_array():
  class Scaled(nn.Module):
    factor: Any

    @nn.compact
    def __call__(self, x):
      return Dense(2)(x * self.factor)

  for features in (3, 4):
    model, x = Scaled(np.ones(features)), jnp.ones((1, features))
    assert lazy.shapes(model, x)['params']['Dense_0']['kernel'].shape == (features, 2)
    drawn = lazy.init(model, KEY, x)
    jax.tree.map(np.testing.assert_array_equal, drawn, model.init(KEY, x))


def test_only_what_is_kept_is_drawn(expected):
  keep = lambda path: path.startswith(('params/out_1', 'batch_stats'))
  values = tree.flatten(lazy.init(Tiny(), KEY, jnp.ones((4, 5)), keep=keep, train=False))
  assert set(values) == set(filter(keep, expected)) and len(values) == 4
  for path, value in values.items():
    np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_the_forward_pass_is_not_run():
  runs = []

  class Loud(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = Dense(2)(x)
      jax.debug.callback(lambda x: runs.append(x), x)
      return x

  values = lazy.init(Loud(), KEY, jnp.ones((1, 3)))
  jax.effects_barrier()
  assert values['params']['Dense_0']['kernel'].shape == (3, 2)
  assert not runs
  Loud().init(KEY, jnp.ones((1, 3)))
  jax.effects_barrier()
  assert runs


def test_initial_values_that_depend_on_the_input_are_refused():
  class Spoiled(nn.Module):
    @nn.compact
    def __call__(self, x):
      return x - self.param('mean', lambda key: x.mean(0))

  with pytest.raises(ValueError, match='1 inputs decide initial values; .* depend on shapes alone'):
    lazy.init(Spoiled(), KEY, jnp.ones((4, 5)))
