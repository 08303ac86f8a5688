"""The released recipe to the digit, and what accumulation means."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from dgsct_jax import optim, sharding


def config(**changes):
  return ml_collections.ConfigDict(
    dict(
      name='adam',
      lr=5e-4,
      schedule='step',
      decay_epochs=3,
      decay_rate=0.35,
      epochs=50,
      patience=20,
      warmup_steps=0,
      accumulate=1,
      clip_norm=0.0,
      weight_decay=0.0,
      lr_by_path=(),
    )
    | changes
  )


PARAMS = {'exchange_0': {'kernel': jnp.array([[1.0, -2.0]])}, 'head': {'bias': jnp.array([0.5])}}


def gradient(i):
  return jax.tree.map(lambda p: jnp.cos(p * (i + 1.3)), PARAMS)


def run(tx, steps, gradients=gradient):
  """Parameters after each step."""
  params, state, trail = PARAMS, tx.init(PARAMS), []
  update = jax.jit(tx.update)
  for i in range(steps):
    updates, state = update(gradients(i), state, params)
    params = optax.apply_updates(params, updates)
    trail.append(params)
  return trail


def close(a, b, rtol=1e-6):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


def differ(a, b):
  return any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_released_learning_rates_of_ave_and_avqa():
  rate = optim.schedule(config(), 418)
  epochs = {1: 5e-4, 3: 5e-4, 4: 1.75e-4, 7: 6.125e-5, 10: 2.14375e-5}
  for epoch, expected in epochs.items():
    for step in ((epoch - 1) * 418, epoch * 418 - 1):
      np.testing.assert_allclose(rate(step), expected, rtol=1e-5)
  rate = optim.schedule(config(lr=1e-4, decay_epochs=8, decay_rate=0.1), 10)
  np.testing.assert_allclose(
    [rate((e - 1) * 10) for e in (8, 9, 17)], [1e-4, 1e-5, 1e-6], rtol=1e-5
  )


def test_cosine_ends_at_zero_and_constant_stays():
  rate = optim.schedule(config(schedule='cosine', epochs=4), 5)
  np.testing.assert_allclose([rate(0), rate(10), rate(20)], [5e-4, 2.5e-4, 0], atol=1e-10)
  np.testing.assert_allclose(optim.schedule(config(schedule='constant'), 5)(99), 5e-4)


def test_warm_up_rises_to_the_schedule():
  rate = optim.schedule(config(schedule='constant', warmup_steps=4), 5)
  np.testing.assert_allclose([rate(0), rate(1), rate(3), rate(9)], [1.25e-4, 2.5e-4, 5e-4, 5e-4])


def test_adam_matches_torch():
  torch = pytest.importorskip('torch')
  theirs = [torch.nn.Parameter(torch.tensor(np.array(p))) for p in jax.tree.leaves(PARAMS)]
  adam = torch.optim.Adam(theirs, lr=5e-4)
  steps = torch.optim.lr_scheduler.StepLR(adam, 3, 0.35)
  ours = run(optim.build(config(), 2)[0], 14)
  for i in range(14):
    for p, g in zip(theirs, jax.tree.leaves(gradient(i))):
      p.grad = torch.tensor(np.array(g))
    adam.step()
    if i % 2 == 1:  # the end of an epoch of two batches
      steps.step()
  for p, q in zip(theirs, jax.tree.leaves(ours[-1])):
    np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-5)


def test_accumulating_four_batches_is_one_update_with_their_mean_gradient():
  accumulated = run(optim.build(config(accumulate=4, schedule='constant', clip_norm=0.3), 4)[0], 8)
  assert not differ(accumulated[2], PARAMS)
  mean = lambda i: jax.tree.map(lambda *g: sum(g) / 4, *(gradient(4 * i + j) for j in range(4)))
  at_once = run(optim.build(config(schedule='constant', clip_norm=0.3), 1)[0], 2, mean)
  close(accumulated[3], at_once[0])
  close(accumulated[7], at_once[1])


def test_released_accumulation_takes_every_second_batch_and_the_last_of_an_epoch_alone():
  changes = dict(accumulate='released', decay_epochs=1)
  trail = run(optim.build(config(**changes), 5)[0], 10)  # batches 1 3 4 | 6 8 9 count
  before = [PARAMS] + trail[:-1]
  assert [differ(a, b) for a, b in zip(before, trail)] == [
    False,
    True,
    False,
    True,
    True,
    False,
    True,
    False,
    True,
    True,
  ]
  used = [1, 3, 4, 6, 8, 9]
  tx, _ = optim.build(config(schedule='constant', lr=1.0), 5)
  params, state = PARAMS, tx.init(PARAMS)
  for i in used:
    updates, state = tx.update(gradient(i), state, params)
    rate = 5e-4 * 0.35 ** (i // 5)  # the rate of the batch's epoch, not of the number of updates
    params = jax.tree.map(lambda p, u: p + rate * u, params, updates)
  close(trail[-1], params)


def test_released_accumulation_of_lavish_takes_some_batches_twice():
  """Every eighth of an epoch of eleven, and the last."""
  twice = lambda i: i % 11 in (7, 10)
  tx, _ = optim.build(config(accumulate='released_lavish', schedule='constant'), 11)
  plain, _ = optim.build(config(schedule='constant'), 11)
  found, state = PARAMS, tx.init(PARAMS)
  wanted, other = PARAMS, plain.init(PARAMS)
  for i in range(23):
    updates, state = tx.update(gradient(i), state, found)
    found = optax.apply_updates(found, updates)
    for _ in range(1 + twice(i)):
      updates, other = plain.update(gradient(i), other, wanted)
      wanted = optax.apply_updates(wanted, updates)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


def test_learning_rate_multipliers_go_by_path():
  plain = run(optim.build(config(), 10)[0], 1)[0]
  scaled = run(optim.build(config(lr_by_path=(('head/.*', 0.1), ('exchange_.*', 0.0))), 10)[0], 1)[
    0
  ]
  np.testing.assert_array_equal(scaled['exchange_0']['kernel'], PARAMS['exchange_0']['kernel'])
  moved = lambda p: p['head']['bias'] - PARAMS['head']['bias']
  np.testing.assert_allclose(moved(scaled), 0.1 * moved(plain), rtol=1e-3)


def test_a_multiplier_that_matches_nothing_stops_at_the_start():
  tx, _ = optim.build(config(lr_by_path=(('mlp_class/.*', 0.01),)), 10)
  with pytest.raises(ValueError, match="config.optim.lr_by_path: 'mlp_class/.*' matches no"):
    tx.init(PARAMS)


def test_clipping_bounds_the_gradient_norm():
  tx, _ = optim.build(config(name='adamw', clip_norm=1e-9, schedule='constant', lr=1.0), 10)
  # Adam undoes a constant factor except through its eps of 1e-8, which shows here.
  moved = jax.tree.map(jnp.subtract, run(tx, 1)[0], PARAMS)
  assert optax.tree.norm(moved) < 0.2


def test_weight_decay_is_decoupled():
  zero = lambda i: jax.tree.map(jnp.zeros_like, PARAMS)
  tx, _ = optim.build(config(name='adamw', weight_decay=0.5, schedule='constant', lr=0.1), 10)
  close(run(tx, 1, zero)[0], jax.tree.map(lambda p: p * 0.95, PARAMS))


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(name='sgd'), "optim.name='sgd'; choose 'adam' or 'adamw'"),
    (dict(schedule='linear'), "optim.schedule='linear'; choose"),
    (dict(accumulate=0), 'optim.accumulate=0; choose'),
    (dict(accumulate='real'), "optim.accumulate='real'; choose"),
    (dict(weight_decay=0.1), "weight_decay=0.1 has no effect with config.optim.name='adam'"),
  ],
)
def test_wrong_values_are_named_with_the_choices(changes, message):
  with pytest.raises(ValueError, match=message):
    optim.build(config(**changes), 10)


@pytest.mark.parametrize('sizes', [(), (1,), (3, optim.SMALL), (optim.SMALL + 1,), (5, 2**17, 7)])
def test_the_norm_is_that_of_all_leaves_together(sizes):
  rng = np.random.default_rng(0)
  leaves = [rng.normal(size=size).astype(np.float32) for size in sizes]
  gradients = {str(i): {'kernel': jnp.asarray(leaf)} for i, leaf in enumerate(leaves)}
  wanted = np.linalg.norm(np.concatenate([np.zeros(1), *leaves]))
  np.testing.assert_allclose(jax.jit(optim.norm)(gradients), wanted, rtol=1e-5)


@pytest.mark.parametrize('limit', [0.1, 1.9, 100.0])
def test_clipping_is_that_of_optax(limit):
  ours, theirs = (
    tx.update(gradient(1), tx.init(PARAMS))[0]
    for tx in (optim.clip(limit), optax.clip_by_global_norm(limit))
  )
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), ours, theirs)


def test_a_small_leaf_is_never_split():
  """Else `norm` would gather it."""
  assert optim.SMALL * 4 <= sharding.SPLIT_BYTES
