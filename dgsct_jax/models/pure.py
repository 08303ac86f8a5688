"""What a module is made of: as a function of its variables, for JAX's own transformations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn


def fields(module: nn.Module) -> dict[str, Any]:
  """The fields of a module that its caller gave."""
  given = (field.name for field in dataclasses.fields(module) if field.init)
  return {name: getattr(module, name) for name in given if name not in ('parent', 'name')}


def bind(
  template: nn.Module, variables: Any, keys: dict[str, jax.Array] | None = None, **fields: Any
) -> nn.Module:
  """A module by itself like `template`, with these variables, random keys and fields.

  The collections that can change in `template` can change in it.
  """
  changing = [name for name in variables if template.is_mutable_collection(name)]
  return template.clone(parent=None, **fields).bind(variables, rngs=keys, mutable=changing)


def changed(module: nn.Module) -> dict[str, Any]:
  """The collections that a call may have changed."""
  return {
    name: values for name, values in module.variables.items() if module.is_mutable_collection(name)
  }


def store(module: nn.Module, changes: Mapping[str, Any]) -> None:
  """Gives a module the collections of another."""
  for collection, values in changes.items():
    for name, value in values.items():
      module.put_variable(collection, name, value)
