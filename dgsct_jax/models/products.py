"""Products of arrays in bfloat16 that add up in float32, on CPUs, too.

Many processors multiply bfloat16 numbers and add them up in float32 by instructions of their own,
several times as fast as float32. On CPUs, XLA takes these only if the result is float32, too, and
else converts both arrays before (`findings/jax_cpu_bfloat16_products.sh`). So these products, and
their gradients for the first array, ask for float32 and are rounded afterwards. GPUs and TPUs do
that by themselves.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dgsct_jax.models.remat import marked

Axis = Literal[-1, -2]


def matmul(x: Float[Array, '... m k'], y: Float[Array, '... k n']) -> Float[Array, '... m n']:
  """`x @ y` of arrays of one type, in that type. y has the leading axes of x, or none."""
  return _product(-2, x, y)


def match(x: Float[Array, '... m k'], y: Float[Array, '... n k']) -> Float[Array, '... m n']:
  """All products of a row of x and one of y, as `matmul` of x and the transpose of y."""
  return _product(-1, x, y)


def _product(axis: Axis, x: Array, y: Array) -> Array:
  product = _low(axis, x, y) if x.dtype == jnp.bfloat16 else _plain(axis, x, y)
  return product if y.ndim > 2 else marked(product, x.shape[-1])


def _plain(axis: Axis, x: Array, y: Array, dtype: jnp.dtype | None = None) -> Array:
  """The sums over the last axis of x and an axis of y."""
  leading = tuple(range(y.ndim - 2))
  axes = ((x.ndim - 1,), (y.ndim + axis,)), (leading, leading)
  return jax.lax.dot_general(x, y, axes, preferred_element_type=dtype)


def _rounded(axis: Axis, x: Array, y: Array) -> Array:
  """The same, added up in float32."""
  # XLA might swap the arrays to save a transposition afterwards, and cannot run what it gets
  # (`findings/jax_cpu_bfloat16_product_unimplemented.sh`). The barrier keeps it from that.
  total = _plain(axis, x, y, jnp.dtype('float32'))
  return jax.lax.optimization_barrier(total).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _low(axis: Axis, x: Array, y: Array) -> Array:
  # By what it is compiled for, which is not always where it is traced: see `dgsct_jax.plan`.
  cpu, default = (functools.partial(kind, axis) for kind in (_rounded, _plain))
  return jax.lax.platform_dependent(x, y, cpu=cpu, default=default)


def _forward(axis: Axis, x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
  return _low(axis, x, y), (x, y)


def _backward(axis: Axis, factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, y = factors
  other: Axis = -1 if axis == -2 else -2
  (of_y,) = jax.linear_transpose(functools.partial(_plain, axis, x), y)(g)
  return _low(other, g, y), of_y


_low.defvjp(_forward, _backward)
