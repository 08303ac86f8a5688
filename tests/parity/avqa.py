"""Golden cases of the MUSIC-AVQA task and its grounding pre-stage.

Heads, gradients, whole models.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from configs import avqa as avqa_config
from configs import avqa_grounding as grounding_config
from dgsct_jax import tree
from dgsct_jax.convert import avqa, htsat, swin_v2, table
from dgsct_jax.models.heads.avqa import Answerer, Matching, QuestionEncoder
from dgsct_jax.tasks import avqa as task
from dgsct_jax.tasks import registry
from tests.parity import ave
from tests.parity.backbones import adapter_fields, channels_last
from tests.parity.golden import Case


class Head(nn.Module):
  """What of the AVQA model comes after the encoder, on the inputs of a case."""

  words: int
  answers: int

  def setup(self):
    self.matching, self.ask = Matching(), QuestionEncoder(self.words)
    self.answer = Answerer(self.answers)

  def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
    b = len(inputs['question'])
    audio = jax.nn.softmax(inputs['audio_map_logits']) @ inputs['audio_tokens']
    audio = rearrange(audio, '(b t) 1 e -> b t e', b=b)
    pictures = jnp.stack([inputs['visual_tokens'], inputs['negative_tokens']])
    found = self.matching(audio, rearrange(pictures, 'p (b t) n d -> b p t n d', b=b))
    question = self.ask(inputs['question'][:, None], pictures.shape[-1])
    reply = self.answer(question, found['heard'], found['seen'][:, 0], False)
    return found | reply | {'question': question}


def prepare(case: Case) -> tuple[Head, dict[str, Any], dict[str, Any]]:
  """Head, variables and inputs of a case."""
  words, answers = (
    case.shapes[name][0] for name in ('question_encoder.word2vec.weight', 'fc_ans.bias')
  )
  model, inputs = Head(words, answers), case.inputs()
  variables = table.convert(case.weights(), avqa.HEAD, table.targets(model, inputs))
  return (
    model,
    tree.unflatten(variables),
    inputs | {'valid': np.ones(len(inputs['answer']), np.float32)},
  )


def scores(outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
  """Our outputs and losses under the names of the release."""
  loss, parts = task.loss(outputs, batch | {'answer': batch['answer'][:, None]})
  own, other = (rearrange(outputs['match_logits'][:, i], 'b t c -> (b t) c') for i in (0, 1))
  return {
    'out_qa': outputs['logits'][:, 0],
    'out_match_posi': own,
    'out_match_nega': other,
    'loss': loss,
    'loss_qa': parts['answer'],
    'loss_match': 2 * parts['match'],
  }


def run_head(case: Case) -> dict[str, Any]:
  model, variables, inputs = prepare(case)

  @jax.jit
  def run(variables, inputs):
    outputs = model.apply(variables, inputs)
    return scores(outputs, inputs) | {'question': outputs['question'][:, 0]}

  return run(variables, inputs)


def run_head_gradients(case: Case) -> dict[str, Any]:
  model, variables, inputs = prepare(case)
  tokens = {name: x for name, x in inputs.items() if 'tokens' in name or 'map' in name}

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def run(variables, tokens, inputs):
    return scores(model.apply(variables, inputs | tokens), inputs)['loss']

  loss, (grads, input_grads) = jax.device_get(run(variables, tokens, inputs))
  grads = table.export(tree.flatten(grads), avqa.HEAD)
  of_inputs = {f'grad_input/{name}': x for name, x in input_grads.items()}
  return {'loss': loss} | case.gradients(grads) | of_inputs


def run_avqa(case: Case) -> dict[str, Any]:
  """The config that the package ships.

  With the negative frames that it leaves out of an evaluation.
  """
  settings, config = case.settings, avqa_config.get_config('released')
  assert not settings['is_bn'] and not settings['is_gate']
  config.model.remat = 'none'  # Nobody sees the intermediate values of what is rematerialised.
  config.model.adapter.update(adapter_fields(settings))
  model, inputs = registry.build(config).model, case.inputs()
  plan = avqa.plan(case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()})
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  batch = {
    'video': channels_last(inputs['frames']),
    'negative': channels_last(inputs['negative_frames']),
    'wave': inputs['wave'],
    'question': inputs['question'],
    'answer': inputs['answer'],
    'valid': np.ones(len(inputs['answer']), np.float32),
  }

  @jax.jit
  def run(variables, batch):
    seen = {}

    def record(call, args, kwargs, context):
      new = {}
      out = ave.record(new, call, args, kwargs, context)
      seen.update(new | seen)  # The frames of other clips come second.
      if context.module.path == ('encoder', 'visual') and context.method_name == '__call__':
        seen['negative_tokens'] = out
      return out

    def answer(model, batch):
      clip = model.perceive(batch['video'], batch['wave'], batch['negative'])
      return clip | model.reply(clip, batch['question'][:, None])

    with nn.intercept_methods(record):
      outputs = model.apply(variables, batch, method=answer)
    return seen | scores(outputs, batch)

  return run(variables, batch)


def run_grounding_head(case: Case) -> dict[str, Any]:
  inputs, model = case.inputs(), Matching()
  pictures = np.stack([inputs['visual_positive'], inputs['visual_negative']], 1)[:, :, None]
  audio = inputs['audio_tokens'].mean(1, keepdims=True)
  variables = table.convert(case.weights(), avqa.MATCHING, table.targets(model, audio, pictures))
  return judged(jax.jit(model.apply)(tree.unflatten(variables), audio, pictures))


def judged(outputs: dict[str, Any]) -> dict[str, Any]:
  match = outputs['match_logits']
  loss, _ = task.grounding_loss(outputs, {'valid': jnp.ones(len(match))})
  return {'match': rearrange(match, 'b p 1 c -> (b p) c'), 'loss': loss}


def run_grounding(case: Case) -> dict[str, Any]:
  model, inputs = registry.build(grounding_config.get_config('released')).model, case.inputs()
  batch = {'video': channels_last(inputs['frames']), 'wave': inputs['wave'][:, None]}
  backbones = nest_backbones(avqa.MATCHING)
  state = case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()}
  variables = tree.unflatten(table.convert(state, backbones, table.targets(model, batch)))

  @jax.jit
  def run(variables, batch):
    seen = {}

    def record(call, args, kwargs, context):
      out = call(*args, **kwargs)
      match context.module.path, context.method_name:
        case ('encoder', 'visual'), '__call__':
          seen['visual_positive'], seen['visual_negative'] = out[::2], out[1::2]
        case ('encoder', 'audio'), 'body':
          seen['audio_tokens'] = out
      return out

    with nn.intercept_methods(record):
      outputs = model.apply(variables, batch)
    return seen | judged(outputs)

  return run(variables, batch)


def nest_backbones(matching: table.Table) -> table.Table:
  """All of the pre-stage's network; the converter leaves the backbones to their own files."""
  return (
    table.nest(swin_v2.TABLE, 'swin.', 'encoder/visual/')
    + table.nest(htsat.TABLE, 'htsat.', 'encoder/audio/')
    + table.nest(matching, '', 'matching/')
  )
