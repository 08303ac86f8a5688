"""The ladder: it reads frozen streams, changes nothing at first, and leaves the backbones alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import lazy
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.dual import DualEncoder, Encoded
from dgsct_jax.models.side import Ladder
from tests.models import filled, tiny


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def encoded(seed: int = 0) -> Encoded:
  """Two stages of both streams, of different sizes."""
  shapes = (3, 16, 6), (3, 4, 12), (3, 9, 5), (3, 7, 10)
  fine, coarse, low, high = (normal(*shape, seed=seed + i) for i, shape in enumerate(shapes))
  maps = jnp.ones((3, 1, 4)) / 4, jnp.ones((3, 1, 7)) / 7
  return Encoded(coarse, high, *maps, (fine, coarse), (low, high))


def ladder(**fields: Any) -> Ladder:
  return Ladder(**dict(width=8, tokens=3, stages=2) | fields)


def open_gates(variables: tree.Tree) -> tree.Tree:
  """Random values for what is zero at first: gates, and weights of pooling."""
  leaves = tree.flatten(variables)
  closed = [path for path in leaves if path.endswith(('_gate', '_pool'))]
  return tree.unflatten(leaves | {path: normal(*leaves[path].shape, seed=9) for path in closed})


def shut_gates(variables: tree.Tree) -> tree.Tree:
  """The values that gates and weights of pooling have at first."""
  leaves = tree.flatten(variables)
  closed = [path for path in leaves if path.endswith(('_gate', '_pool'))]
  return tree.unflatten(leaves | {path: np.zeros(leaves[path].shape) for path in closed})


@functools.cache
def opened(**fields: Any) -> tree.Tree:
  return open_gates(filled.variables(ladder(**fields), encoded()))


def run(frozen: Encoded, variables: tree.Tree | None = None, **fields: Any) -> Encoded:
  return jax.jit(ladder(**fields).apply)(variables or opened(**fields), frozen)


# Of the ladder alone.


def test_at_first_it_gives_what_it_gets():
  found = run(encoded(), shut_gates(opened()))
  jax.tree.map(np.testing.assert_array_equal, found, encoded())


def test_gates_start_from_zero():
  leaves = tree.flatten(lazy.init(ladder(), jax.random.key(0), encoded())['params'])
  closed = {path for path, x in leaves.items() if path.endswith(('_gate', '_pool'))}
  assert len(closed) == 8 and not any(np.any(leaves[path]) for path in closed)


def test_gates_that_are_zero_learn():
  def loss(variables):
    x = ladder().apply(variables, encoded())
    parts = x.visual, x.visual_map @ x.visual, x.audio, x.audio_map @ x.audio
    return sum(jnp.sum(normal(*part.shape, seed=5) * part) for part in parts)

  gradients = tree.flatten(jax.jit(jax.grad(loss))(shut_gates(opened())))
  last = [path for path in gradients if 'rung_1' in path and path.endswith(('_gate', '_pool'))]
  assert len(last) == 4 and all(np.abs(gradients[path]).max() > 1e-3 for path in last)


@pytest.mark.parametrize('heard', ['visual', 'audio'])
def test_each_stream_learns_what_the_other_is(heard):
  other = 'audio' if heard == 'visual' else 'visual'
  new = {name: getattr(encoded(seed=50), name) for name in (heard, f'{heard}_pyramid')}
  before, after = run(encoded()), run(encoded()._replace(**new))
  assert np.abs(getattr(after, other) - getattr(before, other)).max() > 1e-3
  found, expected = getattr(after, f'{other}_map'), getattr(before, f'{other}_map')
  assert np.abs(found - expected).max() > 1e-5


def test_an_earlier_stage_is_heard_of_by_way_of_the_tokens():
  fine, coarse = encoded().visual_pyramid
  changed = run(encoded()._replace(visual_pyramid=(normal(*fine.shape, seed=70), coarse)))
  same = run(encoded()._replace(visual_pyramid=(fine[:, ::-1], coarse)))
  assert np.abs(changed.audio - run(encoded()).audio).max() > 1e-4
  # Tokens have no places: those of another order say the same.
  np.testing.assert_allclose(same.audio, run(encoded()).audio, atol=1e-5)


def test_clips_do_not_meet():
  whole, first = run(encoded()), run(jax.tree.map(lambda x: x[:1], encoded()))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x[:1], y, atol=1e-5), tuple(whole), tuple(first)
  )


def test_pooling_weights_are_shares():
  found = run(encoded())
  for weights in (found.visual_map, found.audio_map):
    assert np.ptp(weights) > 1e-3 and np.min(weights) >= 0
    np.testing.assert_allclose(np.sum(weights, -1), 1, rtol=1e-5)


def test_the_last_of_the_pyramids_are_the_streams():
  found = run(encoded())
  np.testing.assert_array_equal(found.visual, found.visual_pyramid[-1])
  np.testing.assert_array_equal(found.audio, found.audio_pyramid[-1])


def test_stages_without_a_rung_stay_as_they_are():
  found, frozen = run(encoded(), stages=1), encoded()
  np.testing.assert_array_equal(found.visual_pyramid[0], frozen.visual_pyramid[0])
  np.testing.assert_array_equal(found.audio_pyramid[0], frozen.audio_pyramid[0])
  assert np.abs(found.visual - frozen.visual).max() > 1e-3
  assert {path.split('/')[0] for path in tree.flatten(opened(stages=1)['params'])} == {
    'rung_1',
    'tokens',
  }


def test_more_rungs_than_stages_are_refused():
  with pytest.raises(
    ValueError, match=r'stages=3, and the backbones have 2 stages; choose from 1 to 2'
  ):
    ladder(stages=3).init(jax.random.key(0), encoded())


@pytest.mark.parametrize('fields', [dict(width=6), dict(tokens=2), dict(stages=1)])
def test_every_field_is_read(fields):
  shapes = lambda values: {path: x.shape for path, x in tree.flatten(values).items()}
  assert shapes(opened(**fields)) != shapes(opened())


def test_it_computes_in_its_type():
  frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), encoded())
  found = run(frozen, opened(), dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
  exact = run(encoded())
  np.testing.assert_allclose(found.visual.astype(np.float32), exact.visual, atol=0.1)


# Beside backbones.

VIDEO, WAVE = normal(2, 32, 32, 3), normal(2, 32 * 31)


@functools.cache
def dual(system: str, depth: int = 2) -> DualEncoder:
  fields = dict(depths=(depth, 1))
  visual, audio = tiny.swin(**fields), tiny.htsat(**fields)
  if system == 'side':
    return DualEncoder(visual, audio, side=ladder)
  if system in ('dgsct', 'late'):
    adapter = functools.partial(DGSCTAdapter, reduction=2, tokens=3, batch_norm=False)
    stages = 1 if system == 'late' else 2
    return DualEncoder(visual, audio, functools.partial(Exchange, adapter), stages)
  return DualEncoder(visual, audio)


@functools.cache
def values(system: str, depth: int = 2) -> tree.Tree:
  return filled.variables(dual(system, depth), VIDEO, WAVE)


def test_at_first_the_encoder_is_the_frozen_one():
  """But for rounding: XLA fuses two programs differently. The ladder itself changes nothing."""
  apply = jax.jit(lambda values, model: model.apply(values, VIDEO, WAVE, True), static_argnums=1)
  found = apply(shut_gates(values('side')), dual('side'))
  expected = apply(values('none'), dual('none'))
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_its_frozen_half_is_that_of_the_encoder_without_adapters():
  none, side = (tree.flatten(values(system)['params']) for system in ('none', 'side'))
  assert none.keys() <= side.keys()
  assert all(path.startswith('exchange_side/') for path in side.keys() - none.keys())


def loss(params: tree.Tree, rest: tree.Tree, system: str, depth: int) -> jax.Array:
  variables = rest | {'params': tree.merge(params, rest['params'])}
  found = dual(system, depth).apply(variables, VIDEO, WAVE, True)
  return sum(jnp.sum(x**2) for x in jax.tree.leaves(found))


def test_no_gradient_reaches_a_backbone_even_if_it_is_trainable():
  rest = values('side') | {'params': {}}
  gradients = jax.jit(jax.grad(loss), static_argnums=(2, 3))(
    open_gates(values('side'))['params'], rest, 'side', 2
  )
  moved = {path for path, x in tree.flatten(gradients).items() if np.abs(x).max() > 0}
  assert moved and all(path.startswith('exchange_side/') for path in moved)


def flops(system: str, depth: int, step: bool) -> float:
  """Of the gradients of what is trained, or of the loss alone, before XLA optimises them."""
  leaves = tree.flatten(values(system, depth)['params'])
  ours = {path: x for path, x in leaves.items() if path.startswith('exchange_')}
  theirs = {path: x for path, x in leaves.items() if path not in ours}
  rest = values(system, depth) | {'params': tree.unflatten(theirs)}
  run = jax.jit(jax.value_and_grad(loss) if step else loss, static_argnums=(2, 3))
  return run.lower(tree.unflatten(ours), rest, system, depth).cost_analysis()['flops']


def test_a_step_runs_a_deeper_backbone_forward_only():
  """What a block more costs in a step is what it costs in a forward pass without adapters.

  Of adapters in the last stages alone, that holds for blocks before these.
  """
  more = lambda system, step: flops(system, 2, step) - flops(system, 1, step)
  forward = more('none', step=False)
  for system in ('side', 'late'):
    assert more(system, step=True) == pytest.approx(forward, rel=0.02), system
  assert more('dgsct', step=True) > 2 * forward
