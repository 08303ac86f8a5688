"""Golden cases of the AVS tasks: TPAVI, the segmenter, whole models, losses and metrics."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from configs import avs_ms3, avs_s4
from dgsct_jax import tree
from dgsct_jax.convert import avs, htsat, table
from dgsct_jax.models.heads.avs import TPAVI, Segmenter, under
from dgsct_jax.tasks import avs as task
from tests.parity import ave, golden
from tests.parity.backbones import channels_last, htsat_fields, swin_fields
from tests.parity.golden import Case


def weights(case: Case) -> dict[str, np.ndarray]:
  """Those of the case, and of the decoder's fusions if the case does not list them.

  Then those of the reference were not filled either, but as PyTorch drew them, others in every
  case, and nothing that comes out of them can be compared. (The pattern of the unread `conv1` to
  `conv4` took `path1.resConfUnit1.conv1` with it.) tests/models/heads/test_avs.py checks the
  decoder.
  """
  if any(name.startswith('path') for name in case.shapes):
    return case.weights()
  for name in ('path4', 'path3', 'path2', 'path1', 'pred'):
    case.outputs.pop(name, None)
  width = case.shapes['x1_linear_.bias'][0]
  shapes = {
    f'path{i}.resConfUnit{j}.conv{k}.{name}': shape
    for i in range(1, 5)
    for j in (1, 2)
    for k in (1, 2)
    for name, shape in (('weight', [width, width, 3, 3]), ('bias', [width]))
  }
  return case.weights() | golden.weights(shapes, case.seed)


def run_tpavi(case: Case) -> dict[str, Any]:
  """A block on its own, with the sound or with the picture in its place."""
  inputs, train = case.inputs(), case.settings['training']
  x, audio = rearrange(inputs['x'], 'b d t h w -> b t h w d'), inputs.get('audio')
  rows = avs.TPAVI if 'audio' in inputs else (*avs.TPAVI, ('align_channel', None, avs.NEVER_READ))
  rows = tuple(row for row in rows if 'audio' in inputs or row[1] != 'align')
  model = TPAVI()
  values = table.convert(case.weights(), rows, table.targets(model, x, audio, train=train))
  run = jax.jit(
    lambda values, x, audio: model.apply(values, x, audio, train, mutable=['batch_stats'])
  )
  (z, heard), state = run(tree.unflatten(values), x, audio)
  stats = state['batch_stats']['bn']
  return {
    'z': rearrange(z, 'b t h w d -> b d t h w'),
    'audio': heard,
    'running_mean': stats['mean'],
    'running_var': stats['var'],
  }


def run_head(case: Case) -> dict[str, Any]:
  inputs = case.inputs()
  sides = [round(inputs[f'scale{i}'].shape[1] ** 0.5) for i in range(4)]
  pyramid = [
    rearrange(inputs[f'scale{i}'], '(b t) (h w) d -> b t h w d', t=5, h=side)
    for i, side in enumerate(sides)
  ]
  pooled = jax.nn.softmax(inputs['audio_map_logits']) @ inputs['audio_tokens']
  audio = rearrange(pooled, '(b t) 1 e -> b t e', t=5)
  size = (4 * case.outputs['map0']['shape'][-1],) * 2
  model = Segmenter(case.settings['temporal_gamma'])
  targets = table.targets(model, pyramid, audio, size=size, train=False)
  values = tree.unflatten(table.convert(weights(case), avs.SEGMENTER, targets))

  @jax.jit
  def run(values, pyramid, audio):
    seen = {}

    def keep(call, args, kwargs, context):
      out = call(*args, **kwargs)
      if context.method_name == '__call__':
        seen.update(record(context.module.path, args, out))
      return out

    with nn.intercept_methods(keep):
      outputs = model.apply(values, pyramid, audio, size, False)
    return seen | scores(outputs)

  return run(values, pyramid, audio)


def run_avs(case: Case) -> dict[str, Any]:
  """The config that the package ships, at the sizes of the case."""
  config, plan = configure(case), avs.plan(weights(case) | front_end())
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  model, inputs = task.build(config).model, case.inputs()
  batch = {'video': channels_last(inputs['frames']), 'wave': inputs['wave']}

  @jax.jit
  def run(variables, batch):
    seen = {}

    def keep(call, args, kwargs, context):
      out = ave.record(seen, call, args, kwargs, context)
      if context.module.path[:1] == ('segment',) and context.method_name == '__call__':
        seen.update(record(context.module.path[1:], args, out))
      return out

    with nn.intercept_methods(keep):
      outputs = model.apply(variables, batch, False)
    return seen | scores(outputs)

  return run(variables, batch)


def configure(case: Case) -> Any:
  settings = case.settings
  assert not settings['is_bn'] and not settings['is_gate']
  s4 = settings['temporal_gamma'] == 0.05
  config = (avs_s4 if s4 else avs_ms3).get_config('released')
  if 'visual' in settings:
    config.model.visual = {'kind': 'swin_v2', 'variant': 'custom'} | swin_fields(settings['visual'])
    audio = htsat_fields({'spec_size': 256} | settings['audio'])
    config.model.audio = {'kind': 'htsat', 'variant': 'audioset', 'tile': 5} | audio
  for ours, theirs in (
    ('alpha', 'channel_gate'),
    ('beta', 'spatial_gate'),
    ('reduction', 'Adapter_downsample'),
    ('groups', 'num_conv_group'),
  ):
    assert config.model.adapter[ours] == settings[theirs], ours
  assert config.model.head.gamma == settings['temporal_gamma']
  config.model.adapter.tokens = settings['num_tokens']
  config.model.remat = 'none'  # Nobody sees the intermediate values of what is rematerialised.
  return config


def front_end() -> dict[str, np.ndarray]:
  return {f'htsat.{name}': x for name, x in htsat.front_end().items()}


def record(path: tuple[str, ...], args: tuple, out: Any) -> dict[str, Any]:
  """What the golden cases store of the segmenter, named and with its axes as in the release."""
  name, number = '/'.join(path[:-1]), path[-1][-1] if path else ''
  if path == ('audio',):
    return {'audio_clip': out}
  if path and path[0].startswith('tpavi_') and len(path) == 1:
    (x, heard), (gated, audio, _) = out, args
    found = {f'gated{number}': maps(gated), f'map{number}': maps(nn.relu(x))}
    audio = rearrange(audio, 'b t e -> (b t) e')
    return found | {f'audio_fea{number}': heard, 'audio_gated': audio}
  if name == 'decode' and path[-1].startswith('fuse_'):
    return {f'path{int(number) + 1}': maps(out)}
  return {}


def maps(x: jax.Array) -> jax.Array:
  return rearrange(x, 'b t h w d -> (b t) d h w')


def scores(outputs: dict[str, Any]) -> dict[str, Any]:
  return {'pred': rearrange(outputs['mask_logits'], 'b t h w -> (b t) 1 h w')}


TRAINED = (
  'plain',
  'kl',
)  # losses that the released training takes; others are of flags that it does not set


def run_metrics(case: Case) -> dict[str, Any]:
  """Metrics of eight batches of masks; losses and their gradients for the logits."""
  inputs, got = jax.device_get(case.inputs()), {}
  for name in list(case.outputs):
    kind, _, which = name.partition('_')
    if kind != 'metric' and which not in TRAINED:
      del case.outputs[name]
    elif kind == 'metric':
      got[name] = judged(inputs[f'logits_{which}'], inputs[f'mask_{which}'], case.outputs[name])
    elif kind == 'loss':
      got |= run_loss(inputs, which, first=case.name.startswith('avs_s4'))
  return got


def judged(logits: np.ndarray, noise: np.ndarray, output: dict[str, Any]) -> np.ndarray:
  """M_J and M_F of frames that are one batch; what is done to them is told by the case in words."""
  words = r'logits\*2 \+ (\S+?)( \+ 6\*\(mask - 0\.5\))?, mask = uniform < (\S+), first (\d) masks'
  offset, lift, density, empty = re.search(words, output['what']).groups()
  mask = (noise < np.float32(density)).astype(np.float32)
  mask[: int(empty)] = 0
  logits = logits * np.float32(2) + np.float32(offset)
  if lift:
    logits += 6 * (mask - np.float32(0.5))
  found = task.metrics({'mask_logits': logits[None]}, {'masks': mask[None]})
  means = {
    name: value[0] if weight[0] else np.nan * value[0] for name, (value, weight) in found.items()
  }
  found = task.released(means)
  return np.array([found['miou'], found['f_score']]) / 100


def run_loss(inputs: dict[str, np.ndarray], which: str, first: bool) -> dict[str, Any]:
  """A loss, its parts, and its gradient; `first`: only the first frames have masks."""
  of_clips = lambda x: rearrange(x, '(b t) ... -> b t ...', b=2)
  masks = of_clips(jnp.asarray(inputs['gt'][:, 0] < np.float32(0.3), jnp.float32))
  batch = {'masks': masks[:, :1] if first else masks, 'valid': jnp.ones(2)}
  pyramid = [jnp.moveaxis(of_clips(jax.nn.relu(inputs[name])), 2, -1) for name in ('v0', 'v1')]
  heard = jnp.stack([inputs['a0'], inputs['a1']], 2)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(logits):
    seen = jnp.stack([under(x, logits) for x in pyramid], 2)
    outputs = {'mask_logits': logits, 'seen': seen, 'heard': heard}
    return task.loss(outputs, batch, 0.5 if which == 'kl' else 0.0, matching_frames=0)

  (total, parts), grad = run(of_clips(inputs['pred'][:, 0]))
  extra = parts['matching'] / 0.5 if 'matching' in parts else 0.0
  return {
    f'loss_{which}': np.array([total, parts['mask'], extra]),
    f'grad_{which}': rearrange(grad, 'b t h w -> (b t) 1 h w'),
  }
