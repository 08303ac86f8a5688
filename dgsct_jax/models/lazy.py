"""Shapes and initial variables of a model without running or compiling it whole."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util
from jax.extend.core import Var, jaxpr_as_fun


def shapes(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
  """The shapes of the variables of `model`; arguments as for `init`."""
  return traverse_util.unflatten_dict(_trace(model, args, kwargs).out_info, sep='/')


def init(
  model: nn.Module,
  key: jax.Array,
  *args: Any,
  keep: Callable[[str], bool] = lambda path: True,
  **kwargs: Any,
) -> dict[str, Any]:
  """The variables of `model` for inputs of these shapes, at the paths that `keep` accepts.

  Their values equal those of `model.init(key, *args, **kwargs)`. Compiling that in one piece takes
  minutes for hundreds of random parameters, and running it op by op runs the forward pass too. Here
  the traced program is cut down to what the kept variables need, and each of its few distinct
  random draws is compiled once.

  Args:
    args: arrays or jax.ShapeDtypeStruct; static arguments, such as `train`, are keywords.
    keep: takes paths like 'params/encoder/visual/norm/scale'.

  Raises:
    ValueError: an initial value depends on the values of the inputs.
  """
  trace = _trace(model, args, kwargs)
  traced, names = trace.jaxpr, sorted(trace.out_info)  # the order of a flattened dict's leaves
  kept = [(name, var) for name, var in zip(names, traced.jaxpr.outvars, strict=True) if keep(name)]
  needed, equations = {var for _, var in kept if isinstance(var, Var)}, []
  for equation in reversed(traced.jaxpr.eqns):
    if needed.intersection(equation.outvars):
      equations.append(equation)
      needed.update(var for var in equation.invars if isinstance(var, Var))
  key_vars = traced.jaxpr.invars[:1]
  if unmet := needed & set(traced.jaxpr.invars[1:]):
    raise ValueError(
      f'{len(unmet)} inputs decide initial values; initial values must depend on shapes alone.'
    )
  about = traced.jaxpr.debug_info.with_unknown_names()  # those of all inputs and outputs
  program = traced.jaxpr.replace(
    eqns=equations[::-1], invars=key_vars, outvars=[var for _, var in kept], debug_info=about
  )
  values = jaxpr_as_fun(traced.replace(jaxpr=program))(key)
  return traverse_util.unflatten_dict(
    {name: value for (name, _), value in zip(kept, values)}, sep='/'
  )


def _trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> jax.stages.Traced:
  """The program of `model.init`; jax keeps it, so that a model is traced once for all that asks."""
  given, key = tuple(sorted(kwargs.items())), jax.random.key(0)
  try:
    hash(model)
  except TypeError:  # of a field, such as an array: jax cannot know the model again
    return jax.jit(functools.partial(_variables, model, given)).trace(key, args)
  return _kept.trace(model, given, key, args)


def _variables(
  model: nn.Module, kwargs: tuple[tuple[str, Any], ...], key: jax.Array, args: tuple[Any, ...]
) -> dict[str, Any]:
  """The variables by their paths."""
  return traverse_util.flatten_dict(model.init(key, *args, **dict(kwargs)), sep='/')


_kept = jax.jit(_variables, static_argnums=(0, 1))
