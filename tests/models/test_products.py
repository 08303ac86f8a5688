import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models.products import match, matmul

NAMES = {'float32': 'f32', 'bfloat16': 'bf16'}  # in lowered programs

# Every kind of product of the models: the function, the same by einsum, and two shapes.
PRODUCTS = [
  pytest.param(matmul, '...k,kn->...n', (2, 3, 5, 64), (64, 4), id='a linear layer'),
  pytest.param(matmul, 'bwmk,bwkn->bwmn', (2, 3, 5, 64), (2, 3, 64, 4), id='what attention reads'),
  pytest.param(
    match, 'bwmk,bwnk->bwmn', (2, 3, 5, 64), (2, 3, 7, 64), id='what attention compares'
  ),
  pytest.param(match, '...k,nk->...n', (2, 3, 64), (5, 64), id='common rows'),
]


def draw(*shapes, dtype):
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.normal(1, 1, shape), dtype) for shape in shapes]


def with_gradients(product, x, y, g):
  found, back = jax.vjp(product, x, y)
  return found, *back(g)


def types(program):
  """Of both arrays and the result, for each product of a lowered program."""
  lines = [line for line in program.splitlines() if 'dot_general' in line]
  return [re.findall(r'tensor<[^>]*?(bf16|f32)>', line) for line in lines]


@pytest.mark.parametrize('product, subscripts, of_x, of_y', PRODUCTS)
def test_float32_is_as_by_einsum(product, subscripts, of_x, of_y):
  x, y = draw(of_x, of_y, dtype='float32')
  (g,) = draw(product(x, y).shape, dtype='float32')
  with jax.default_matmul_precision('highest'):
    found = with_gradients(product, x, y, g)
    expected = with_gradients(lambda x, y: jnp.einsum(subscripts, x, y), x, y, g)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize('product, subscripts, of_x, of_y', PRODUCTS)
def test_bfloat16_is_rounded_once(product, subscripts, of_x, of_y):
  """Also in both gradients: half a unit in the last of 8 places, beside float32's own rounding."""
  x, y = draw(of_x, of_y, dtype='bfloat16')
  (g,) = draw(product(x, y).shape, dtype='bfloat16')
  found = with_gradients(product, x, y, g)
  with jax.enable_x64(True):
    exact = [jnp.asarray(np.asarray(value, np.float64)) for value in (x, y, g)]
    expected = with_gradients(lambda x, y: jnp.einsum(subscripts, x, y), *exact)
  for one, other in zip(found, expected, strict=True):
    assert one.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize('product, subscripts, of_x, of_y', PRODUCTS)
def test_float32_is_rounded_before_where_bfloat16_will_do(product, subscripts, of_x, of_y):
  """What bfloat16 can hold is multiplied as by einsum, and what it cannot is rounded away."""
  x, y = (value.astype('float32') for value in draw(of_x, of_y, dtype='bfloat16'))
  g = draw(product(x, y).shape, dtype='bfloat16')[0].astype('float32')
  with jax.default_matmul_precision('bfloat16'):
    found = with_gradients(product, x, y, g)
    finer = with_gradients(product, x * (1 + 2**-10), y, g)
  with jax.default_matmul_precision('highest'):
    expected = with_gradients(lambda x, y: jnp.einsum(subscripts, x, y), x, y, g)
  for one, other in zip(found, expected, strict=True):
    assert one.dtype == jnp.float32
    np.testing.assert_allclose(one, other, rtol=1e-5)
  np.testing.assert_array_equal(found[0], finer[0])


@pytest.mark.parametrize('dtype, told', [('bfloat16', 'default'), ('float32', 'bfloat16')])
@pytest.mark.parametrize('product', [matmul, match])
@pytest.mark.parametrize('leading', [(), (2,), (2, 3)], ids=['weights', 'attention', 'windows'])
def test_a_cpu_multiplies_bfloat16_and_adds_up_float32(product, leading, dtype, told):
  """In the product, in the gradient for the layers below, and in that of weights."""
  x, y = draw((*(leading or (2,)), 3, 64), (*leading, 64, 64), dtype=dtype)
  loss = lambda x, y: jnp.square(product(x, y)).sum()
  with jax.default_matmul_precision(told):
    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, y).as_text()
  low, plain = ['bf16', 'bf16', 'f32'], [NAMES[dtype]] * 3
  assert sorted(types(program)) == sorted([low, low, plain if leading else low])


@pytest.mark.parametrize('product, of_y', [(matmul, (24, 64)), (match, (64, 24))])
def test_a_cpu_lays_out_nothing_anew_for_gradients_of_weights(product, of_y):
  """XLA's own way is to transpose the gradient first, which takes longer than the sums."""
  x, y = draw((3, 16, 24), of_y, dtype='float32')
  g = jnp.ones(product(x, y).shape)
  gradient = jax.jit(lambda x, y, g: jax.vjp(product, x, y)[1](g)[1])
  program = gradient.lower(x, y, g).compile().as_text()
  assert ' dot(' in program
  assert not re.search(r' (copy|transpose)\(', program)


def test_sums_of_few_terms_stay_in_float32():
  """To round what they add up takes longer than it saves."""
  x, y = draw((2, 32), (32, 64), dtype='float32')
  with jax.default_matmul_precision('bfloat16'):
    program = jax.jit(matmul).lower(x, y).as_text()
  assert types(program) == [['f32'] * 3]


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_a_program_for_another_device_is_the_plain_one(platform, dtype):
  """Also where it is compiled on a CPU, as `dgsct_jax.plan` does."""
  x, y = draw((2, 64), (64, 64), dtype=dtype)
  loss = lambda x, y: jnp.square(matmul(x, y)).sum()
  with jax.default_matmul_precision('bfloat16'):
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, y)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert types(program) == [[NAMES[dtype]] * 3] * 3
  assert 'optimization_barrier' not in program


@pytest.mark.parametrize('clips', [1, 2])
def test_a_product_whose_result_is_transposed_runs(clips):
  """XLA's own way fails as it runs: findings/jax_cpu_bfloat16_product_unimplemented.sh."""
  x, y = draw((clips, 16, 8), (16, 24), dtype='bfloat16')
  mapped = jax.jit(lambda x, y: matmul(x.swapaxes(1, 2), y).swapaxes(1, 2))
  exact = np.einsum('bme,mn->bne', np.asarray(x, float), np.asarray(y, float))
  np.testing.assert_allclose(np.asarray(mapped(x, y), float), exact, rtol=2**-8, atol=1e-4)


def test_a_sum_of_many_ones_is_right():
  """In bfloat16 it would stop at 256."""
  ones = jnp.ones((1, 1000), jnp.bfloat16)
  assert matmul(ones, ones.T).item() == match(ones, ones).item() == 1000
