"""Rematerialisation: what the backward pass computes again, so that it need not be kept."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

Module = TypeVar('Module', bound=nn.Module)

# All within a block; all but products with weights that are dear; or nothing.
Remat = Literal['blocks', 'cheap'] | None

# A value that adds up so many terms is dear: two operations for each, and four or eight bytes
# written and read. So many operations a byte are about what accelerators do meanwhile.
TERMS = 512
DEAR = 'dear product'

POLICIES: dict[Remat, Callable[..., Any]] = {
  'blocks': jax.checkpoint_policies.nothing_saveable,
  'cheap': jax.checkpoint_policies.save_only_these_names(DEAR),
}


def named(name: str) -> Remat:
  """What `config.model.remat` asks for. Raises ValueError for a name that it cannot be."""
  if name not in ('none', *POLICIES):
    raise ValueError(f"config.model.remat is {name!r}; set 'none', 'cheap' or 'blocks'.")
  return None if name == 'none' else cast(Remat, name)


def marked(product: Array, terms: int) -> Array:
  """A product with weights of so many terms, marked if it is dear."""
  return checkpoint_name(product, DEAR) if terms >= TERMS else product


def halves(model: nn.Module, Block: type[Module]) -> type[Module]:
  """The class of a model's blocks, of which each half is computed again as `model.remat` says.

  Not while the model is initialised, as its program is cut into pieces then (models/lazy.py).
  """
  if not model.remat or model.is_initializing():
    return Block
  methods = ('attend', 'feed_forward')
  return nn.remat(Block, static_argnums=(2,), methods=methods, policy=POLICIES[model.remat])
