"""Initial variables of a model without running or compiling it whole."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util
from jax.extend.core import Var, jaxpr_as_fun


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
  traced, shapes = jax.make_jaxpr(
    lambda key, args: traverse_util.flatten_dict(model.init(key, *args, **kwargs), sep='/'),
    return_shape=True,
  )(key, args)
  names = sorted(shapes)  # the order of a flattened dict's leaves
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
