"""Layers against torch, and what their constants mean."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax.models import layers

KEY = jax.random.key(0)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(x: np.ndarray) -> Any:
  return pytest.importorskip('torch').tensor(x)


def begin(layer: nn.Module, x: np.ndarray, **kwargs: Any) -> tuple[Any, dict]:
  """What a new layer returns, and its variables."""
  return jax.device_get(jax.jit(functools.partial(layer.init_with_output, **kwargs))(KEY, x))


def shapes(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Any, dict]:
  return jax.eval_shape(layer.init_with_output, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_batch_norm_equals_torch_in_training_and_evaluation():
  torch = pytest.importorskip('torch')
  theirs = torch.nn.BatchNorm1d(4)
  theirs.weight.data = tensor(normal(4, seed=1))
  theirs.bias.data = tensor(normal(4, seed=2))
  run = jax.jit(
    functools.partial(layers.BatchNorm().apply, mutable='batch_stats'), static_argnums=2
  )
  variables = {
    'params': {'scale': normal(4, seed=1), 'bias': normal(4, seed=2)},
    'batch_stats': {'mean': np.zeros(4, np.float32), 'var': np.ones(4, np.float32)},
  }
  for step in range(3):
    x = 3 + 2 * normal(2, 5, 4, seed=step)
    expected = theirs(tensor(x).swapaxes(1, 2)).swapaxes(1, 2).detach()
    y, moved = run(variables, x, True)
    variables |= moved
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(moved['batch_stats']['mean'], theirs.running_mean, rtol=1e-5)
    np.testing.assert_allclose(moved['batch_stats']['var'], theirs.running_var, rtol=1e-5)
  theirs.eval()
  expected = theirs(tensor(x).swapaxes(1, 2)).swapaxes(1, 2).detach()
  np.testing.assert_allclose(run(variables, x, False)[0], expected, atol=1e-5)


def test_batch_norm_keeps_its_statistics_in_evaluation_and_while_initialising():
  ours = layers.BatchNorm()
  x = 5 + normal(7, 3)
  _, variables = begin(ours, x, train=True)
  np.testing.assert_array_equal(variables['batch_stats']['mean'], 0)
  np.testing.assert_array_equal(variables['batch_stats']['var'], 1)
  run = jax.jit(functools.partial(ours.apply, train=False, mutable='batch_stats'))
  _, moved = run(variables, x)
  jax.tree.map(np.testing.assert_array_equal, moved['batch_stats'], variables['batch_stats'])


def test_batch_norm_computes_in_float32_whatever_it_returns():
  x = 1000 + normal(64, 2)
  ours = layers.BatchNorm(dtype=jnp.bfloat16)
  _, variables = begin(ours, x, train=True)
  run = jax.jit(functools.partial(ours.apply, train=True, mutable='batch_stats'))
  y, _ = jax.device_get(run(variables, x))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(np.float32).std(0), 1, rtol=1e-2)


def test_layer_norm_equals_torch_far_from_zero():
  torch = pytest.importorskip('torch')
  x = 300 + normal(5, 16)
  expected = torch.nn.functional.layer_norm(tensor(x), (16,))
  np.testing.assert_allclose(begin(layers.LayerNorm(), x)[0], expected, atol=1e-3)
  tiny = np.float32(1e-3) * normal(5, 16)  # where epsilon decides
  expected = torch.nn.functional.layer_norm(tensor(tiny), (16,))
  np.testing.assert_allclose(begin(layers.LayerNorm(), tiny)[0], expected, rtol=1e-4, atol=1e-6)


def test_the_gradients_of_layer_norm_are_those_of_torch():
  torch = pytest.importorskip('torch')
  x, weights = 3 + normal(5, 16), normal(5, 16, seed=1)
  theirs, norm = tensor(x).requires_grad_(), torch.nn.LayerNorm(16)
  (torch.sin(norm(theirs)) * tensor(weights)).sum().backward()
  ours = layers.LayerNorm()
  _, variables = begin(ours, x)

  def loss(variables, x):
    return jnp.sum(jnp.sin(ours.apply(variables, x)) * weights)

  of_variables, of_x = jax.jit(jax.grad(loss, (0, 1)))(variables, x)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  near(of_x, theirs.grad)
  near(of_variables['params']['scale'], norm.weight.grad)
  near(of_variables['params']['bias'], norm.bias.grad)


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_gelu_is_computed_apart_on_cpus_alone(platform):
  """Accelerators take it into a product at no cost."""
  traced = jax.jit(layers.gelu).trace(jnp.ones((2, 4)))
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ('optimization_barrier' in program) == (platform == 'cpu')


def test_gelu_is_the_exact_one():
  torch = pytest.importorskip('torch')
  x = np.linspace(-6, 6, 200, dtype=np.float32)
  np.testing.assert_allclose(
    jax.jit(layers.gelu)(x), torch.nn.functional.gelu(tensor(x)), atol=1e-6
  )


@pytest.mark.parametrize('norm_first', [True, False])
def test_patch_merging_joins_neighbours_column_before_row(norm_first):
  h, w, d = 4, 6, 3
  x = normal(2, h * w, d)
  merge = layers.PatchMerging((h, w), norm_first)
  found, variables = begin(merge, x)
  grid = x.reshape(2, h, w, d)
  parities = [grid[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
  joined = np.concatenate(parities, -1).reshape(2, h * w // 4, 4 * d)
  normed = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  kernel = variables['params']['reduction']['kernel']
  expected = normed(joined) @ kernel if norm_first else normed(joined @ kernel)
  assert kernel.shape == (4 * d, 2 * d)
  assert variables['params']['norm']['scale'].shape == (4 * d if norm_first else 2 * d,)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_patches_follow_one_another_row_by_row():
  x = normal(1, 8, 12, 3)
  found, variables = begin(layers.PatchEmbed(5), x)
  kernel, bias = variables['params']['proj']['kernel'], variables['params']['proj']['bias']
  assert kernel.shape == (4, 4, 3, 5)
  image = x[0]
  patches = [
    np.einsum('hwc,hwcd->d', image[i : i + 4, j : j + 4], kernel) + bias
    for i in (0, 4)
    for j in (0, 4, 8)
  ]
  norm = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(found[0], norm(np.stack(patches)), atol=1e-4)


def test_dense_starts_uniform_within_one_over_the_root_of_its_inputs():
  params = begin(layers.Dense(500), np.ones((1, 16), np.float32))[1]['params']
  for values in params.values():
    assert np.abs(values).max() <= 0.25
    assert np.abs(values).max() > 0.24
    assert values.std() == pytest.approx(0.25 / 3**0.5, rel=0.06)


def test_dense_without_bias_has_none():
  _, variables = shapes(layers.Dense(2, use_bias=False), (1, 3))
  assert set(variables['params']) == {'kernel'}


def test_dense_computes_in_its_dtype_and_keeps_float32_parameters():
  y, variables = shapes(layers.Dense(4, dtype=jnp.bfloat16), (1, 3))
  assert y.dtype == jnp.bfloat16
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_mlp_is_wider_by_its_ratio():
  params = shapes(layers.Mlp(3.0), (1, 4))[1]['params']
  assert params['fc1']['kernel'].shape == (4, 12) and params['fc2']['kernel'].shape == (12, 4)
