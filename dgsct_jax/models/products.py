"""Products of arrays and their gradients, in ways that are fast on CPUs, too.

Many processors multiply bfloat16 numbers and add them up in float32 by instructions of their own,
several times as fast as float32. On CPUs, XLA takes these only if the arrays are bfloat16 and the
result is float32, and else converts both arrays before (`findings/jax_cpu_bfloat16_products.sh`).
So products of bfloat16 arrays ask for float32 and are rounded afterwards, and products of float32
arrays are rounded before if jax is told that bfloat16 will do (JAX_DEFAULT_MATMUL_PRECISION), which
XLA does not heed there (`findings/jax_cpu_dot_algorithm_ignored.sh`). So it is with gradients. GPUs
and TPUs do all that by themselves.

Gradients of weights are products of rows, since on CPUs XLA writes one of two arrays with more axes
anew, be it the wider one (`findings/jax_cpu_gradients_of_weights.sh`).
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
  if y.ndim == 2:
    return marked(_own(axis, x, y), x.shape[-1])
  return _own(axis, x, y) if _will_do(x) else _plain(axis, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _own(axis: Axis, x: Array, y: Array) -> Array:
  """The sums over the last axis of x and an axis of y, with gradients of our own."""
  if not _will_do(x):
    return _plain(axis, x, y)
  # By what it is compiled for, which is not always where it is traced: see `dgsct_jax.plan`.
  cpu = lambda x, y: _rounded(axis, x, y).astype(x.dtype)
  return jax.lax.platform_dependent(x, y, cpu=cpu, default=functools.partial(_plain, axis))


def _forward(axis: Axis, x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
  return _own(axis, x, y), (x, y)


def _backward(axis: Axis, factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, y = factors
  other: Axis = -1 if axis == -2 else -2
  plain = lambda x, g: jax.linear_transpose(functools.partial(_plain, axis, x), y)(g)[0]
  if y.ndim > 2:
    return _own(other, g, y), plain(x, g)

  def cpu(x: Array, g: Array) -> Array:
    x, g = (factor.reshape(-1, factor.shape[-1]) for factor in (x, g))
    of_rows = _rounded_of_rows if _will_do(x) else _of_rows
    return (of_rows(x, g) if axis == -2 else of_rows(g, x)).astype(y.dtype)

  return _own(other, g, y), jax.lax.platform_dependent(x, g, cpu=cpu, default=plain)


_own.defvjp(_forward, _backward)


def _will_do(x: Array) -> bool:
  """Whether what is multiplied may be rounded to bfloat16."""
  told = getattr(jax.config, PRECISION) == LOW.name and x.shape[-1] >= NARROW
  return x.dtype == LOW or told


def _plain(axis: Axis, x: Array, y: Array, dtype: jnp.dtype | None = None) -> Array:
  """The sums, as XLA computes them, in `dtype`."""
  leading = tuple(range(y.ndim - 2))
  axes = ((x.ndim - 1,), (y.ndim + axis,)), (leading, leading)
  return jax.lax.dot_general(x, y, axes, preferred_element_type=dtype)


def _rounded(axis: Axis, x: Array, y: Array) -> Array:
  """The same, of factors that are rounded, added up in float32."""
  # XLA might swap the arrays to save a transposition afterwards, and cannot run what it gets
  # (`findings/jax_cpu_bfloat16_product_unimplemented.sh`). The barrier keeps it from that.
  return jax.lax.optimization_barrier(_plain(axis, x.astype(LOW), y.astype(LOW), HIGH))


def _of_rows(x: Array, g: Array) -> Array:
  """The sums of rows of x [m k] times rows of g [m n], [k n]."""
  return _plain(-2, x.T, g)


def _rounded_of_rows(x: Array, g: Array) -> Array:
  """The same, as `_rounded`."""
  if x.size > g.size + x.shape[-1] * g.shape[-1]:  # It takes less to transpose g and the sums.
    return _rounded_of_rows(g, x).T
  # XLA's library takes no transposed array. So XLA must not see that this is one.
  columns = jax.lax.optimization_barrier(x.astype(LOW).T.ravel()).reshape(x.T.shape)
  return _rounded(-2, columns, g)
