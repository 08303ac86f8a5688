"""Checkpoints of the released DG-SCT tasks: backbones, adapters and head in one state dict."""

import math
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert import htsat as htsat_source
from dgsct_jax.convert import swin_v2 as swin_source
from dgsct_jax.convert.table import (
  BATCH_NORM,
  BATCHES,
  DENSE,
  GROUPED,
  LSTM,
  MHA,
  NORM,
  RAW,
  TOKEN_MAP,
  Drop,
  Plan,
  State,
  Table,
  below,
  nest,
  side,
  targets,
  unwrap,
)
from dgsct_jax.models import htsat, swin_v2
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import ave
from dgsct_jax.models.temporal import TemporalAttention
from dgsct_jax.models.variants import Partial

NEVER_READ = Drop('never read')
TEMPLATE = Drop('template that PyTorch copies its layers from')

ADAPTER: Table = (
  ('conv_adapter', 'token_map', TOKEN_MAP),
  ('fc', 'channel_map', DENSE),
  ('my_tokens', 'tokens', RAW),
  ('gate_av', 'tokens_gate', RAW),
  # In the released names 'video' is always the adapted stream and 'audio' the guiding one, in audio
  # adapters too.
  ('fc_affine_video_1', 'channel_own', DENSE),
  ('fc_affine_audio_1', 'channel_guide', DENSE),
  ('fc_affine_bottleneck', 'channel_bottleneck', DENSE),
  ('fc_affine_v_c_att', 'channel_out', DENSE),
  ('fc_affine_video_2', 'spatial_own', DENSE),
  ('fc_affine_audio_2', 'spatial_guide', DENSE),
  ('fc_affine_v_s_att', 'spatial_out', DENSE),
  ('temporal_gated.0', 'temporal_gate', DENSE),
  ('ln_before', 'norm_before', NORM),
  ('down_sampler', 'down', GROUPED),
  ('bn1', 'bn_down', BATCH_NORM),
  ('up_sampler', 'up', GROUPED),
  ('bn2', 'bn_up', BATCH_NORM),
  ('ln_post', 'norm_post', NORM),
  ('gate', 'gate', RAW),
  ('bn#.num_batches_tracked', None, BATCHES),
)
UNUSED: dict[str, Table] = {  # what the adapters of a task carry without need
  'ave': (('gate_tk', None, NEVER_READ),),
  'avqa': (),
  'avvp': (
    ('gate_tk', None, NEVER_READ),
    ('fc_caption', None, NEVER_READ),
    ('temporal_gated', None, NEVER_READ),
  ),
  'avs_s4': (
    ('conv_adapter', None, Drop('a bicubic resize takes its place')),
    ('ln_before', None, NEVER_READ),
    ('temporal_gated', None, NEVER_READ),
  ),
  'avs_ms3': (('ln_before', None, NEVER_READ), ('temporal_gated', None, NEVER_READ)),
  'fewshot': (('gate_tk', None, NEVER_READ), ('fc_caption', None, NEVER_READ)),
}


def encoder(task: str) -> Table:
  """Both backbones and the adapters between them."""
  return (
    nest(swin_source.TABLE, 'swin.', 'visual/')
    + nest(htsat_source.TABLE, 'htsat.', 'audio/')
    + exchanges(ADAPTER + UNUSED[task])
  )


def exchanges(adapter: Table) -> Table:
  """The adapters of all exchanges."""
  lists = (
    ('audio_adapter_blocks_p1', 'exchange_attn_#/audio'),
    ('vis_adapter_blocks_p1', 'exchange_attn_#/visual'),
    ('audio_adapter_blocks_p2', 'exchange_mlp_#/audio'),
    ('vis_adapter_blocks_p2', 'exchange_mlp_#/visual'),
  )
  return sum((nest(adapter, f'{theirs}.#.', f'{ours}/') for theirs, ours in lists), ())


def _stream(theirs: str, ours: str) -> Table:
  """What `TemporalAttention` does to one stream."""
  layer: Table = (
    ('linear1', 'linear1', DENSE),
    ('linear2', 'linear2', DENSE),
    ('norm1', 'norm1', NORM),
    ('norm2', 'norm2', NORM),
  )
  reads_itself: Table = (('self_attn', 'attn', MHA), *layer)
  reads_other: Table = (
    ('multihead_attn', 'attn', MHA),
    *layer,
    ('self_attn', None, Drop('the decoder layer is called without its self-attention')),
  )
  return (
    (f'{theirs[0]}_fc', f'{ours}_fc', DENSE),
    (f'audio_visual_rnn_layer.{"audio" if ours == "audio" else "visual"}_rnn', f'{ours}_rnn', LSTM),
    (f'{theirs}_encoder.affine_matrix', f'{ours}_encoder/affine', DENSE),
    *nest(reads_itself, f'{theirs}_encoder.encoder.layers.#.', f'{ours}_encoder/layers_#/'),
    (f'{theirs}_encoder.encoder_layer', None, TEMPLATE),
    (f'{theirs}_decoder.affine_matrix', f'{ours}_decoder/affine', DENSE),
    *nest(reads_other, f'{theirs}_decoder.decoder.layers.0.', f'{ours}_decoder/layer/'),
    (f'{theirs}_decoder.decoder_layer', None, TEMPLATE),
    (f'{theirs}_gated.0', f'{ours}_gate', DENSE),
  )


AVE_HEAD: Table = nest(
  _stream('video', 'visual') + _stream('audio', 'audio'), 'temporal_attn.', 'temporal/'
) + (
  ('CMBS.localize_module.classifier', 'localize/is_event', DENSE),
  ('CMBS.localize_module.event_classifier', 'localize/event', DENSE),
  ('CMBS.video_cas', 'localize/visual_cas', DENSE),
  ('CMBS.audio_cas', 'localize/audio_cas', DENSE),
  ('CMBS.AVInter', None, Drop('its result is thrown away')),
  ('CMBS.VAInter', None, Drop('its result is thrown away')),
  ('CMBS.video_norm', None, NEVER_READ),
  ('CMBS.audio_norm', None, NEVER_READ),
)
AVE = (
  nest(encoder('ave'), '', 'encoder/')
  + AVE_HEAD
  + (('adapter_token_downsampler', None, NEVER_READ),)
)


def plan_ave(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of the released AVE task; `hint` is not needed."""
  del hint
  state = recognise(
    state,
    'AVE',
    'audio_adapter_blocks_p1.0.my_tokens',
    'swin.patch_embed.proj.weight',
    'CMBS.video_cas.bias',
  )
  return Plan('dgsct', 'ave', state, AVE, ave_shapes(state))


def recognise(state: State, task: str, *names: str) -> State:
  """The state dict without wrappers; raises ValueError where one of the names is missing."""
  state = unwrap(state)
  if missing := [name for name in names if name not in state]:
    raise ValueError(
      f'No released {task} checkpoint: {", ".join(missing)} missing among {len(state)} tensors'
      f' such as {", ".join(sorted(state)[:3])}.'
    )
  return state


def ave_shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the AVE model whose sizes a state dict tells."""
  encoder, image = model(state)
  whole = ave.AVE(
    encoder,
    TemporalAttention(width=side(state, 512, ('temporal_attn.v_fc.bias', 0, 1)) // 2),
    ave.Localizer(classes=side(state, 28, ('CMBS.video_cas.bias', 0, 1))),
  )
  return targets(
    whole,
    {
      'video': jax.ShapeDtypeStruct((1, 2, image, image, 3), np.float32),
      'wave': jax.ShapeDtypeStruct((1, 2, 32000), np.float32),
    },
  )


def model(state: State, **fields: Any) -> tuple[DualEncoder, int]:
  """A dual encoder whose variables have the sizes of a state dict, and the side of its images.

  fields: of the adapters that no shape tells.
  """
  visual, audio = (
    source.sizes(below(state, prefix))
    for source, prefix in ((swin_source, 'swin.'), (htsat_source, 'htsat.'))
  )
  image, spectrogram = (grid * sizes['patch'] for grid, sizes in zip(grids(state), (visual, audio)))
  return DualEncoder(
    swin_v2.build('custom', image=image, window=image, **visual),
    htsat.build('audioset', size=spectrogram, **audio),
    Partial(Exchange, adapter(state, 'vis', **fields), adapter(state, 'audio', **fields)),
  ), image


def adapter(state: State, stream: str, **fields: Any) -> Partial[DGSCTAdapter]:
  """Makes adapters of the sizes that the first one of a stream has, and with these fields."""
  first = below(state, f'{stream}_adapter_blocks_p1.0.')
  width = side(first, 96, ('fc.bias', 0, 1))
  return Partial(
    DGSCTAdapter,
    reduction=width // side(first, width, ('down_sampler.weight', 0, 4)),
    groups=width // side(first, width, ('down_sampler.weight', 1, 4)),
    tokens=side(first, 32, ('my_tokens', 0, 2)),
    batch_norm='bn1.weight' in first,
    gate='gate' in first,
    **fields,
  )


def grids(state: State) -> tuple[int, int]:
  """Sides of the visual and audio token grids of stage 0.

  Raises:
    ValueError: one is over 128, which no image of a release gives and which would cost gigabytes.
  """
  names = [f'{stream}_adapter_blocks_p1.0.conv_adapter.bias' for stream in ('vis', 'audio')]
  seen, heard = (math.isqrt(side(state, n**2, (name, 0, 1))) for name, n in zip(names, (48, 64)))
  sides = seen, heard
  if max(sides) > 128:
    raise ValueError(f'{names[sides.index(max(sides))]}: too long for a grid of tokens.')
  return sides
