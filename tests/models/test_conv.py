"""Depthwise convolutions are those of XLA, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dgsct_jax.models.conv import Depthwise


@pytest.mark.parametrize('size, stride', [(3, 1), (3, 2), (5, 1), (5, 2), (1, 2)])
@pytest.mark.parametrize('shape', [(8, 8), (7, 6), (2, 3), (1, 1)])
def test_a_sum_of_shifted_products_is_a_grouped_convolution(size, stride, shape):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *shape, 6)).astype(np.float32)
  kernel = rng.normal(size=(size, size, 1, 6)).astype(np.float32)
  module = Depthwise(size, stride)

  def ours(x, kernel):
    return module.apply({'params': {'kernel': kernel}}, x)

  def of_xla(x, kernel):
    layout = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(
      x, kernel, (stride, stride), 'SAME', dimension_numbers=layout, feature_group_count=6
    )

  def slopes(function):
    return jax.grad(lambda x, kernel: jnp.sin(function(x, kernel)).sum(), (0, 1))

  @jax.jit
  def run(*given):
    return [(function(*given), slopes(function)(*given)) for function in (ours, of_xla)]

  (got, gradients), (want, wanted) = run(x, kernel)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  for got, want in zip(gradients, wanted):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_its_kernel_is_that_of_a_grouped_convolution_of_flax():
  params = jax.eval_shape(Depthwise(3).init, jax.random.key(0), np.zeros((1, 4, 4, 5)))['params']
  assert {name: x.shape for name, x in params.items()} == {'kernel': (3, 3, 1, 5)}
