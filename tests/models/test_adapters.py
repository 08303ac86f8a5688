"""Adapters: what each field of the DG-SCT adapter changes, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from dgsct_jax import tree
from dgsct_jax.models import adapters, lazy
from dgsct_jax.models.adapters import DGSCTAdapter
from tests.models import filled

B, N, M, D, E = 2, 9, 4, 8, 12
SMALL = dict(reduction=2, tokens=3)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, Y = normal(B, N, D), normal(B, M, E, seed=1)


def adapter(**fields) -> DGSCTAdapter:
  return DGSCTAdapter(**SMALL | fields)


def shapes(x: np.ndarray = X, y: np.ndarray = Y, **fields) -> dict[str, tuple[int, ...]]:
  values = filled.variables(adapter(**fields), x, y, train=False)
  return {path: leaf.shape for path, leaf in tree.flatten(values).items()}


@functools.partial(jax.jit, static_argnums=(0, 4))
def compiled(model: DGSCTAdapter, values: tree.Tree, x: jax.Array, y: jax.Array, train: bool):
  return model.apply(values, x, y, train, mutable='batch_stats')


def run(
  model: DGSCTAdapter, values: tree.Tree, x: np.ndarray = X, y: np.ndarray = Y
) -> tuple[np.ndarray, np.ndarray]:
  """The residual and the pooling map."""
  return jax.device_get(compiled(model, values, x, y, False)[0])


def inside(
  model: DGSCTAdapter, values: tree.Tree, x: np.ndarray = X, y: np.ndarray = Y
) -> dict[str, np.ndarray]:
  """What the adapter's methods return on the way."""
  apply = functools.partial(
    model.apply,
    train=False,
    mutable='intermediates',
    capture_intermediates=lambda module, method: module.name is None,
  )
  found = jax.device_get(jax.jit(apply)(values, x, y)[1]['intermediates'])
  return {method: returned for method, (returned,) in found.items()}


@pytest.fixture(scope='session')
def released() -> tuple[tree.Tree, np.ndarray, np.ndarray]:
  """Values of all variables, residual and map of the AVE adapter."""
  values = jax.device_get(filled.variables(adapter(), X, Y, train=False))
  return values, *run(adapter(), values)


# The function.


def test_the_adapter_computes_the_formulas_of_the_release(released):
  """Section 3.3 of the specification, written out in numpy."""
  values, residual, pooling = released
  p = values['params']
  linear = lambda name, x: x @ p[name]['kernel'] + p[name].get('bias', 0)
  relu = lambda x: np.maximum(x, 0)

  def layer_norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p[name]['scale'] + p[name]['bias']

  def batch_norm(name, x):
    mean, var = values['batch_stats'][name]['mean'], values['batch_stats'][name]['var']
    return (x - mean) / np.sqrt(var + 1e-5) * p[name]['scale'] + p[name]['bias']

  def grouped(name, x):
    parts = np.split(x, 2, -1)
    return np.concatenate([part @ kernel for part, kernel in zip(parts, p[name]['kernel'])], -1)

  for x, y, found, found_map in zip(X, Y, residual, pooling):
    c = p['token_map']['kernel'].T @ y + p['token_map']['bias'][:, None]
    c = linear('channel_map', c)
    t = p['tokens'] + softmax(p['tokens'] @ c.T, 1) @ c
    z = x + p['tokens_gate'] * (softmax(x @ t.T, 1) @ t)
    g = c.mean(0)
    q = (relu(linear('channel_guide', g)) * relu(linear('channel_own', z))).mean(0)
    channel = expit(linear('channel_out', relu(linear('channel_bottleneck', q))))
    u = z * (1 + channel)
    s = linear('spatial_out', relu(linear('spatial_own', u)) * relu(linear('spatial_guide', g)))
    np.testing.assert_allclose(found_map, softmax(np.tanh(s), 0).T, atol=1e-5)
    h = layer_norm('norm_before', z * (0.3 * channel + 0.05 * expit(s) + 1 - 0.3))
    h = batch_norm('bn_up', grouped('up', relu(batch_norm('bn_down', grouped('down', h)))))
    np.testing.assert_allclose(found, p['gate'] * layer_norm('norm_post', h), atol=1e-4)


def test_the_pooling_map_is_nearly_uniform(released):
  """As the tanh bounds its logits, no weight is more than e² times another."""
  *_, pooling = released
  assert pooling.shape == (B, 1, N)
  np.testing.assert_allclose(pooling.sum(-1), 1, rtol=1e-5)
  assert (pooling.max(-1) / pooling.min(-1) <= np.e**2 + 1e-3).all()


def test_clips_do_not_depend_on_one_another_in_evaluation(released):
  values, residual, pooling = released
  swapped, swapped_map = run(adapter(), values, X[::-1], Y[::-1])
  np.testing.assert_allclose(swapped[::-1], residual, atol=1e-5)
  np.testing.assert_allclose(swapped_map[::-1], pooling, atol=1e-6)


# Gates.


def test_a_zero_gate_gives_a_zero_residual_but_not_a_uniform_map():
  values = filled.variables(adapter(), X, Y, gates=0.0, train=False)
  residual, pooling = run(adapter(), values)
  np.testing.assert_array_equal(residual, 0)
  assert np.ptp(pooling) > 0.01


def test_a_zero_token_gate_leaves_the_latent_tokens_without_effect(released):
  values = filled.variables(adapter(), X, Y, gates=0.0, train=False)
  other = jax.tree.map(np.copy, values)
  other['params']['tokens'] += 1
  np.testing.assert_array_equal(run(adapter(), values)[1], run(adapter(), other)[1])


def test_new_adapters_start_with_zero_gates_and_tokens_between_zero_and_one():
  keep = lambda path: path.endswith(('gate', '/tokens'))
  start = lambda model: jax.device_get(
    lazy.init(model, jax.random.key(0), X, Y, keep=keep, train=False)['params']
  )
  params = start(adapter())
  assert params['gate'] == params['tokens_gate'] == 0
  tokens = params['tokens']
  assert 0 <= tokens.min() < 0.3 and 0.7 < tokens.max() < 1
  assert not start(adapter(token_init='zeros'))['tokens'].any()


def test_without_a_gate_the_audio_residual_has_unit_deviation_per_token():
  model = adapter(gate=False, batch_norm=False)
  values = filled.variables(model, X, Y, train=False)
  values['params']['norm_post'] = {'scale': np.ones(D, np.float32), 'bias': np.zeros(D, np.float32)}
  residual, _ = run(model, values)
  np.testing.assert_allclose(residual.std(-1), 1, rtol=2e-3)
  np.testing.assert_allclose(residual.mean(-1), 0, atol=1e-5)


def test_a_gate_before_the_norm_has_a_sign_but_no_size():
  model = adapter(gate_before_norm=True, batch_norm=False)
  values = filled.variables(model, X, Y, train=False)

  def at(gate):
    values['params']['gate'] = np.full(1, gate, np.float32)
    return run(model, values)[0]

  bias = np.asarray(values['params']['norm_post']['bias'])
  np.testing.assert_allclose(at(500.0), at(50.0), atol=1e-4)
  np.testing.assert_allclose(at(-50.0) - bias, bias - at(50.0), atol=1e-4)
  np.testing.assert_array_equal(at(0.0), np.broadcast_to(bias, (B, N, D)))


def test_a_gate_after_the_norm_scales_the_residual(released):
  values, residual, _ = released
  doubled = jax.tree.map(np.copy, values)
  doubled['params']['gate'] *= 2
  np.testing.assert_allclose(run(adapter(), doubled)[0], 2 * residual, rtol=1e-5)


# Fields: which parameters they bring, and that they act.

EFFECTS = {  # field -> parameters it adds and takes away
  'alpha': (dict(alpha=0.6), set(), set()),
  'beta': (dict(beta=3.0), set(), set()),
  'gamma': (dict(gamma=0.5), {'temporal_gate/kernel', 'temporal_gate/bias'}, set()),
  'formula': (dict(formula='paper'), set(), set()),
  'batch_norm': (
    dict(batch_norm=False),
    set(),
    {'bn_down/scale', 'bn_down/bias', 'bn_up/scale', 'bn_up/bias'},
  ),
  'gate': (dict(gate=False), set(), {'gate'}),
  'gate_before_norm': (dict(gate_before_norm=True), set(), set()),
  'norm_before': (dict(norm_before=False), set(), {'norm_before/scale', 'norm_before/bias'}),
  'token_map': (dict(token_map='resize'), set(), {'token_map/kernel', 'token_map/bias'}),
  'token_map=keep': (dict(token_map='keep'), set(), {'token_map/kernel', 'token_map/bias'}),
}


@pytest.mark.parametrize('field', EFFECTS)
def test_a_field_changes_the_residual_and_only_its_own_parameters(field, released):
  fields, added, removed = EFFECTS[field]
  values, residual, _ = released
  model = adapter(**fields)
  own = filled.variables(model, X, Y, train=False)
  before, after = (set(tree.flatten(v['params'])) for v in (values, own))
  assert (after - before, before - after) == (added, removed)
  for path in before & after:  # filled by path and shape alone
    np.testing.assert_array_equal(
      tree.flatten(own['params'])[path], tree.flatten(values['params'])[path]
    )
  assert ('batch_stats' in own) == model.batch_norm
  assert np.abs(run(model, own)[0] - residual).max() > 1e-4


@pytest.mark.parametrize(
  'fields, expected',
  [
    (dict(reduction=4), {'down/kernel': (2, 4, 1), 'up/kernel': (2, 1, 4)}),
    (dict(groups=4), {'down/kernel': (4, 2, 1), 'up/kernel': (4, 1, 2)}),
    (dict(tokens=5), {'tokens': (5, 8)}),
    (
      dict(gate_reduction=2),
      {
        'channel_own/kernel': (8, 4),
        'channel_own/bias': (4,),
        'channel_guide/kernel': (8, 4),
        'channel_guide/bias': (4,),
        'channel_bottleneck/kernel': (4, 2),
        'channel_bottleneck/bias': (2,),
        'channel_out/kernel': (2, 8),
        'spatial_own/kernel': (8, 2),
        'spatial_own/bias': (2,),
        'spatial_guide/kernel': (8, 2),
        'spatial_guide/bias': (2,),
        'spatial_out/kernel': (2, 1),
      },
    ),
  ],
)
def test_a_size_changes_its_own_shapes(fields, expected):
  before, after = shapes(batch_norm=False), shapes(batch_norm=False, **fields)
  changed = {path: shape for path, shape in after.items() if before[path] != shape}
  assert before.keys() == after.keys()
  assert changed == {f'params/{path}': shape for path, shape in expected.items()}


def test_tokens_that_stay_are_those_that_an_identity_maps():
  y = normal(B, N, E, seed=3)
  values = filled.variables(adapter(), X, y, train=False)
  values['params']['token_map'] = {'kernel': np.eye(N), 'bias': np.zeros(N)}
  found, expected = (run(adapter(token_map=name), values, y=y) for name in ('keep', 'linear'))
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_gates_without_channels_are_refused():
  with pytest.raises(ValueError, match=r'gate_reduction=5 leaves fewer than two of 8 channels'):
    shapes(gate_reduction=5)


@pytest.mark.parametrize(
  'fields, count',
  [
    (dict(), 188_538_816),
    (dict(token_map='keep'), 107_382_384),
    (dict(token_map='keep', gate_reduction=2), 61_502_832),
  ],
)
def test_all_adapters_of_the_full_size_model_together(fields, count):
  """Swin-V2-L × HTS-AT: two exchanges in each of 2, 2, 6 and 2 blocks."""
  stages = [(2, 2304, 192, 4096, 96), (2, 576, 384, 1024, 192), (6, 144, 768, 256, 384)]
  stages += [(2, 36, 1536, 64, 768)]
  init, total = functools.partial(DGSCTAdapter(**fields).init, train=False), 0
  for blocks, n, d, m, e in stages:
    v, a = (jax.ShapeDtypeStruct((1, *size), jnp.float32) for size in ((n, d), (m, e)))
    for x, y in ((v, a), (a, v)):
      params = jax.eval_shape(init, jax.random.key(0), x, y)['params']
      total += 2 * blocks * tree.count(params)
  assert total == count


def test_a_zero_gamma_leaves_the_temporal_gate_out():
  assert shapes(gamma=0.0) == shapes()


@pytest.mark.parametrize(
  'fields, count',
  [
    (dict(), 9_501_980 - 1),  # less `gate_tk`, which nothing reads
    (dict(groups=4, tokens=2, batch_norm=False, gate=False), 9_498_306),
  ],
)
def test_a_full_size_adapter_has_the_released_number_of_parameters(fields, count):
  own, other = (jax.ShapeDtypeStruct((1, *size), jnp.float32) for size in ((4096, 96), (2304, 192)))
  init = functools.partial(DGSCTAdapter(**fields).init, train=False)
  assert tree.count(jax.eval_shape(init, jax.random.key(0), own, other)['params']) == count


def test_unmodulated_adapters_have_neither_channel_nor_spatial_gate():
  """α = β = 0 leaves the tokens as they are: then the guide acts through the latents alone."""
  model = adapter(alpha=0.0, beta=0.0)
  values = filled.variables(model, X, Y, gates=1.0, train=False)
  values['params']['tokens_gate'] = np.zeros(1, np.float32)
  np.testing.assert_allclose(run(model, values)[0], run(model, values, X, -3 * Y)[0], atol=1e-5)


@pytest.mark.parametrize('formula', ['released', 'paper'])
@pytest.mark.parametrize('gamma', [0.0, 0.5])
def test_the_modulation_is_the_stated_formula(formula, gamma):
  model = adapter(formula=formula, gamma=gamma)
  values = jax.device_get(filled.variables(model, X, Y, train=False))
  found = inside(model, values)
  time = 0
  if gamma:
    gate = values['params']['temporal_gate']
    time = expit(found['attend_latents'][1] @ gate['kernel'] + gate['bias'])[:, None]
  gates = 0.3 * found['channel_gate'] + 0.05 * expit(found['spatial_logits'])
  expected = gates + gamma * time + 1 - 0.3
  if formula == 'paper':
    expected = (gates + 1) * (gamma * time + 1)
  np.testing.assert_allclose(found['modulation'], expected, atol=1e-6)


# Training.


def test_tokens_from_zeros_stay_equal_and_those_from_noise_do_not():
  model = adapter(batch_norm=False)
  params = filled.variables(model, X, Y, train=False)['params']

  def loss(params, x, y):
    residual, pooling = model.apply({'params': params}, x, y, True)
    return jnp.sum(residual * normal(B, N, D, seed=2)) + jnp.sum(pooling * normal(B, 1, N))

  @jax.jit
  def step(params, *inputs):
    gradients = jax.grad(loss)(params, *inputs)
    return jax.tree.map(lambda x, gradient: x - 0.01 * gradient, params, gradients)

  def learn(tokens):
    learned = params | {'tokens': tokens}
    for _ in range(10):
      learned = step(learned, X, Y)
    return np.asarray(learned['tokens'])

  from_zeros, from_noise = learn(np.zeros((3, D), np.float32)), learn(params['tokens'])
  assert np.abs(from_zeros).min() > 1e-4
  assert np.ptp(from_zeros, 0).max() < 1e-6
  assert np.ptp(from_noise, 0).min() > 1e-2


def test_training_normalises_by_the_batch_and_moves_statistics(released):
  values, residual, _ = released
  (trained, _), moved = jax.device_get(compiled(adapter(), values, X, Y, True))
  assert np.abs(trained - residual).max() > 1e-3
  before, after = tree.flatten(values['batch_stats']), tree.flatten(moved['batch_stats'])
  assert before.keys() == after.keys() and len(before) == 4
  for path in before:
    assert np.abs(before[path] - after[path]).min() > 0


def test_bfloat16_is_near_float32_and_keeps_float32_parameters(released):
  values, residual, pooling = released
  model = adapter(dtype=jnp.bfloat16)
  init = functools.partial(model.init, train=False)
  initial = jax.eval_shape(init, jax.random.key(0), X, Y)
  assert {x.dtype for x in jax.tree.leaves(initial)} == {jnp.dtype('float32')}
  low, low_map = run(model, values, X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16))
  assert low.dtype == low_map.dtype == jnp.bfloat16
  for found, expected in ((low, residual), (low_map, pooling)):
    error = found.astype(np.float32) - expected
    assert np.square(error).mean() ** 0.5 < 0.05 * np.square(expected).mean() ** 0.5


# Exchanges.


def test_an_exchange_adapts_each_stream_by_the_other():
  model = adapters.Exchange(functools.partial(DGSCTAdapter, **SMALL))
  values = filled.variables(model, X, Y, train=False)
  assert set(values['params']) == {'visual', 'audio'}
  (dv, da), maps = jax.jit(functools.partial(model.apply, train=False))(values, X, Y)
  side = lambda name: {kind: tree[name] for kind, tree in values.items()}
  for found, expected in (
    ((dv, maps[0]), run(adapter(), side('visual'), X, Y)),
    ((da, maps[1]), run(adapter(), side('audio'), Y, X)),
  ):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_the_audio_side_may_have_an_adapter_of_its_own():
  make = functools.partial(DGSCTAdapter, **SMALL)
  model = adapters.Exchange(make, functools.partial(make, gate=False))
  params = filled.variables(model, X, Y, train=False)['params']
  assert 'gate' in params['visual'] and 'gate' not in params['audio']


def test_no_exchange_gives_zeros_and_uniform_maps():
  apply = jax.jit(functools.partial(adapters.NoExchange().apply, train=False))
  (dv, da), (v_map, a_map) = jax.device_get(apply({}, X, Y))
  assert dv.shape == X.shape and not dv.any() and da.shape == Y.shape and not da.any()
  np.testing.assert_allclose(v_map, np.full((B, 1, N), 1 / N), rtol=1e-6)
  np.testing.assert_allclose(a_map @ Y, Y.mean(1, keepdims=True), atol=1e-6)
