"""Golden cases of MA-AVT: tokens on the way, outputs, losses, metrics, gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.convert import ma_avt, table
from dgsct_jax.tasks import ma_avt as task
from tests.parity.backbones import channels_last
from tests.parity.golden import Case


def run(case: Case) -> dict[str, Any]:
  state, inputs = case.weights(), case.inputs()
  plan = ma_avt.plan(state)
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  model = ma_avt.model(state, lambda picture: picture, positions='flat', swapped=True)
  label = inputs['label']
  if model.background:
    label = np.where(inputs['background'] == 0, model.classes, label)
  batch = {
    'video': channels_last(inputs['frames']),
    'wave': inputs['audio'],
    'label': label,
    'valid': np.ones(len(label), np.float32),
  }
  # Of the backbone the class token alone is trained.
  trained = (r'(?!vit/).*', 'vit/cls_token') if case.grad_names else ('.*',)
  trainable, frozen = tree.split(variables['params'], trained)
  stats = {name: x for name, x in variables.items() if name != 'params'}

  def forward(trainable, frozen, stats, batch):
    seen = {}
    with nn.intercept_methods(functools.partial(record, seen, label.size)):
      outputs = model.apply({'params': tree.merge(trainable, frozen)} | stats, batch)
    total, parts = task.loss(outputs, batch, model.classes)
    coefficients = task.modulation(outputs['unimodal_logits'], batch['label'], batch['valid'])
    return total, (outputs, seen | scores(outputs, total, parts, coefficients))

  compiled = jax.jit(jax.grad(forward, has_aux=True) if case.grad_names else forward)
  first, (outputs, got) = jax.device_get(compiled(trainable, frozen, stats, batch))
  found = task.metrics(outputs, batch, model.classes)
  means = {name: np.sum(x * w) / np.sum(w) for name, (x, w) in found.items()}
  for theirs, ours in (
    ('accuracy', 'accuracy'),
    ('binary_accuracy', 'background_accuracy'),
    ('total_accuracy', 'joint_accuracy'),
  ):
    got[theirs] = means.get(ours)
  if case.grad_names:
    grads = table.export(tree.flatten({'params': first}), ma_avt.TABLE)
    got |= case.gradients(grads)
  return got


def record(seen: dict[str, Any], m: int, call, args, kwargs, context) -> Any:
  """Keeps what the golden cases store of the way; the first `m` rows are visual."""
  out = call(*args, **kwargs)
  repeated = lambda x: jnp.broadcast_to(x, (m, *x.shape[-2:]))
  match '/'.join(context.module.path), context.method_name:
    case '', 'prompt':
      count = context.module.prompts
      seen |= {'audio_lsa': repeated(out[1, :count]), 'shared_lsa': repeated(out[1, count:])}
    case '', 'embed':
      seen['visual_embed'] = out[:m]
    case 'vit/blocks_1/norm1', _:
      seen['visual_block0'] = args[0][:m]
    case 'vit/norm', _:
      seen |= {'visual_norm': out[:m], 'audio_norm': out[m:]}
  return out


def scores(outputs: dict[str, Any], total: Any, parts: Any, coefficients: Any) -> dict[str, Any]:
  """Our outputs and losses under the names of the release."""
  rows = lambda x: x.reshape(-1, *x.shape[2:])
  got = {
    'p_fg': rows(outputs['logits']),
    'vis_attn': rows(outputs['visual_map'])[:, None, 1:],
    'loss': total,
    'fg_loss': parts['class'],
    'cnt_loss': parts['contrast'],
    'coeff_v': coefficients[0],
    'coeff_a': coefficients[1],
  }
  if 'background' in parts:
    got |= {'p_bg': rows(outputs['background_logits']), 'bg_loss': parts['background']}
  return got
