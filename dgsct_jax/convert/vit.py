"""ViT checkpoints: AugReg's own `.npz`, timm, and transformers' ViTModel of versions 4 and 5."""

import math
import re
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert.table import (
  CONV,
  DENSE,
  NORM,
  Drop,
  Layout,
  Leaf,
  Plan,
  State,
  Table,
  below,
  nest,
  packed,
  targets,
)
from dgsct_jax.models import vit

FIRST = Layout(lambda x, shape: x[0], lambda y: y[None])  # (1, n, d)
TOKENS = (Leaf(('',), '', FIRST),)
HEAD = Drop('ImageNet classifier')

TABLE: Table = (
  ('cls_token', 'cls_token', TOKENS),
  ('pos_embed', 'pos_embed', TOKENS),
  ('patch_embed.proj', 'patch_embed', CONV),
  ('blocks.#.norm1', 'blocks_#/norm1', NORM),
  ('blocks.#.attn.qkv', 'blocks_#/attn/qkv', DENSE),
  ('blocks.#.attn.proj', 'blocks_#/attn/proj', DENSE),
  ('blocks.#.norm2', 'blocks_#/norm2', NORM),
  ('blocks.#.mlp.fc1', 'blocks_#/mlp/fc1', DENSE),
  ('blocks.#.mlp.fc2', 'blocks_#/mlp/fc2', DENSE),
  ('norm', 'norm', NORM),
  ('head', None, HEAD),
  ('pre_logits', None, HEAD),
)


_EMBEDDINGS: Table = (
  ('embeddings.cls_token', 'cls_token', TOKENS),
  ('embeddings.position_embeddings', 'pos_embed', TOKENS),
  ('embeddings.patch_embeddings.projection', 'patch_embed', CONV),
  ('layernorm', 'norm', NORM),
  ('pooler', None, Drop('ViT of timm has no pooler')),
  ('classifier', None, HEAD),
)
_NORMS: Table = (('layernorm_before', 'norm1', NORM), ('layernorm_after', 'norm2', NORM))
_BLOCK_4: Table = (
  *_NORMS,
  ('attention.attention', 'attn', packed('query', 'key', 'value', 'qkv')),
  ('attention.output.dense', 'attn/proj', DENSE),
  ('intermediate.dense', 'mlp/fc1', DENSE),
  ('output.dense', 'mlp/fc2', DENSE),
)
_BLOCK_5: Table = (
  *_NORMS,
  ('attention', 'attn', packed('q_proj', 'k_proj', 'v_proj', 'qkv')),
  ('attention.o_proj', 'attn/proj', DENSE),
  ('mlp.fc1', 'mlp/fc1', DENSE),
  ('mlp.fc2', 'mlp/fc2', DENSE),
)
TABLE_TRANSFORMERS = _EMBEDDINGS + nest(_BLOCK_4, 'encoder.layer.#.', 'blocks_#/')
TABLE_TRANSFORMERS_5 = _EMBEDDINGS + nest(_BLOCK_5, 'layers.#.', 'blocks_#/')


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout and the variant of a ViT checkpoint; sizes tell all, `hint` nothing.

  Raises ValueError where it is none, or one with parts that `ViT` does not have.
  """
  del hint
  if any(name.startswith('vit.') for name in state):  # a model with a classifier on top
    state = below(state, 'vit.') | {
      name: x for name, x in state.items() if not name.startswith('vit.')
    }
  state = {name.removeprefix('opt/target/'): x for name, x in state.items()}
  names = set(state)
  if 'Transformer/posembed_input/pos_embedding' in names:
    layout, table, state = 'augreg', TABLE, from_augreg(state)
  elif 'embeddings.position_embeddings' in names:
    old = any(name.startswith('encoder.layer.') for name in names)
    layout, table = 'transformers', TABLE_TRANSFORMERS if old else TABLE_TRANSFORMERS_5
  elif {'pos_embed', 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight'} <= names:
    layout, table = 'timm', TABLE
  else:
    raise ValueError(
      f'No ViT in this file: it has the names of neither AugReg, timm nor transformers but'
      f' {len(names)} such as {", ".join(sorted(names)[:3])}.'
    )
  fields = sizes(state, table)
  return Plan(layout, variant(fields), state, table, shapes(fields))


def from_augreg(state: State) -> State:
  """The same tensors under timm's names and in its layout."""
  new = {}
  for name, x in state.items():
    if name.startswith(('head/', 'pre_logits/')):
      new[name.replace('/', '.')] = x
  for ours, theirs in (
    ('cls_token', 'cls'),
    ('pos_embed', 'Transformer/posembed_input/pos_embedding'),
    ('patch_embed.proj.bias', 'embedding/bias'),
    ('norm.weight', 'Transformer/encoder_norm/scale'),
    ('norm.bias', 'Transformer/encoder_norm/bias'),
  ):
    new[ours] = state[theirs]
  new['patch_embed.proj.weight'] = state['embedding/kernel'].transpose(3, 2, 0, 1)
  return new | {
    f'blocks.{i}.{name}': x
    for i in range(sum(name.endswith('LayerNorm_0/scale') for name in state))
    for name, x in _augreg_block(below(state, f'Transformer/encoderblock_{i}/')).items()
  }


def _augreg_block(state: State) -> State:
  attention = below(state, 'MultiHeadDotProductAttention_1/')
  width = len(attention['out/bias'])
  parts = 'query', 'key', 'value'
  kernels = [attention[f'{part}/kernel'].reshape(width, width).T for part in parts]
  return {
    'norm1.weight': state['LayerNorm_0/scale'],
    'norm1.bias': state['LayerNorm_0/bias'],
    'attn.qkv.weight': np.concatenate(kernels),
    'attn.qkv.bias': np.concatenate([attention[f'{part}/bias'].reshape(-1) for part in parts]),
    'attn.proj.weight': attention['out/kernel'].reshape(width, width).T,
    'attn.proj.bias': attention['out/bias'],
    'norm2.weight': state['LayerNorm_2/scale'],
    'norm2.bias': state['LayerNorm_2/bias'],
    'mlp.fc1.weight': state['MlpBlock_3/Dense_0/kernel'].T,
    'mlp.fc1.bias': state['MlpBlock_3/Dense_0/bias'],
    'mlp.fc2.weight': state['MlpBlock_3/Dense_1/kernel'].T,
    'mlp.fc2.bias': state['MlpBlock_3/Dense_1/bias'],
  }


def sizes(state: State, table: Table = TABLE) -> dict[str, Any]:
  """The fields of `ViT` that shapes tell; the number of heads is not among them."""
  theirs = {ours: name for name, ours, _ in table if ours}
  patch = state[theirs['patch_embed'] + '.weight'].shape
  pattern = re.escape(theirs['blocks_#/mlp/fc1']).replace(r'\#', r'(\d+)') + r'\.bias'
  hidden = {
    int(match[1]): len(x) for name, x in state.items() if (match := re.fullmatch(pattern, name))
  }
  return dict(
    image=math.isqrt(state[theirs['pos_embed']].shape[1] - 1) * patch[2],
    patch=patch[2],
    width=patch[0],
    depths=(len(hidden),),
    mlp_ratio=hidden[0] / patch[0],
  )


def variant(fields: dict[str, Any]) -> str:
  """Timm's name without 'vit_', 'custom' for other sizes."""

  def agrees(name: str) -> bool:
    known = vit.build(name)
    same = all(getattr(known, field) == fields[field] for field in ('image', 'patch', 'width'))
    return same and (sum(known.depths),) == fields['depths']

  return next((name for name in vit.VARIANTS if agrees(name)), 'custom')


def shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """Targets of a ViT."""
  model = vit.build('custom', heads=1, **fields)
  return targets(model, jax.ShapeDtypeStruct((1, model.image, model.image, 3), np.float32))
