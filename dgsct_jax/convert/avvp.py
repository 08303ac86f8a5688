"""Checkpoints of the released AVVP model, `MGN_Net.pt`."""

import jax
import numpy as np

from dgsct_jax.convert import dgsct
from dgsct_jax.convert.dgsct import NEVER_READ, TEMPLATE
from dgsct_jax.convert.table import (
  DENSE,
  LSTM,
  MHA,
  NORM,
  RAW,
  Drop,
  Plan,
  State,
  Table,
  nest,
  split_mha,
  targets,
)
from dgsct_jax.models.heads import avvp

UNHEARD = Drop('leads to the gated sound, which is thrown away')
MOTION = 512  # features of R(2+1)D a second

BLOCK: Table = (
  ('norm1', 'norm1', NORM),
  ('attn.qkv', 'attn/in_proj', DENSE),
  ('attn.proj', 'attn/out_proj', DENSE),
  ('norm2', 'norm2', NORM),
  ('mlp.fc1', 'mlp/fc1', DENSE),
  ('mlp.fc2', 'mlp/fc2', DENSE),
)
GROUPING: Table = (
  ('norm_tokens', 'norm_groups', NORM),
  ('norm_x', 'norm_x', NORM),
  ('mlp_inter.fc1', 'mix/fc1', DENSE),
  ('mlp_inter.fc2', 'mix/fc2', DENSE),
  ('norm_post_tokens', 'norm_mixed', NORM),
  ('pre_assign_attn.attn', 'attn', split_mha('q_proj', 'k_proj', 'v_proj', 'proj')),
  ('pre_assign_attn.norm2', 'norm2', NORM),
  ('pre_assign_attn.mlp.fc1', 'mlp/fc1', DENSE),
  ('pre_assign_attn.mlp.fc2', 'mlp/fc2', DENSE),
  ('pre_assign_attn.norm_post', 'norm_post', NORM),
  ('assign.q_proj', 'query', DENSE),
  ('assign.k_proj', 'key', DENSE),
  ('assign.v_proj', 'value', DENSE),
  ('assign.proj', 'out', DENSE),
  ('norm_new_x', 'norm_out', NORM),
  ('mlp_channels.fc1', 'mlp_out/fc1', DENSE),
  ('mlp_channels.fc2', 'mlp_out/fc2', DENSE),
)
GROUPS: Table = (
  nest(BLOCK, 'blocks.#.', 'blocks_#/')
  + nest(GROUPING, 'grouping.', 'grouping/')
  + nest(GROUPING, 'han_encoder.', 'other/')
)


def gate(theirs: str) -> Table:
  """The half of the released temporal attention in which one stream, `audio` or `video`, guides."""
  rnn = 'audio' if theirs == 'audio' else 'visual'
  layer: Table = (
    ('self_attn', 'attn', MHA),
    ('linear1', 'linear1', DENSE),
    ('linear2', 'linear2', DENSE),
    ('norm1', 'norm1', NORM),
    ('norm2', 'norm2', NORM),
  )
  return (
    (f'audio_visual_rnn_layer.{rnn}_rnn', 'rnn', LSTM),
    (f'{theirs}_encoder.affine_matrix', 'encoder/affine', DENSE),
    *nest(layer, f'{theirs}_encoder.encoder.layers.#.', 'encoder/layers_#/'),
    (f'{theirs}_encoder.encoder_layer', None, TEMPLATE),
    (f'{theirs}_gated.0', 'gate', DENSE),
  )


HEAD: Table = nest(
  (
    ('audio_token', 'audio_tokens', RAW),
    ('visual_token', 'visual_tokens', RAW),
    ('fc_a', 'audio_fc', DENSE),
    ('fc_v', 'visual_fc', DENSE),
    ('fc_st', 'motion_fc', DENSE),
    ('fc_fusion', 'fusion', DENSE),
    ('fc_prob', 'joint_class', DENSE),
    ('fc_prob_a', 'audio_class', DENSE),
    ('fc_prob_v', 'visual_class', DENSE),
    ('fc_cls', 'token_class', DENSE),
    *nest(GROUPS, 'audio_cug.', 'audio_groups/'),
    *nest(GROUPS, 'visual_cug.', 'visual_groups/'),
    *nest(GROUPS, 'av_mcg.', 'joint_groups/'),
    *nest(gate('audio'), 'temporal_attn.', 'temporal/'),
  ),
  '',
  'parse/',
) + (
  ('temporal_attn.video_encoder', None, UNHEARD),
  ('temporal_attn.audio_visual_rnn_layer.visual_rnn', None, UNHEARD),
  ('temporal_attn.video_gated', None, UNHEARD),
)
AVVP: Table = (
  nest(dgsct.encoder('avvp'), '', 'encoder/')
  + HEAD
  + (('adapter_token_downsampler', None, NEVER_READ),)
)


def plan(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of the released AVVP task; `hint` is not needed."""
  del hint
  state = dgsct.recognise(
    state,
    'AVVP',
    'audio_adapter_blocks_p1.0.my_tokens',
    'swin.patch_embed.proj.weight',
    'audio_cug.han_encoder.mlp_inter.fc2.bias',
  )
  return Plan('dgsct', 'avvp', state, AVVP, shapes(state))


def shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the AVVP model whose sizes a state dict tells."""
  encoder, image = dgsct.model(state)
  t = seconds(state)
  return targets(
    avvp.AVVP(encoder, parser(state)),
    {
      'video': jax.ShapeDtypeStruct((1, t, image, image, 3), np.float32),
      'wave': jax.ShapeDtypeStruct((1, t, 32000), np.float32),
      'motion': jax.ShapeDtypeStruct((1, t, MOTION), np.float32),
    },
  )


def parser(state: State) -> avvp.Parser:
  """A parser whose variables have the sizes of a state dict."""
  classes, width = state['fc_cls.weight'].shape
  depth = lambda name: sum(key.startswith(f'{name}.blocks.') for key in state) // (2 * len(BLOCK))
  return avvp.Parser(
    classes,
    width,
    audio_depth=depth('audio_cug'),
    visual_depth=depth('visual_cug'),
    joint_depth=depth('av_mcg'),
    gate_width=state['temporal_attn.audio_gated.0.weight'].shape[1],
  )


def seconds(state: State) -> int:
  """How many a clip has: an MLP mixes them."""
  return len(state['audio_cug.han_encoder.mlp_inter.fc2.bias'])
