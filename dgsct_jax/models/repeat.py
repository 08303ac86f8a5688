"""Parts of a model that are alike, run by one loop: the compiler sees one of them, not all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dgsct_jax.models import pure

Row = Any  # a tree of modules
Carry = Any
Step = Callable[[Row, Carry], tuple[Carry, Any]]

SHORTEST = 3  # Stacking two rows takes as long to compile as the one that a loop saves.


def each(step: Step, rows: Sequence[Row], carry: Carry, scan: bool) -> tuple[Carry, Any]:
  """Carries a value through `step(row, carry)` row by row; also gives what the last step gives.

  With `scan`, `SHORTEST` or more rows that are alike are stacked within the program and run by
  `jax.lax.scan`. Each module keeps its own parameters and statistics, and gets its own gradients;
  only random draws (drop-path) are others. Rows that differ, and those of a model that is being
  initialised, run one after another. Modules may differ in the fields that their class names in
  `traced`.
  """
  if not scan or len(rows) < SHORTEST or not alike(rows):
    for row in rows:
      carry, out = step(row, carry)
    return carry, out

  modules = [jax.tree.leaves(row) for row in rows]
  templates, structure = jax.tree.flatten(rows[0])

  def body(carry: Carry, given: Sequence[Mapping[str, Any]]) -> tuple[Carry, Any]:
    bound = [pure.bind(template, **values) for template, values in zip(templates, given)]
    carry, out = step(jax.tree.unflatten(structure, bound), carry)
    return carry, (out, [pure.changed(module) for module in bound])

  stacked = jax.tree.map(lambda *x: jnp.stack(x), *([own(m) for m in row] for row in modules))
  carry, (outs, changes) = jax.lax.scan(body, carry, stacked)
  for i, row in enumerate(modules):
    for module, change in zip(row, at(changes, i)):
      pure.store(module, change)
  return carry, at(outs, -1)


def at(stacked: Any, i: int) -> Any:
  """What a step gave."""
  return jax.tree.map(lambda x: x[i], stacked)


def alike(rows: Sequence[Row]) -> bool:
  """Whether rows are of bound modules that differ in values alone."""
  first, *others = ([form(module) for module in jax.tree.leaves(row)] for row in rows)
  return None not in first and all(other == first for other in others)


def form(module: Any) -> Any:
  """What modules have to have in common; None where they cannot be stacked."""
  if not isinstance(module, nn.Module) or module.is_initializing():
    return None
  given = {name: x for name, x in pure.fields(module).items() if name not in traced(module)}
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), dict(module.variables))
  return type(module), given, shapes


def traced(module: nn.Module) -> Sequence[str]:
  """Names of the fields that may be traced."""
  return getattr(module, 'traced', ())


def own(module: nn.Module) -> dict[str, Any]:
  """What a module has for itself: variables, random keys and fields."""
  assert module.scope is not None
  return {
    'variables': module.variables,
    'keys': {name: module.make_rng(name) for name in module.scope.rngs},
    **{name: getattr(module, name) for name in traced(module)},
  }
