"""Swin V2 checkpoints.

Of timm 0.6.12, timm 0.9 and later, Microsoft, and transformers (Swinv2Model).
"""

import math
import re
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert import table
from dgsct_jax.convert.table import (
  CONV,
  DENSE,
  LOGIT_SCALE,
  MATRIX,
  NORM,
  RAW,
  SAME,
  Drop,
  Leaf,
  Plan,
  State,
  Table,
  below,
  side,
  targets,
  unwrap,
)
from dgsct_jax.models import swin_v2

COMPUTED = Drop('computed from the shapes of the windows')
HEAD = Drop('ImageNet classifier')

BLOCKS: Table = (
  ('patch_embed.proj', 'patch_embed/proj', CONV),
  ('patch_embed.norm', 'patch_embed/norm', NORM),
  ('layers.#.blocks.#.attn.logit_scale', 'stages_#/blocks_#/attn/logit_scale', LOGIT_SCALE),
  ('layers.#.blocks.#.attn.q_bias', 'stages_#/blocks_#/attn/q_bias', RAW),
  ('layers.#.blocks.#.attn.v_bias', 'stages_#/blocks_#/attn/v_bias', RAW),
  ('layers.#.blocks.#.attn.cpb_mlp.0', 'stages_#/blocks_#/attn/cpb_mlp/fc1', DENSE),
  ('layers.#.blocks.#.attn.cpb_mlp.2', 'stages_#/blocks_#/attn/cpb_mlp/fc2', DENSE),
  ('layers.#.blocks.#.attn.qkv', 'stages_#/blocks_#/attn/qkv', DENSE),
  ('layers.#.blocks.#.attn.proj', 'stages_#/blocks_#/attn/proj', DENSE),
  ('layers.#.blocks.#.norm1', 'stages_#/blocks_#/norm1', NORM),
  ('layers.#.blocks.#.norm2', 'stages_#/blocks_#/norm2', NORM),
  ('layers.#.blocks.#.mlp.fc1', 'stages_#/blocks_#/mlp/fc1', DENSE),
  ('layers.#.blocks.#.mlp.fc2', 'stages_#/blocks_#/mlp/fc2', DENSE),
  ('norm', 'norm', NORM),
  ('layers.#.blocks.#.attn_mask', None, COMPUTED),
  ('layers.#.blocks.#.attn.relative_coords_table', None, COMPUTED),
  ('layers.#.blocks.#.attn.relative_position_index', None, COMPUTED),
  ('layers.#.blocks.#.attn.k_bias', None, Drop('a constant zero')),
  ('head', None, HEAD),
)
# Patch merging ends a stage here and, from timm 0.9 on, begins the next one.
TABLE = BLOCKS + (
  ('layers.#.downsample.reduction', 'stages_#/downsample/reduction', DENSE),
  ('layers.#.downsample.norm', 'stages_#/downsample/norm', NORM),
)
TABLE_TIMM_09 = BLOCKS + tuple(
  row
  for i in range(8)
  for row in (
    (f'layers.{i + 1}.downsample.reduction', f'stages_{i}/downsample/reduction', DENSE),
    (f'layers.{i + 1}.downsample.norm', f'stages_{i}/downsample/norm', NORM),
  )
)

_BLOCK, _OURS = 'encoder.layers.#.blocks.#.', 'stages_#/blocks_#/'
_QKV = (
  Leaf(('.query.weight', '.key.weight', '.value.weight'), '/qkv/kernel', MATRIX),
  Leaf(('.query.bias',), '/q_bias', SAME),
  Leaf(('.value.bias',), '/v_bias', SAME),
)
TABLE_TRANSFORMERS: Table = (
  ('embeddings.patch_embeddings.projection', 'patch_embed/proj', CONV),
  ('embeddings.norm', 'patch_embed/norm', NORM),
  (_BLOCK + 'attention.self.logit_scale', _OURS + 'attn/logit_scale', LOGIT_SCALE),
  (_BLOCK + 'attention.self.continuous_position_bias_mlp.0', _OURS + 'attn/cpb_mlp/fc1', DENSE),
  (_BLOCK + 'attention.self.continuous_position_bias_mlp.2', _OURS + 'attn/cpb_mlp/fc2', DENSE),
  (_BLOCK + 'attention.self', _OURS + 'attn', _QKV),
  (_BLOCK + 'attention.output.dense', _OURS + 'attn/proj', DENSE),
  (_BLOCK + 'layernorm_before', _OURS + 'norm1', NORM),
  (_BLOCK + 'layernorm_after', _OURS + 'norm2', NORM),
  (_BLOCK + 'intermediate.dense', _OURS + 'mlp/fc1', DENSE),
  (_BLOCK + 'output.dense', _OURS + 'mlp/fc2', DENSE),
  ('encoder.layers.#.downsample.reduction', 'stages_#/downsample/reduction', DENSE),
  ('encoder.layers.#.downsample.norm', 'stages_#/downsample/norm', NORM),
  ('layernorm', 'norm', NORM),
  (_BLOCK + 'attention.self.relative_coords_table', None, COMPUTED),
  (_BLOCK + 'attention.self.relative_position_index', None, COMPUTED),
  ('embeddings.mask_token', None, Drop('for masked pre-training')),
  ('classifier', None, HEAD),
)


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout and the variant of a Swin V2 checkpoint.

  `hint`: the file's name or address; it decides where sizes alone leave several variants.
  """
  state, features = _plain_names(unwrap(state))
  if any(name.startswith('swinv2.') for name in state):  # a model with a classifier on top
    state = below(state, 'swinv2.') | {
      name: x for name, x in state.items() if not name.startswith('swinv2.')
    }
  names = set(state)
  if not any('logit_scale' in name for name in names):
    raise ValueError(
      f'No Swin V2 in this file: no name has logit_scale among {len(names)} such as '
      f'{", ".join(sorted(names)[:3])}.'
    )
  if any(name.startswith('encoder.layers.') for name in names):
    layout, rows = 'transformers', TABLE_TRANSFORMERS
  elif (
    'layers.1.downsample.reduction.weight' in names
    and 'layers.0.downsample.reduction.weight' not in names
  ):
    layout, rows = 'timm >= 0.9', TABLE_TIMM_09
  elif 'layers.0.blocks.0.attn.relative_position_index' in names:
    layout, rows = 'microsoft', TABLE
  else:
    layout, rows = 'timm 0.6.12', TABLE
  fields = sizes(state)
  return Plan(layout + features, variant(fields, window(state), hint), state, rows, shapes(fields))


def _plain_names(state: State) -> tuple[State, str]:
  """Under features_only timm writes layers_0 for layers.0, and leaves the last norm out."""
  renamed = {re.sub(r'^layers_([0-9]+)\.', r'layers.\1.', name): x for name, x in state.items()}
  return (renamed, ', features_only') if renamed.keys() != state.keys() else (state, '')


def sizes(state: State) -> dict[str, Any]:
  """The fields of `SwinV2` that shapes tell; window and image are not among them."""
  theirs = any(name.startswith('encoder.layers.') for name in state)
  stages = 'encoder.layers' if theirs else 'layers'
  attention = 'attention.self' if theirs else 'attn'
  patch_embed = 'embeddings.patch_embeddings.projection' if theirs else 'patch_embed.proj'
  norm = 'embeddings.norm' if theirs else 'patch_embed.norm'
  cpb = 'continuous_position_bias_mlp' if theirs else 'cpb_mlp'
  hidden = 'intermediate.dense' if theirs else 'mlp.fc1'
  depths = table.depths(state, stages)
  blocks = [[f'{stages}.{i}.blocks.{j}' for j in range(depth)] for i, depth in enumerate(depths)]
  width = side(
    state,
    96,
    (f'{patch_embed}.weight', 0, 4),
    (f'{patch_embed}.bias', 0, 1),
    (f'{norm}.bias', 0, 1),
  )
  heads = (
    [
      (f'{block}.{attention}.{name}', 0, rank)
      for block in stage
      for name, rank in (('logit_scale', 3), (f'{cpb}.2.weight', 2))
    ]
    for stage in blocks
  )
  mlp = [
    (f'{block}.{hidden}.{name}', 0, rank)
    for block in blocks[0]
    for name, rank in (('bias', 1), ('weight', 2))
  ]
  return dict(
    patch=side(state, 4, (f'{patch_embed}.weight', 2, 4)),
    width=width,
    depths=depths,
    heads=tuple(side(state, 1, *axes) for axes in heads),
    mlp_ratio=side(state, 4 * width, *mlp) / width,
  )


def window(state: State) -> int:
  """The window's side where a buffer tells it, else 0."""
  for name, x in state.items():
    buffer = r'.*layers\.0\.blocks\.\d+\.(attn_mask|.*relative_position_index)'
    if re.fullmatch(buffer, name) and x.ndim:
      return math.isqrt(x.shape[-1])
  return 0


def variant(fields: dict[str, Any], window: int, hint: str) -> str:
  """The name in timm without 'swinv2_'; 'custom' for other sizes.

  Where the window stays open it is the first word alone.
  """

  def agrees(known):
    return all(known[name] == fields[name] for name in ('width', 'depths', 'heads')) and window in (
      0,
      known['window'],
    )

  known = [name for name, variant in swin_v2.VARIANTS.items() if agrees(variant)]
  hinted = sorted((name for name in known if name in hint), key=len)
  if hinted:
    return hinted[-1]
  return known[0] if len(known) == 1 else known[0].split('_')[0] if known else 'custom'


def shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """Targets of a Swin V2.

  Parameters depend on neither window nor image, so the smallest image will do.
  """
  image = fields['patch'] * 2 ** (len(fields['depths']) - 1)
  model = swin_v2.build('custom', image=image, window=image, **fields)
  return targets(model, jax.ShapeDtypeStruct((1, image, image, 3), np.float32))
