"""Initial variables without compiling the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.models import lazy
from dgsct_jax.models.layers import BatchNorm, Dense

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
