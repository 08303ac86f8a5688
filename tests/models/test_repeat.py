"""Loops over parts that are alike: the same values, statistics and gradients, less to compile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.models import clip, repeat
from dgsct_jax.models.adapters import Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.layers import BatchNorm, Dense
from dgsct_jax.models.vit import ViT
from tests.models import filled, tiny

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)


class Part(nn.Module):
  """A layer with statistics and a field that may be traced."""

  factor: float | jax.Array = 1.0
  width: int = 4

  traced = ('factor',)

  @nn.compact
  def __call__(self, x, train):
    y = BatchNorm()(jnp.tanh(Dense(self.width)(x) * self.factor), train)
    return x + y


class Chain(nn.Module):
  """Rows of two parts."""

  factors: tuple[float, ...] = (1.0, 2.0, 3.0)
  widths: tuple[int, ...] = (4, 4, 4)
  scan: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    rows = [(Part(f, w), [Part()]) for f, w in zip(self.factors, self.widths)]

    def step(row, x):
      first, [second] = row
      x = second(first(x, train), train)
      return x, x.sum()

    return repeat.each(step, rows, x, self.scan)


def loops(function, *inputs) -> int:
  return sum(e.primitive.name == 'scan' for e in jax.make_jaxpr(function)(*inputs).eqns)


def near(found, expected, error):
  """Whether each leaf differs by so much of its own size: random weights amplify rounding."""
  found, expected = tree.flatten(found), tree.flatten(expected)
  assert found.keys() == expected.keys()
  for path, value in found.items():
    assert tiny.apart(value, expected[path]) <= error, path


@pytest.mark.parametrize('train', [False, True])
def test_a_loop_gives_each_part_its_own_values_gradients_and_statistics(train):
  values = filled.variables(Chain(), X)

  def step(scan, params):
    model, given = Chain(scan=scan), values | {'params': params}
    (x, last), moved = model.apply(given, X, train, mutable=['batch_stats'] if train else [])
    return jnp.sum(jnp.sin(x)) + last, {'x': {'x': x, 'last': last}} | moved

  run = lambda scan: jax.grad(functools.partial(step, scan), has_aux=True)(values['params'])
  (gradients, found), (expected_gradients, expected) = run(True), run(False)
  near(found, expected, 1e-5)
  near(gradients, expected_gradients, 1e-4)
  assert ('batch_stats' in found) == train
  assert loops(functools.partial(step, True), values['params']) == 1
  assert loops(functools.partial(step, False), values['params']) == 0


@pytest.mark.parametrize(
  'fields',
  [
    dict(scan=False),
    dict(factors=(1.0, 2.0), widths=(4, 4)),  # as long to compile as without
    dict(widths=(4, 4, 1)),  # another shape
  ],
)
def test_rows_that_are_few_or_differ_run_one_after_another(fields):
  model = Chain(**fields)
  values = filled.variables(model, X)
  assert loops(model.apply, values, X) == 0
  assert np.isfinite(model.apply(values, X)[0]).all()


def test_functions_run_one_after_another():
  add = lambda row, x: (row(x), row)
  x, last = repeat.each(add, [jnp.sin, jnp.cos, jnp.tanh], X, scan=True)
  np.testing.assert_allclose(x, jnp.tanh(jnp.cos(jnp.sin(X))), rtol=1e-6)
  assert last is jnp.tanh


def test_initial_values_do_not_depend_on_loops():
  key = jax.random.key(3)
  scanned, plain = (Chain(scan=scan).init(key, X) for scan in (True, False))
  jax.tree.map(np.testing.assert_array_equal, scanned, plain)


class Draws(nn.Module):
  """What three parts draw, one after another."""

  @nn.compact
  def __call__(self):
    keep = lambda part, drawn: (jnp.roll(drawn, 1).at[0].set(part(jnp.ones(1), True)[0]), None)
    return repeat.each(keep, [Chance() for _ in range(3)], jnp.zeros(3), scan=True)[0]


class Chance(nn.Module):
  """Adds a random number."""

  @nn.compact
  def __call__(self, x, train):
    return x + jax.random.normal(self.make_rng('drop_path'))


def test_each_part_of_a_loop_draws_by_itself():
  draw = lambda seed: np.asarray(Draws().apply({}, rngs={'drop_path': jax.random.key(seed)}))
  assert len(set(draw(0)) | set(draw(1))) == 6
  np.testing.assert_array_equal(draw(0), draw(0))


@pytest.mark.parametrize('backbone', ['swin', 'htsat', 'vit', 'clip'])
def test_blocks_of_a_stage_are_alike_unless_their_drop_paths_grow(backbone):
  vit = functools.partial(ViT, image=32, patch=8, width=8, heads=2)
  tower = functools.partial(clip.build_vision, 'custom', image=32, patch=8, width=8, heads=2)
  make = {'swin': tiny.swin, 'htsat': tiny.htsat, 'vit': vit, 'clip': tower}[backbone]
  heads = {'heads': (2,)} if backbone in ('swin', 'htsat') else {}
  x = jnp.zeros((1, 32 * 63) if backbone == 'htsat' else (1, 32, 32, 3))

  def alike(**fields):
    model = make(depths=(4,), **heads, **fields)
    bound = model.bind(jax.eval_shape(model.init, jax.random.key(0), x))
    return repeat.alike([[block] for block in bound.stages[0].blocks])

  assert alike(drop_path=0.0) and not alike(drop_path=0.1)


# The streams of real backbones, with windows that are shifted in every second block.


@pytest.mark.parametrize('remat', [None, 'cheap', 'blocks'])
def test_the_streams_of_a_stage_meet_in_one_loop(remat):
  rng = np.random.default_rng(1)
  video = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
  wave = jnp.asarray(rng.normal(size=(2, 32 * 63)), jnp.float32)
  shared = dict(heads=(2,), remat=remat)

  def model(scan):
    return DualEncoder(
      tiny.swin(depths=(9,), **shared),
      tiny.htsat(depths=(3,), **shared),
      functools.partial(Exchange, tiny.Small, remat=remat),
      scan_layers=scan,
    )

  values = filled.variables(model(False), video, wave)
  trainable, frozen = tree.split(values['params'], ('exchange_.*',))

  def step(scan, trainable):
    given = values | {'params': tree.merge(trainable, frozen)}
    found, moved = model(scan).apply(given, video, wave, True, mutable='batch_stats')
    loss = jnp.sum(jnp.sin(found.visual)) + jnp.sum(jnp.sin(found.audio))
    last = {name: getattr(found, name) for name in ('visual', 'audio', 'visual_map', 'audio_map')}
    return loss, last | moved

  def run(scan):
    return jax.jit(jax.grad(functools.partial(step, scan), has_aux=True))(trainable)

  (gradients, found), (expected_gradients, expected) = run(True), run(False)
  near(found, expected, 1e-3)
  near(gradients, expected_gradients, 1e-3)
  assert loops(functools.partial(step, True), trainable) == 1
