"""Products of which the factors are bfloat16 numbers and the sums float32, on CPUs, too.

Many processors multiply bfloat16 numbers and add them up in float32 by instructions of their own,
several times as fast as float32. On CPUs, XLA takes these only if the arrays are bfloat16 and the
result is float32, and else converts both arrays before (`findings/jax_cpu_bfloat16_products.sh`).
So products of bfloat16 arrays ask for float32 and are rounded afterwards, and products of float32
arrays are rounded before if jax is told that bfloat16 will do (JAX_DEFAULT_MATMUL_PRECISION), which
XLA does not heed there (`findings/jax_cpu_dot_algorithm_ignored.sh`). So it is with gradients. GPUs
and TPUs do all that by themselves.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dgsct_jax.models.remat import marked

Axis = Literal[-1, -2]

LOW, HIGH = jnp.dtype('bfloat16'), jnp.dtype('float32')
PRECISION = 'jax_default_matmul_precision'  # of jax's settings
NARROW = 64  # Rounding float32 arrays takes longer than it saves in sums of fewer terms.


def matmul(x: Float[Array, '... m k'], y: Float[Array, '... k n']) -> Float[Array, '... m n']:
  """`x @ y` of arrays of one type, in that type. y has the leading axes of x, or none."""
  return _product(-2, x, y)


def match(x: Float[Array, '... m k'], y: Float[Array, '... n k']) -> Float[Array, '... m n']:
  """All products of a row of x and one of y, as `matmul` of x and the transpose of y."""
  return _product(-1, x, y)


def _product(axis: Axis, x: Array, y: Array) -> Array:
  product = _multiply(axis, x, y)
  return product if y.ndim > 2 else marked(product, x.shape[-1])


def _multiply(axis: Axis, x: Array, y: Array) -> Array:
  """The sums over the last axis of x and an axis of y, with low factors if these will do."""
  told = getattr(jax.config, PRECISION) == LOW.name and x.shape[-1] >= NARROW
  return _low(axis, x, y) if x.dtype == LOW or told else _plain(axis, x, y)


def _plain(axis: Axis, x: Array, y: Array, dtype: jnp.dtype | None = None) -> Array:
  """The same, as XLA computes them, in `dtype`."""
  leading = tuple(range(y.ndim - 2))
  axes = ((x.ndim - 1,), (y.ndim + axis,)), (leading, leading)
  return jax.lax.dot_general(x, y, axes, preferred_element_type=dtype)


def _rounded(axis: Axis, x: Array, y: Array) -> Array:
  """The same, of factors that are rounded, added up in float32."""
  # XLA might swap the arrays to save a transposition afterwards, and cannot run what it gets
  # (`findings/jax_cpu_bfloat16_product_unimplemented.sh`). The barrier keeps it from that.
  return jax.lax.optimization_barrier(_plain(axis, x.astype(LOW), y.astype(LOW), HIGH))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _low(axis: Axis, x: Array, y: Array) -> Array:
  # By what it is compiled for, which is not always where it is traced: see `dgsct_jax.plan`.
  cpu = lambda x, y: _rounded(axis, x, y).astype(x.dtype)
  return jax.lax.platform_dependent(x, y, cpu=cpu, default=functools.partial(_plain, axis))


def _forward(axis: Axis, x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
  return _low(axis, x, y), (x, y)


def _backward(axis: Axis, factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, y = factors
  other: Axis = -1 if axis == -2 else -2
  of_x = _multiply(other, g, y)
  plain = lambda x, g: jax.linear_transpose(functools.partial(_plain, axis, x), y)(g)[0]
  if y.ndim > 2:
    return of_x, plain(x, g)
  cpu = lambda x, g: (_of_weights(x, g) if axis == -2 else _of_weights(g, x)).astype(y.dtype)
  return of_x, jax.lax.platform_dependent(x, g, cpu=cpu, default=plain)


def _of_weights(x: Array, g: Array) -> Array:
  """The sums of rows of x [... k] times rows of g [... n], [k n], as `_rounded`."""
  if x.shape[-1] > g.shape[-1]:  # The narrower is transposed, which takes longer than the sums.
    return _of_weights(g, x).T
  x, g = (factor.reshape(-1, factor.shape[-1]) for factor in (x, g))
  # XLA's library takes no transposed array. So XLA must not see that this is one.
  columns = jax.lax.optimization_barrier(x.astype(LOW).T.ravel()).reshape(x.T.shape)
  return _rounded(-2, columns, g)


_low.defvjp(_forward, _backward)
