"""Masks: as many values as asked for, and no pattern among places, modules and steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax.models.drop import Dropout, DropPath, stays

KEY = jax.random.key(0)
SHAPE = (40, 64, 48)
N = np.prod(SHAPE)


@functools.partial(jax.jit, static_argnums=(1, 2))
def masks(keys, shape, rate):
  return jax.vmap(lambda key: stays(key, shape, rate))(keys)


def mask(seed=0, shape=SHAPE, rate=0.3):
  return np.asarray(masks(jax.random.key(seed)[None], shape, rate))[0]


def correlation(a, b):
  """In standard deviations of that of independent values."""
  return np.corrcoef(a.ravel(), b.ravel())[0, 1] * np.sqrt(a.size)


@pytest.mark.parametrize('rate', [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_share_as_asked_for_is_dropped(rate):
  dropped = 1 - mask(rate=rate).mean()
  assert abs(dropped - rate) < 4 * np.sqrt(rate * (1 - rate) / N)


def test_neighbours_are_independent():
  kept = mask().ravel()
  for lag in (1, 2, 3, 48, 96, 48 * 64, 2**4, 2**8, 2**12, 2**16):
    assert abs(correlation(kept[lag:], kept[:-lag])) < 4.5, lag


def test_steps_modules_and_seeds_are_independent():
  keys = jax.random.split(KEY, 200)
  found = np.asarray(masks(keys, (1000,), 0.3))
  for axis in (0, 1):  # of a place over all keys, of a key over all places
    n = found.shape[axis]
    assert found.mean(axis).std() == pytest.approx(np.sqrt(0.3 * 0.7 / n), rel=0.2)
  step = [mask(seed) for seed in range(6)]
  for i in range(6):
    for j in range(i):
      assert abs(correlation(step[i], step[j])) < 4.5


def test_a_mask_is_a_function_of_key_and_place_alone():
  np.testing.assert_array_equal(mask(), mask())
  np.testing.assert_array_equal(mask(shape=(2, 3, 4)).ravel(), mask(shape=(24,)))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_dropout_keeps_the_expectation(dtype):
  x = jnp.ones(SHAPE, dtype)
  run = jax.jit(functools.partial(Dropout(0.2).apply, train=True, rngs={'dropout': KEY}))
  y = run({}, x)
  assert y.dtype == dtype
  assert set(np.unique(np.asarray(y, np.float32))) == {0, 1.25}
  assert np.asarray(y, np.float32).mean() == pytest.approx(1, abs=4 * 0.5 / np.sqrt(N))


def test_modules_and_calls_of_one_drop_apart():
  class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
      drop = Dropout(0.5)
      return drop(x, True), drop(x, True), Dropout(0.5)(x, True)

  found = jax.jit(functools.partial(Twice().apply, rngs={'dropout': KEY}))({}, jnp.ones(SHAPE))
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert abs(correlation(np.asarray(found[i]), np.asarray(found[j]))) < 4.5


def test_drop_path_drops_whole_rows_and_keeps_the_expectation():
  drop = DropPath(0.4)
  x = 1 + abs(np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float32))
  run = jax.jit(functools.partial(drop.apply, train=True, rngs={'drop_path': KEY}))
  y = np.asarray(run({}, x))
  kept = (y != 0).reshape(4000, -1)
  assert (kept.all(1) == kept.any(1)).all()
  assert kept.any(1).mean() == pytest.approx(0.6, abs=0.04)
  np.testing.assert_allclose(y[kept.any(1)], x[kept.any(1)] / 0.6, rtol=1e-6)
  np.testing.assert_allclose(y.mean(), x.mean(), rtol=0.05)


@pytest.mark.parametrize('drop', [Dropout, DropPath])
def test_no_randomness_is_needed_in_evaluation_or_at_rate_zero(drop):
  x = jnp.ones((3, 2))
  assert drop(0.5).apply({}, x, False) is x
  assert drop(0.0).apply({}, x, True) is x


def test_a_mask_is_short_to_compile():
  """A loop of jax.random would make some 300 instructions of it."""
  lowered = jax.jit(lambda words: stays(jax.random.wrap_key_data(words), SHAPE, 0.3)).lower(
    jax.ShapeDtypeStruct((2,), jnp.uint32)
  )
  program = lowered.compile().as_text()
  assert ' while(' not in program and program.count(' = ') < 100
