"""The LAVISH adapter: its formulas, gates and variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models.adapters import DGSCTAdapter
from dgsct_jax.models.lavish import LavishAdapter
from tests.models import filled

B, N, M, D = 2, 9, 4, 8


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, Y, WIDE = normal(B, N, D), normal(B, M, D, seed=1), normal(B, M, 12, seed=2)


def adapter(**fields) -> LavishAdapter:
  return LavishAdapter(**dict(reduction=2, tokens=3, batch_norm=False) | fields)


def run(model: LavishAdapter, values: tree.Tree, x=X, y=Y, train: bool = False) -> np.ndarray:
  apply = jax.jit(lambda values, x, y: model.apply(values, x, y, train, mutable='batch_stats')[0])
  residual, pooling = apply(values, x, y)
  np.testing.assert_allclose(pooling, np.full((B, 1, x.shape[1]), 1 / x.shape[1]), rtol=1e-6)
  return np.asarray(residual)


def paths(model: LavishAdapter, x=X, y=Y) -> set[str]:
  return set(tree.flatten(filled.variables(model, x, y, train=False)['params']))


def test_the_adapter_computes_the_formulas_of_the_paper():
  model = adapter(token_gate=True)
  values = filled.variables(model, X, Y, train=False)
  p = values['params']
  softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p[name]['scale'] + p[name]['bias']

  def grouped(name, x):
    parts = np.split(x, 2, -1)
    return np.concatenate([part @ kernel for part, kernel in zip(parts, p[name]['kernel'])], -1)

  for x, y, found in zip(np.asarray(X), np.asarray(Y), run(model, values)):
    latents = p['tokens'] + p['read_gate'] * (softmax(p['tokens'] @ y.T) @ y)
    x = x + p['tokens_gate'] * (softmax(x @ latents.T) @ latents)
    x = grouped('up', np.maximum(grouped('down', norm('norm_before', x)), 0))
    np.testing.assert_allclose(found, p['gate'] * norm('norm_post', x), atol=1e-5)


@pytest.mark.parametrize('gate', [True, False])
def test_only_a_zero_gate_makes_it_silent(gate):
  model = adapter(gate=gate)
  residual = run(model, filled.variables(model, X, Y, gates=0.0, train=False))
  assert residual.any() != gate


def test_behind_a_norm_the_size_of_the_gate_is_without_effect():
  model = adapter(gate_before_norm=True)
  values = filled.variables(model, X, Y, train=False)
  gate = lambda g: {'params': values['params'] | {'gate': np.full(1, g, np.float32)}}
  np.testing.assert_allclose(run(model, gate(50.0)), run(model, gate(500.0)), atol=1e-4)


@pytest.mark.parametrize(
  'fields, without',
  [
    (dict(cross_modal=False), {'tokens', 'tokens_gate'}),
    (dict(norm_before=False), {'norm_before/scale', 'norm_before/bias'}),
    (dict(norm_post=False), {'norm_post/scale', 'norm_post/bias'}),
    (dict(gate=False), {'gate'}),
    (dict(relu=False), set()),
    (dict(gate_before_norm=True), set()),
  ],
)
def test_a_variant_changes_the_residual_and_only_its_own_parameters(fields, without):
  assert paths(adapter()) - paths(adapter(**fields)) == without
  assert paths(adapter(**fields)) <= paths(adapter())
  values = filled.variables(adapter(), X, Y, train=False)
  changed = run(adapter(**fields), values)
  assert np.abs(changed - run(adapter(), values)).max() > 1e-3


def test_alone_a_stream_does_not_hear_the_other():
  model = adapter(cross_modal=False)
  values = filled.variables(model, X, Y, train=False)
  np.testing.assert_array_equal(run(model, values), run(model, values, y=2 * Y))


def test_without_norms_and_relu_and_the_other_stream_it_is_linear():
  model = adapter(cross_modal=False, relu=False, norm_before=False, norm_post=False)
  values = filled.variables(model, X, Y, train=False)
  np.testing.assert_allclose(run(model, values, x=2 * X), 2 * run(model, values), rtol=1e-5)


def test_tokens_of_another_width_are_mapped_and_others_are_not():
  maps = {'channel_map/kernel', 'channel_map/bias', 'token_map/kernel', 'token_map/bias'}
  assert paths(adapter(), y=WIDE) - paths(adapter()) == maps
  model = adapter()
  assert run(model, filled.variables(model, X, WIDE, train=False), y=WIDE).shape == X.shape


def test_its_parameters_are_among_those_of_dgsct():
  dgsct = DGSCTAdapter(reduction=2, tokens=3, batch_norm=False)
  both = lambda model: {
    path: x.shape for path, x in tree.flatten(filled.variables(model, X, WIDE, train=False)).items()
  }
  assert both(adapter()).items() <= both(dgsct).items()


def test_adapters_of_the_released_ave_model_have_the_published_size():
  """2 111 952 in each of four lists over the 24 blocks of Swin-V2-L."""
  blocks = [192] * 2 + [384] * 2 + [768] * 18 + [1536] * 2

  def count(d):
    x = jax.ShapeDtypeStruct((1, 4, d), jnp.float32)
    init = lambda: LavishAdapter().init(
      jax.random.key(0), jnp.zeros(x.shape), jnp.zeros(x.shape), False
    )
    return tree.count(jax.eval_shape(init)['params'])

  assert sum(map(count, blocks)) == 2_111_952


def test_latents_from_zeros_stay_equal():
  model = adapter()
  params = filled.variables(model, X, Y, train=False)['params']
  params |= {'tokens': np.zeros((3, D), np.float32)}

  @jax.jit
  def step(params):
    loss = lambda params: jnp.sum(model.apply({'params': params}, X, Y, True)[0] * normal(B, N, D))
    return jax.tree.map(lambda x, gradient: x - 0.1 * gradient, params, jax.grad(loss)(params))

  for _ in range(5):
    params = step(params)
  tokens = np.asarray(params['tokens'])
  assert np.abs(tokens).max() > 1e-4 and np.ptp(tokens, 0).max() < 1e-6
