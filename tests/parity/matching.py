"""Golden cases of matching with words: the whole few-shot and zero-shot models."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.convert import htsat, matching, table
from dgsct_jax.data.datasets import ave
from dgsct_jax.models import clap, clip
from dgsct_jax.models import htsat as htsat_model
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.heads.matching import Classes, Matching
from dgsct_jax.tokenizers import clip as tokenizer
from tests.parity.backbones import channels_last
from tests.parity.golden import Case

AUDIO_SCALE = np.float32(4)  # what the case's notes say; it is not in a checkpoint


def build(case: Case) -> Matching:
  """The released model; of the RoBERTa ids, which the case made up, those that it stores."""
  settings, wanted = case.settings, case.wanted()
  names = ave.CLASSES if settings['weak'] else (*ave.CLASSES, 'background')
  prompts = tokenizer.encode([f'X X X X {name}.' for name in names])
  rows = lambda ids: tuple(map(tuple, np.reshape(ids, (len(names), -1)).tolist()))
  adapter = functools.partial(
    DGSCTAdapter,
    alpha=settings['alpha'],
    beta=settings['beta'],
    gamma=settings['gamma'],
    tokens=settings['num_tokens'],
    reduction=settings['Adapter_downsample'],
    groups=settings['num_conv_group'],
  )
  return Matching(
    None,
    clip.build(settings['ViT'].removeprefix('ViT-')),
    clap.CLAP(htsat_model.build('audioset', tile=10), clap.Roberta()),
    Classes(
      rows(prompts), tuple(len(tokenizer.words(name)) for name in names), rows(wanted['clap_ids'])
    ),
    functools.partial(Exchange, adapter),
    merge='released' if settings['weak'] else 'sum',
  )


def run_matching(case: Case) -> dict[str, Any]:
  """Every intermediate value that the case stores."""
  model, weights, inputs = build(case), case.weights(), case.inputs()
  plan = matching.plan(
    weights
    | {f'htsat.{name}': x for name, x in htsat.front_end().items()}
    | {'logit_scale_a': np.full((), AUDIO_SCALE), 'logit_scale_t': np.ones(())}
  )
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  batch = {'video': channels_last(inputs['frames']), 'wave': inputs['wave']}
  # The case fills the embedded names anew instead of looking them up.
  prefix, suffix = (weights[f'prompt_learner.token_{name}'] for name in ('prefix', 'suffix'))
  embedded = np.concatenate([prefix, np.zeros((len(prefix), 4, 512), np.float32), suffix], 1)

  @jax.jit
  def run(variables, batch, embedded):
    seen = {}

    def record(call, args, kwargs, context):
      path, method = '/'.join(context.module.path), context.method_name
      if (path, method) == ('clip/text', 'embed'):
        return embedded[:, : args[0].shape[1]]
      if (path, method) == ('clip/visual/stages_0/blocks_1', 'attend'):
        seen['visual_block0'] = jnp.swapaxes(args[0], 0, 1)
      out = call(*args, **kwargs)
      match path, method:
        case 'clip/visual', 'stem':
          seen['visual_pre'] = out
        case 'encoder/exchange_attn_0/audio', '__call__':
          seen['audio_adapter_p1_0'] = out[0]
        case 'encoder/exchange_attn_0/visual', '__call__':
          seen['visual_adapter_p1_0'] = out[0]
        case 'encoder/exchange_attn_0/visual/temporal_gate', '__call__':
          seen['temporal_gate_0'] = jax.nn.sigmoid(out).reshape(-1, 10, 1, 1)
        case 'encoder', '__call__':
          seen.update((f'audio_stage{i}', x) for i, x in enumerate(out.audio_pyramid[:-1]))
        case 'clap/audio/norm', '__call__':
          seen['audio_tokens'] = out
        case 'prompt', '__call__':  # What follows the last end is cut off.
          seen['prompts'] = jnp.concatenate([out, embedded[:, out.shape[1] :]], 1)
        case '', 'read':
          seen['clip_text'], seen['clap_text'] = out['visual'], out['audio']
        case '', 'perceive':
          seen['visual_feature'], seen['audio_feature'] = flat(out['visual']), flat(out['audio'])
      return out

    with nn.intercept_methods(record):
      outputs = model.apply(variables, batch)
    return seen | {
      'logits_visual': flat(outputs['visual_logits']),
      'logits_audio': flat(outputs['audio_logits']),
      'event_scores': flat(outputs['logits']),
      'logits_audio_image': outputs['contrast'],
      'logits_image_audio': outputs['contrast'].T,
    }

  ids = np.asarray(model.classes.clap)
  return run(variables, batch, embedded) | {
    'prompt_ids': np.asarray(model.classes.clip),
    'clap_ids': ids,
    'clap_mask': (ids != clap.PADDING).astype(int),
  }


def flat(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])
