"""Golden cases of LAVISH: the front end, its adapter, the whole AVE model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.convert import dgsct, lavish, table
from dgsct_jax.convert.table import RAW
from dgsct_jax.models.adapters import Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads.lavish import Classifier, Seconds
from dgsct_jax.models.kaldi import Fbank, fbank
from dgsct_jax.models.lavish import LavishAdapter
from dgsct_jax.models.listener import Listener
from dgsct_jax.models.swin_v2 import SwinV2
from tests.parity.backbones import channels_last, swin_fields
from tests.parity.golden import Case

ADAPTER = (*dgsct.ADAPTER, ('gate_tk', 'read_gate', RAW))


def run_front_end(case: Case) -> dict[str, jax.Array]:
  inputs = case.inputs()
  wave, long = inputs['wave'][None], inputs['wave_long'][None]
  got: dict[str, Any] = {
    'fbank_192': fbank(wave, 16000, 192, 83),
    'image_192': Fbank().apply({}, wave),
    'fbank_128': fbank(wave, 16000, 128, 160),
    'fbank_224': fbank(wave, 16000, 224, 70),
    'fbank_192_long': fbank(long, 16000, 192, 160),
  }
  return {name: x[0] for name, x in got.items()}


def run_adapter(case: Case) -> dict[str, Any]:
  inputs, state = case.inputs(), case.weights()
  model = LavishAdapter(**lavish.fields(state), token_gate='gate_tk' in state)
  train = case.settings.get('training', False)
  targets = table.targets(model, inputs['x'], inputs['other'], train=train)
  variables = tree.unflatten(table.convert(state, ADAPTER, targets))

  @jax.jit
  def run(variables, x, other):
    return model.apply(variables, x, other, train, mutable=['batch_stats'])

  (out, pooling), after = run(variables, inputs['x'], inputs['other'])
  assert jnp.ptp(pooling) == 0
  stats = after['batch_stats']
  return {'output': out, 'bn1_mean': stats['bn_down']['mean'], 'bn2_var': stats['bn_up']['var']}


class Picture(nn.Module):
  """A front end that is given the spectrogram, as the released network is."""

  def __call__(self, picture: jax.Array) -> jax.Array:
    return picture


def run_ave(case: Case) -> dict[str, Any]:
  """The whole model with one backbone for both streams."""
  state, inputs = case.weights(), case.inputs()
  plan = lavish.plan_ave(state)
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  settings = case.settings.get('visual')
  swin = SwinV2(**swin_fields(settings)) if settings else SwinV2()
  exchange = lambda: Exchange(lavish.adapter(state, 'vis'), lavish.adapter(state, 'audio'))
  encoder = DualEncoder(
    swin, Listener(swin, Picture()), exchange, split_audio=True, norm_audio=True
  )
  model = Seconds(encoder, Classifier())

  @jax.jit
  def run(variables, batch):
    seen = {}

    def record(call, args, kwargs, context):
      out = call(*args, **kwargs)
      if context.method_name == '__call__':
        match '/'.join(context.module.path):
          case 'encoder/exchange_attn_0/visual':
            seen['visual_adapter'] = out[0]
          case 'encoder/exchange_attn_0/audio':
            seen['audio_adapter'] = out[0]
          case 'encoder':
            seen['visual_stage0'], seen['visual_stage2'] = out.visual_pyramid[:3:2]
            seen['visual_tokens'], seen['audio_tokens'] = out.visual, out.audio
      return out

    with nn.intercept_methods(record):
      outputs = model.apply(variables, batch)
    return seen | {'prob': jax.nn.softmax(outputs['logits']).reshape(-1, 29)}

  return run(variables, {'video': channels_last(inputs['frames']), 'wave': inputs['audio']})
