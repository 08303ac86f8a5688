"""Golden cases of the AVE task: head, whole model, gradients, training mode, metrics."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from configs import ave as ave_config
from dgsct_jax import compiler, tree
from dgsct_jax.convert import dgsct, htsat, table
from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.heads.ave import Localizer
from dgsct_jax.models.temporal import TemporalAttention
from dgsct_jax.tasks import ave as ave_task
from dgsct_jax.tasks import registry
from tests.parity.backbones import adapter_fields, channels_last, htsat_fields, swin_fields
from tests.parity.golden import Case
from tests.parity.torch_fault import misread_batch_norm


def configure(case: Case) -> Any:
  """The config that the package ships, at the sizes of the case."""
  settings, config = case.settings, ave_config.get_config()
  if 'visual' in settings:
    config.model.visual = {'kind': 'swin_v2', 'variant': 'custom'} | swin_fields(settings['visual'])
    config.model.audio = {'kind': 'htsat', 'variant': 'audioset', 'tile': 10} | htsat_fields(
      settings['audio']
    )
  config.model.adapter.update(adapter_fields(settings))
  config.model.head.gamma = settings['temporal_gamma']
  if case.training:  # as released, but for what is random
    config.model.backbone_mode = 'train'
    config.model.visual.drop_path = config.model.audio.drop_path = 0.0
    config.model.audio.spec_augment = False
  if 'gate_names' not in case.json:
    config.model.remat = 'none'  # Nobody sees the intermediate values of what is rematerialised.
  return config


def weights(case: Case) -> dict[str, Any]:
  """The case's weights through the table, as variables."""
  plan = dgsct.plan_ave(
    case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()}
  )
  return tree.unflatten(table.convert(plan.state, plan.table, plan.targets))


def batch(case: Case, rounding: int = 0) -> dict[str, np.ndarray]:
  inputs = case.inputs(rounding)
  label = np.where(inputs['segment'], inputs['event'][:, None], 28).astype(np.int32)
  features = {name: inputs[name] for name in ('visual', 'audio') if name in inputs}
  media = (
    {'video': channels_last(inputs['frames']), 'wave': inputs['wave']}
    if 'frames' in inputs
    else features
  )
  return media | {'label': label, 'valid': np.ones(len(label), np.float32)}


def run_ave(case: Case) -> dict[str, Any]:
  """Every intermediate of the evaluation, the outputs and the losses."""
  task, variables, clips = registry.build(configure(case)), weights(case), batch(case)

  @jax.jit
  def run(variables, clips):
    seen = {}
    with nn.intercept_methods(functools.partial(record, seen)):
      outputs = task.model.apply(variables, clips, False)
    return seen | scores(outputs) | losses(*task.loss(outputs, clips))

  return run(variables, clips)


def record(seen: dict[str, Any], call, args, kwargs, context) -> Any:
  """Keeps what the golden cases store of the encoder."""
  out = call(*args, **kwargs)
  path = '/'.join(context.module.path)
  if context.method_name == '__call__':
    match path:
      case 'encoder/visual/patch_embed':
        seen['visual_patches'] = out
      case 'encoder/audio/patch_embed':
        seen['audio_patches'] = out
      case 'encoder/exchange_attn_0/visual' | 'encoder/exchange_attn_0/audio':
        seen[f'{context.module.name}_adapter_p1_0'] = out[0]
      case 'encoder':
        seen |= {f'visual_stage{i}': x for i, x in enumerate(out.visual_pyramid[:-1])}
        seen |= {f'audio_stage{i}': x for i, x in enumerate(out.audio_pyramid[:-1])}
        seen |= {
          'visual_tokens': out.visual,
          'audio_tokens': out.audio,
          'visual_spatial_map': out.visual_map,
          'audio_spatial_map': out.audio_map,
        }
      case 'temporal':
        seen |= {'visual_pooled': args[0], 'audio_pooled': args[1]}
  return out


def scores(outputs: dict[str, Any]) -> dict[str, Any]:
  """Our outputs under the names and in the axis order of the release."""
  return {
    'is_event_scores': outputs['event_logits'].T[..., None],
    'audio_visual_gate': outputs['gate'].T[..., None],
    'event_scores': outputs['logits'],
    'av_score': outputs['activation_logits'],
  }


def losses(loss: Any, parts: dict[str, Any]) -> dict[str, Any]:
  return {
    'loss': loss,
    'loss_is_event': parts['event'],
    'loss_gate': parts['gate'],
    'loss_cas': parts['activation'],
    'loss_event_class': parts['class'],
  }


def run_gradients(case: Case, roundings: int = 40) -> Iterator[dict[str, Any]]:
  """Loss and gradients of what is trained, for several roundings of the inputs.

  In training mode the new running statistics, too, and the losses of four Adam steps, for the
  inputs as given.
  """
  config = configure(case)
  task, variables, train = registry.build(config), weights(case), case.training
  trainable, frozen = tree.split(variables['params'], config.trainable)
  stats = variables['batch_stats']

  @functools.partial(jax.jit, compiler_options=compiler.CPU)
  def step(trainable, frozen, stats, clips):
    def loss(trainable):
      with nn.intercept_methods(misread_batch_norm), nn.intercept_methods(no_dropout):
        outputs, state = task.model.apply(
          {'params': tree.merge(trainable, frozen), 'batch_stats': stats},
          clips,
          train,
          mutable=['batch_stats'],
        )
      return task.loss(outputs, clips)[0], state['batch_stats']

    return jax.value_and_grad(loss, has_aux=True)(trainable)

  adam_losses = adam(step, trainable, frozen, stats, batch(case)) if train else None
  for rounding in range(roundings):
    clips = batch(case, rounding)
    (loss, after), grads = step(trainable, frozen, stats, clips)
    grads = table.export(jax.device_get(tree.flatten({'params': grads})), dgsct.AVE)
    got = {
      'loss': loss,
      'gate_grads': np.concatenate([grads[name] for name in case.json['gate_names']]),
      'grad_norms': np.asarray([np.linalg.norm(grads[name]) for name in case.grad_names]),
    }
    got |= {f'grad/{name}': x for name, x in grads.items()}
    if train:
      after = table.export(jax.device_get(tree.flatten({'batch_stats': after})), dgsct.AVE)
      got |= {f'after/{name}': x for name, x in after.items()}
      got['adam_losses'] = adam_losses
    yield got


def adam(step, trainable, frozen, stats, clips, steps: int = 4) -> np.ndarray:
  """The loss before each of some steps of Adam on one batch."""
  tx = optax.adam(5e-4)
  state, values = tx.init(trainable), []
  for _ in range(steps):
    (loss, stats), grads = step(trainable, frozen, stats, clips)
    updates, state = tx.update(grads, state)
    trainable = optax.apply_updates(trainable, updates)
    values.append(float(loss))
  return np.asarray(values)


def no_dropout(call, args, kwargs, context) -> Any:
  return args[0] if isinstance(context.module, Dropout) else call(*args, **kwargs)


class Head(nn.Module):
  """What of the AVE model comes after the encoder."""

  gamma: float
  activation_weight: float
  classes: int

  def setup(self):
    self.temporal = TemporalAttention(self.gamma)
    self.localize = Localizer(self.classes, activation_weight=self.activation_weight)

  def __call__(self, visual, audio):
    visual, audio, gate = self.temporal(visual, audio, False)
    return self.localize(visual, audio) | {'gate': gate, 'visual': visual, 'audio': audio}


def run_ave_head(case: Case) -> dict[str, Any]:
  settings, clips = case.settings, batch(case)
  model = Head(settings['gamma_temporal'], settings['gamma_cas'], settings['classes'])
  targets = table.targets(model, clips['visual'], clips['audio'])
  variables = tree.unflatten(table.convert(case.weights(), dgsct.AVE_HEAD, targets))

  @jax.jit
  def run(variables, clips):
    seen = {}

    def keep(call, args, kwargs, context):
      out = call(*args, **kwargs)
      if context.method_name == '__call__':
        seen['/'.join(context.module.path)] = out
      return out

    with nn.intercept_methods(keep):
      outputs = model.apply(variables, clips['visual'], clips['audio'])
    time_first = lambda x: jnp.swapaxes(x, 0, 1)
    return (
      scores(outputs)
      | losses(*ave_task.loss(outputs, clips, settings['classes']))
      | {
        'visual_query': time_first(outputs['visual']),
        'audio_query': time_first(outputs['audio']),
        'visual_rnn': seen['temporal/visual_rnn'],
        'audio_rnn': seen['temporal/audio_rnn'],
        'video_encoder': time_first(seen['temporal/visual_encoder']),
      }
    )

  return run(variables, clips)


def run_ave_metrics(case: Case) -> dict[str, Any]:
  """Accuracy and losses of random scores.

  Every second clip set has its true classes lifted first.
  """
  inputs, got = jax.device_get(case.inputs()), {}
  for i in range(sum(name.startswith('accuracy_') for name in case.outputs)):
    fg, event = inputs[f'fg_{i}'], inputs[f'class_{i}']
    logits, event_logits = inputs[f'event_{i}'].copy(), inputs[f'is_event_{i}'][..., 0].T
    if '+5 at the true class' in case.outputs[f'accuracy_{i}']['what']:
      logits[np.arange(len(event)), event] += 5
    label = jnp.asarray(np.where(fg, event[:, None], 28))
    clips = {'label': label, 'valid': jnp.ones(len(event))}
    outputs = {
      'event_logits': event_logits,
      'logits': logits,
      'gate': 0.5 * jax.nn.sigmoid(event_logits),
      'activation_logits': 0.5 * logits,
    }
    got[f'accuracy_{i}'] = np.mean(ave_task.metrics(outputs, clips)['accuracy'][0])
    got[f'losses_{i}'] = np.stack(list(losses(*ave_task.loss(outputs, clips)).values()))
  return got
