"""Checkpoints of the released audio-visual segmentation models, S4 and MS3."""

import jax
import numpy as np

from dgsct_jax.convert import dgsct
from dgsct_jax.convert.dgsct import NEVER_READ, TEMPLATE
from dgsct_jax.convert.table import (
  BATCH_NORM,
  BATCHES,
  CONV,
  DENSE,
  LSTM,
  MHA,
  NORM,
  POINTWISE_3D,
  Drop,
  Plan,
  State,
  Table,
  nest,
  side,
  targets,
)
from dgsct_jax.models.heads import avs

STAGES = range(4)
UNREAD_RESULT = Drop('its result is thrown away')

_LAYER: Table = (
  ('self_attn', 'attn', MHA),
  ('linear1', 'linear1', DENSE),
  ('linear2', 'linear2', DENSE),
  ('norm1', 'norm1', NORM),
  ('norm2', 'norm2', NORM),
)


def _gates(theirs: str, ours: str) -> Table:
  """What the gates of all stages do to one stream."""
  return (
    (f'{theirs}_encoder.#.affine_matrix', f'gate_#/{ours}_encoder/affine', DENSE),
    *nest(_LAYER, f'{theirs}_encoder.#.encoder.layers.#.', f'gate_#/{ours}_encoder/layers_#/'),
    (f'{theirs}_encoder.#.encoder_layer', None, TEMPLATE),
    (f'{theirs}_decoder', None, UNREAD_RESULT),
    (f'audio_visual_rnn_layer.#.{ours}_rnn', f'gate_#/{ours}_rnn', LSTM),
    (f'{theirs}_gated.#.0', f'gate_#/{ours}_gate', DENSE),
  )


TPAVI: Table = (
  ('align_channel', 'align', DENSE),
  ('g', 'g', POINTWISE_3D),
  ('theta', 'theta', POINTWISE_3D),
  ('phi', 'phi', POINTWISE_3D),
  ('W_z.0', 'out', POINTWISE_3D),
  ('W_z.1', 'bn', BATCH_NORM),
  ('W_z.1.num_batches_tracked', None, BATCHES),
  ('norm_layer', 'norm', NORM),
)
FUSION: Table = tuple(
  (f'{theirs}.{layer}', f'{ours}/{layer}', CONV)
  for theirs, ours in (('resConfUnit1', 'own'), ('resConfUnit2', 'both'))
  for layer in ('conv1', 'conv2')
)
SEGMENTER: Table = (
  ('audio_linear', 'audio', DENSE),
  ('temporal_attn.v_fc.#', 'gate_#/visual_fc', DENSE),
  *nest(_gates('video', 'visual') + _gates('audio', 'audio'), 'temporal_attn.', ''),
  # The released names count the stages from 1.
  *((f'x{i + 1}_linear_', f'project_{i}', DENSE) for i in STAGES),
  *sum((nest(TPAVI, f'tpavi_b{i + 1}.', f'tpavi_{i}/') for i in STAGES), ()),
  *sum((nest(FUSION, f'path{i + 1}.', f'decode/fuse_{i}/') for i in STAGES), ()),
  ('path4.resConfUnit1', None, Drop('no coarser map comes to the coarsest')),
  *((f'output_conv.{2 * i}', f'decode/out_{i}', CONV) for i in range(3)),
  ('x#_linear', None, NEVER_READ),
  ('conv#', None, NEVER_READ),
  ('encoder_backbone', None, Drop('PVT, which Swin has replaced')),
)
SEGMENT: Table = nest(SEGMENTER, '', 'segment/')
TABLES = {
  task: nest(dgsct.encoder(f'avs_{task}'), '', 'encoder/') + SEGMENT for task in ('s4', 'ms3')
}
# What tells the tasks apart: both files have the same names.
REDUCTIONS = {8: 's4', 2: 'ms3'}
ADAPTERS = {  # fields of the adapters that no shape tells
  's4': dict(norm_before=False, token_map='resize'),
  'ms3': dict(norm_before=False, token_map='linear'),
}


def plan(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of a released AVS task; `hint` is not needed.

  Raises:
    ValueError: it is neither S4's nor MS3's.
  """
  del hint
  state = dgsct.recognise(
    state,
    'AVS',
    'audio_adapter_blocks_p1.0.my_tokens',
    'swin.patch_embed.proj.weight',
    'tpavi_b1.align_channel.weight',
  )
  task = task_of(state)
  return Plan('dgsct', f'avs_{task}', state, TABLES[task], shapes(state, task))


def task_of(state: State) -> str:
  """'s4' or 'ms3', by the bottleneck of the adapters."""
  reduction = dgsct.adapter(state, 'vis').keywords['reduction']
  if reduction not in REDUCTIONS:
    raise ValueError(
      f'The adapters reduce the width by {reduction}; S4 was released with 8, MS3 with 2, and'
      ' nothing else tells the two apart. Convert a checkpoint of one of them.'
    )
  return REDUCTIONS[reduction]


def shapes(state: State, task: str) -> dict[str, tuple[int, ...]]:
  """Targets of the AVS model whose sizes a state dict tells."""
  encoder, image = dgsct.model(state, **ADAPTERS[task])
  return targets(
    avs.AVS(encoder, avs.Segmenter(width=side(state, 256, ('x1_linear_.bias', 0, 1)))),
    {
      'video': jax.ShapeDtypeStruct((1, 2, image, image, 3), np.float32),
      'wave': jax.ShapeDtypeStruct((1, 2, 32000), np.float32),
    },
  )
