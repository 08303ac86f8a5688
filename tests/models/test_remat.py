"""What the backward pass computes again: everything within a block, what is cheap, or nothing."""

import functools
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from dgsct_jax.models import clip, lazy, vit
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.remat import TERMS
from tests.models import tiny

# As wide as it takes for a product to be dear.
SMALL = dict(width=TERMS, mlp_ratio=4.0, depths=(2,))
ROWS = dict(image=64, patch=8, width=TERMS, depths=(2,), heads=2)
BACKBONES = {
  'swin_v2': (functools.partial(tiny.swin, **SMALL), (2, 64, TERMS)),
  'htsat': (functools.partial(tiny.htsat, **SMALL), (2, 64, TERMS)),
  'clip': (functools.partial(clip.CLIPVision, **ROWS), (2, 65, TERMS)),
  'vit': (functools.partial(vit.ViT, **ROWS), (2, 65, TERMS)),
}


def operations(model: nn.Module, method: str, *inputs: jax.ShapeDtypeStruct) -> float:
  """Floating-point operations of the gradient for all that goes in, before XLA's optimisations."""
  run = functools.partial(model.apply, train=False, method=method, mutable='batch_stats')

  def loss(variables: Any, *inputs: jax.Array) -> jax.Array:
    found, _ = run(variables, *inputs)
    return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(found))

  variables = lazy.shapes(model, *inputs, train=False, method=method)
  gradient = jax.jit(jax.grad(loss, tuple(range(1 + len(inputs)))))
  return gradient.lower(variables, *inputs).cost_analysis()['flops']


def check(count: Any) -> None:
  """Of what blocks compute twice, less than a half is left: sums, norms and attention itself."""
  nothing, cheap, blocks = count(None), count('cheap'), count('blocks')
  assert nothing < cheap < nothing + 0.5 * (blocks - nothing)


@pytest.mark.parametrize('dtype, name', [('bfloat16', 'swin_v2'), *product(['float32'], BACKBONES)])
def test_a_backbone_keeps_its_products(dtype, name):
  build, shape = BACKBONES[name]
  tokens = jax.ShapeDtypeStruct(shape, dtype)
  check(lambda remat: operations(build(remat=remat, dtype=jnp.dtype(dtype)), 'body', tokens))


def test_an_exchange_keeps_its_products():
  tokens = jax.ShapeDtypeStruct((2, 64, TERMS), 'float32')
  adapter = functools.partial(DGSCTAdapter, tokens=4)
  check(lambda remat: operations(Exchange(adapter, remat=remat), '__call__', tokens, tokens))
