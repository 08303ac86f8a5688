"""A fault of the PyTorch that the golden gradients were computed with.

Reproduced so that they can be compared.

`BatchNorm2d` on the CPU of torch 2.13 misreads the gradient that it gets when its input is [b, d,
n, 1] and contiguous while the gradient lies in memory as [b, n, d]: it takes that memory for [b, d,
n]. The released adapters are such a
case: their last batch norm is followed by a layer norm over transposed tokens. So the golden
gradients of everything before that batch norm are not the gradients of the loss. Ours are;
`test_torch_fault.py` shows both.
"""

from typing import Any

import jax


@jax.custom_vjp
def misread(x: jax.Array) -> jax.Array:
  """The identity, but for a gradient whose memory [b n d] is read as if it were [b d n]."""
  return x


def _backward(_, grad):
  b, n, d = grad.shape
  return (grad.reshape(b, d, n).swapaxes(1, 2),)


misread.defvjp(lambda x: (x, None), _backward)


def misread_batch_norm(call, args, kwargs, context) -> Any:
  """Puts the fault into the gradients of an adapter; for `nn.intercept_methods`."""
  out = call(*args, **kwargs)
  return (
    misread(out) if context.module.name == 'bn_up' and context.method_name == '__call__' else out
  )
