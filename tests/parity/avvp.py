"""Golden cases of the AVVP task: the head, its gradients, the whole model, the metrics."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from configs import avvp as avvp_config
from dgsct_jax import tree
from dgsct_jax.convert import avvp, htsat, table
from dgsct_jax.models.heads.avvp import Parser, TemporalGate
from dgsct_jax.tasks import avvp as task
from dgsct_jax.tasks import registry
from tests.parity import ave
from tests.parity.backbones import adapter_fields, channels_last, htsat_fields, swin_fields
from tests.parity.golden import Case

GATE = avvp.gate('video')
HALF = ('video_', 'audio_visual_rnn_layer.visual_rnn')


def assignments(settings: dict[str, Any]) -> dict[str, str]:
  """The released flags, of which the second seconds' is the opposite of the first."""
  assign = settings['unimodal_assign']
  return {
    'assign': assign,
    'joint_assign': settings['crossmodal_assign'],
    'other_assign': 'hard' if assign == 'soft' else 'soft',
  }


def gated_sound(case: Case, visual: jax.Array, audio: jax.Array) -> jax.Array:
  """What the released model throws away, by the half of its attention that ours leaves out."""
  gate, state = TemporalGate(), table.below(case.weights(), 'temporal_attn.')
  state = {name: x for name, x in state.items() if name.startswith(HALF)}
  variables = table.convert(state, GATE, table.targets(gate, audio, visual, train=False))
  return gate.apply(tree.unflatten(variables), audio, visual, False)


def record(seen: dict[str, Any], call, args, kwargs, context) -> Any:
  """Keeps what the golden cases store of the parser."""
  out = call(*args, **kwargs)
  if context.method_name == '__call__':
    match '/'.join(context.module.path):
      case 'parse':
        seen |= {'visual_pooled': args[0], 'audio_pooled': args[1]}
      case 'parse/temporal':
        seen |= {'visual_gated': out, 'visual_ungated': args[0], 'audio_ungated': args[1]}
      case 'parse/visual_groups' | 'parse/audio_groups' | 'parse/joint_groups':
        name = context.module.name.replace('joint', 'av')
        seen[name] = out[0].features
  return out


def scores(outputs: dict[str, Any], target: jax.Array) -> dict[str, Any]:
  """Our outputs and losses under the names of the release."""
  valid = jnp.ones(len(target))
  loss, parts = task.loss(outputs, {'label': target.astype(jnp.float32), 'valid': valid})
  return {
    'video_prob': nn.sigmoid(outputs['logits']),
    'audio_prob': nn.sigmoid(outputs['audio_logits']),
    'visual_prob': nn.sigmoid(outputs['visual_logits']),
    'audio_frame_prob': outputs['audio_probability'],
    'visual_frame_prob': outputs['visual_probability'],
    'audio_class_logits': outputs['audio_token_logits'][0],
    'visual_class_logits': outputs['visual_token_logits'][0],
    'loss': loss,
    'loss_av': parts['joint'],
    'loss_a': parts['audio'],
    'loss_v': parts['visual'],
    'loss_cls_a': parts['audio_tokens'],
    'loss_cls_v': parts['visual_tokens'],
  }


class Head(nn.Module):
  """What of the AVVP model comes after the encoder, on the inputs of a case."""

  parse: Parser

  def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
    return self.parse(inputs['visual'], inputs['audio'], inputs['visual_st'], False)


def prepare(case: Case) -> tuple[Head, dict[str, Any], dict[str, Any]]:
  """Head, variables and inputs of a case."""
  settings, inputs = case.settings, case.inputs()
  depth = lambda name: len({k.split('.')[2] for k in case.shapes if f'{name}.blocks' in k})
  model = Head(
    Parser(
      audio_depth=depth('audio_cug'),
      visual_depth=depth('visual_cug'),
      joint_depth=depth('av_mcg'),
      **(assignments(settings) if settings else {}),
    )
  )
  variables = table.convert(case.weights(), avvp.HEAD, table.targets(model, inputs))
  return model, tree.unflatten(variables), inputs


def run_head(case: Case) -> dict[str, Any]:
  model, variables, inputs = prepare(case)

  @jax.jit
  def run(variables, inputs):
    seen = {}
    with nn.intercept_methods(functools.partial(record, seen)):
      outputs = model.apply(variables, inputs)
    seen['audio_gated'] = gated_sound(case, seen['visual_ungated'], seen['audio_ungated'])
    return seen | scores(outputs, inputs['target'])

  return run(variables, inputs)


def run_head_gradients(case: Case) -> dict[str, Any]:
  model, variables, inputs = prepare(case)
  features = {name: inputs[name] for name in ('visual', 'audio', 'visual_st')}

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def run(variables, features, inputs):
    return scores(model.apply(variables, inputs | features), inputs['target'])['loss']

  loss, (grads, input_grads) = jax.device_get(run(variables, features, inputs))
  grads = table.export(tree.flatten(grads), avvp.HEAD)
  of_inputs = {f'grad_input/{name}': x for name, x in input_grads.items()}
  return {'loss': loss} | case.gradients(grads) | of_inputs


def run_avvp(case: Case) -> dict[str, Any]:
  """The config that the package ships, at the sizes of the case."""
  settings, config = case.settings, avvp_config.get_config()
  if 'visual' in settings:
    config.model.visual = {'kind': 'swin_v2', 'variant': 'custom'} | swin_fields(settings['visual'])
    audio = {'spec_size': 256} | settings['audio']
    config.model.audio = {'kind': 'htsat', 'variant': 'audioset', 'tile': 10} | htsat_fields(audio)
  config.model.remat = 'none'  # Nobody sees the intermediate values of what is rematerialised.
  config.model.adapter.update(adapter_fields(settings))
  config.model.head.update(
    gamma=settings['temporal_gamma'],
    audio_depth=settings['depth_aud'],
    visual_depth=settings['depth_vis'],
    joint_depth=settings['depth_av'],
    **assignments(settings),
  )
  model, inputs = registry.build(config).model, case.inputs()
  plan = avvp.plan(case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()})
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  batch = {
    'video': channels_last(inputs['frames']),
    'wave': inputs['wave'],
    'motion': inputs['visual_st'],
  }

  @jax.jit
  def run(variables, batch):
    seen = {}
    with (
      nn.intercept_methods(functools.partial(ave.record, seen)),
      nn.intercept_methods(functools.partial(record, seen)),
    ):
      outputs = model.apply(variables, batch)
    seen['audio_gated'] = gated_sound(case, seen['visual_ungated'], seen['audio_ungated'])
    return seen | scores(outputs, inputs['target'])

  return run(variables, batch)


def run_metrics(case: Case) -> dict[str, Any]:
  """Single clips of random predictions and truths, and the evaluation of eight at once."""
  inputs, got = jax.device_get(case.inputs()), {}
  seconds = lambda x: np.swapaxes(x, -1, -2)  # The release has classes before seconds.
  for i in range(sum(name.startswith('segment_') for name in case.outputs)):
    predicted, true = (
      {stream: seconds(inputs[f'{kind}_{stream}_{i}'])[None] for stream in ('audio', 'visual')}
      for kind in ('pred', 'true')
    )
    said = case.outputs[f'segment_{i}']['what'].replace(',', '').split()
    densities = [float(said[j + 1]) for j, word in enumerate(said) if word == 'density']
    on = lambda clip, density: {stream: x < density for stream, x in clip.items()}
    truth, guess = on(true, densities[1]), on(predicted, densities[0])
    if i == 7:  # its own rule, in the notes of the case
      flips = on(predicted, 0.1)
      guess = {stream: truth[stream] ^ flips[stream] for stream in truth}
    for level in ('segment', 'event'):
      found = task.f_scores(guess, truth, level)
      got[f'{level}_{i}'] = np.array(
        [found[name][0][0] for name in ('audio', 'visual', 'event', 'audio_visual')]
      )
  probability = np.clip(inputs['video_prob'], 1e-9, 1 - 1e-9).astype(np.float64)
  outputs = {
    'logits': np.log(probability / (1 - probability)),
    'audio_probability': inputs['audio_frame_prob'],
    'visual_probability': inputs['visual_frame_prob'],
  }
  batch = {
    stream: (seconds(inputs[f'true_{stream}']) < 0.2).astype(np.float32)
    for stream in ('audio', 'visual')
  }
  means = {
    name: np.sum(value * weight) / np.sum(weight)
    for name, (value, weight) in task.metrics(outputs, batch).items()
  }
  reported = task.summarize(means)
  for level in ('segment', 'event'):
    got[f'evaluation_{level}'] = np.array(
      [reported[f'{level}_{name}'] for name in ('audio', 'visual', 'audio_visual', 'type', 'event')]
    )
  return got
