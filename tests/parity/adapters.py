"""Golden cases of single adapters.

Outputs, gates, gradients for the cotangents, new running statistics.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.convert import dgsct, table
from dgsct_jax.models.adapters import DGSCTAdapter
from tests.parity.golden import Case
from tests.parity.torch_fault import misread_batch_norm

GATES = {  # what the released copies of the class have in common code but not in settings
  'ave': dict(),
  'avqa': dict(),
  'avvp': dict(),
  'avs_s4': dict(token_map='resize', norm_before=False, gate_before_norm=True),
  'avs_ms3': dict(alpha=0.2, beta=0.1, norm_before=False, gate_before_norm=True),
  'fewshot': dict(alpha=0.2, gamma=0.05),
}


def run_dgsct_adapter(case: Case, roundings: int = 10) -> Iterator[dict[str, Any]]:
  """Outputs and gradients, for several roundings of the inputs.

  A gate's gradient is a sum that nearly cancels.
  """
  settings, inputs = case.settings, case.inputs()
  model = DGSCTAdapter(
    **GATES[settings['variant']],
    reduction=settings['reduction'],
    groups=settings['groups'],
    tokens=settings['num_tokens'],
    batch_norm=settings['use_bn'],
    gate=settings['use_gate'],
  )
  train = settings['training']
  rows = dgsct.ADAPTER + dgsct.UNUSED[settings['variant']]
  targets = table.targets(model, inputs['x'], inputs['other'], train=train)
  variables = tree.unflatten(table.convert(case.weights(), rows, targets))
  stats = {name: variables[name] for name in variables if name == 'batch_stats'}

  @jax.jit
  def run(params, inputs):
    def scalar(params, x, other):
      with nn.intercept_methods(misread_batch_norm):
        (out, pooling), state = model.apply(
          {'params': params} | stats,
          x,
          other,
          train,
          mutable=['batch_stats', 'intermediates'],
          capture_intermediates=gates,
        )
      total = jnp.sum(out * inputs['cotangent']) + jnp.sum(pooling * inputs['cotangent_map'])
      return total, (out, pooling, state)

    return jax.grad(scalar, argnums=(0, 1, 2), has_aux=True)(params, inputs['x'], inputs['other'])

  for rounding in range(roundings):
    (grads, grad_x, grad_other), (out, pooling, state) = jax.device_get(
      run(variables['params'], case.inputs(rounding))
    )
    seen = state.pop('intermediates')
    got = {
      'output': out,
      'spatial_softmax': pooling,
      'grad_x': grad_x,
      'grad_other': grad_other,
      'channel_sigmoid': seen['channel_gate'][0][:, 0],
      'spatial_sigmoid': jax.nn.sigmoid(seen['spatial_logits'][0]),
    }
    if 'temporal_gate' in seen:
      got['temporal_gate'] = jax.nn.sigmoid(seen['temporal_gate']['__call__'][0]).reshape(
        -1, 10, 1, 1
      )
    got |= {
      f'grad/{name}': x for name, x in table.export(tree.flatten({'params': grads}), rows).items()
    }
    if train:
      statistics = table.export(tree.flatten(state), rows)
      got |= {f'after/{name}': x for name, x in statistics.items()}
    yield got


def gates(module: Any, method: str) -> bool:
  return method in ('channel_gate', 'spatial_logits') or module.name == 'temporal_gate'
