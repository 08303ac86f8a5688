"""CLIP with a vision transformer: OpenAI's files, open_clip's, and transformers' CLIPModel."""

import re
from typing import Any, NamedTuple

import jax
import numpy as np

from dgsct_jax.convert.table import (
  CONV,
  DENSE,
  MATRIX,
  MHA,
  NORM,
  RAW,
  SAME,
  Drop,
  Leaf,
  Plan,
  State,
  Table,
  nest,
  split_mha,
  targets,
  unwrap,
)
from dgsct_jax.models import clip

SIZES = Drop('sizes, which the shapes of the others tell')
BLOCK: Table = (
  ('ln_1', 'norm1', NORM),
  ('attn', 'attn', MHA),
  ('ln_2', 'norm2', NORM),
  ('mlp.c_fc', 'mlp/fc1', DENSE),
  ('mlp.c_proj', 'mlp/fc2', DENSE),
)
BLOCK_TRANSFORMERS: Table = (
  ('layer_norm1', 'norm1', NORM),
  ('self_attn', 'attn', split_mha('q_proj', 'k_proj', 'v_proj', 'out_proj')),
  ('layer_norm2', 'norm2', NORM),
  ('mlp.fc1', 'mlp/fc1', DENSE),
  ('mlp.fc2', 'mlp/fc2', DENSE),
)
MATRIX_AS_IT_IS = (Leaf(('',), '/kernel', SAME),)  # a parameter that features are multiplied by
PROJECTION = (Leaf(('.weight',), '/kernel', MATRIX),)
PATCHES = (Leaf(('.weight',), '/kernel', CONV[0].layout),)

HEADS = 64  # width of a head, in every CLIP


class Names(NamedTuple):
  """The tensors whose shapes tell the sizes of both towers."""

  patches: str
  places: str
  blocks: str
  hidden: str  # of a block
  words: str
  text_places: str
  text_blocks: str


OPENAI = Names(
  patches='visual.conv1.weight',
  places='visual.positional_embedding',
  blocks='visual.transformer.resblocks',
  hidden='mlp.c_fc.bias',
  words='token_embedding.weight',
  text_places='positional_embedding',
  text_blocks='transformer.resblocks',
)
TRANSFORMERS = Names(
  patches='vision_model.embeddings.patch_embedding.weight',
  places='vision_model.embeddings.position_embedding.weight',
  blocks='vision_model.encoder.layers',
  hidden='mlp.fc1.bias',
  words='text_model.embeddings.token_embedding.weight',
  text_places='text_model.embeddings.position_embedding.weight',
  text_blocks='text_model.encoder.layers',
)


def vision(depths: tuple[int, ...]) -> Table:
  """The image tower; their blocks are numbered through, ours by stage."""
  return (
    ('class_embedding', 'class_token', RAW),
    ('positional_embedding', 'positions', RAW),
    ('conv1', 'patch_embed', PATCHES),
    ('ln_pre', 'norm_pre', NORM),
    ('ln_post', 'norm', NORM),
    ('proj', 'projection', MATRIX_AS_IT_IS),
    *_blocks(BLOCK, 'transformer.resblocks.', depths),
  )


TEXT: Table = (
  ('positional_embedding', 'positions', RAW),
  ('ln_final', 'norm', NORM),
  ('text_projection', 'projection', MATRIX_AS_IT_IS),
  *nest(BLOCK, 'transformer.resblocks.#.', 'blocks_#/'),
)
WORDS: Table = (('token_embedding.weight', 'words/embedding', RAW),)
SCALE: Table = (('logit_scale', 'logit_scale', RAW),)


def table(depths: tuple[int, ...]) -> Table:
  """OpenAI's names and open_clip's."""
  return (
    nest(vision(depths), 'visual.', 'visual/')
    + nest(TEXT + WORDS, '', 'text/')
    + SCALE
    + tuple((name, None, SIZES) for name in ('input_resolution', 'context_length', 'vocab_size'))
    + (('attn_mask', None, Drop('the causal mask')),)
  )


def table_transformers(depths: tuple[int, ...]) -> Table:
  """The names of transformers' CLIPModel."""
  counted = Drop('counts from 0')
  visual: Table = (
    ('embeddings.class_embedding', 'class_token', RAW),
    ('embeddings.position_embedding.weight', 'positions', RAW),
    ('embeddings.patch_embedding', 'patch_embed', PATCHES),
    ('pre_layrnorm', 'norm_pre', NORM),  # As released: their spelling.
    ('post_layernorm', 'norm', NORM),
    ('embeddings.position_ids', None, counted),
    *_blocks(BLOCK_TRANSFORMERS, 'encoder.layers.', depths),
  )
  text: Table = (
    ('embeddings.token_embedding.weight', 'words/embedding', RAW),
    ('embeddings.position_embedding.weight', 'positions', RAW),
    ('final_layer_norm', 'norm', NORM),
    ('embeddings.position_ids', None, counted),
    *nest(BLOCK_TRANSFORMERS, 'encoder.layers.#.', 'blocks_#/'),
  )
  return (
    nest(visual, 'vision_model.', 'visual/')
    + nest(text, 'text_model.', 'text/')
    + (
      ('visual_projection', 'visual/projection', PROJECTION),
      ('text_projection', 'text/projection', PROJECTION),
    )
    + SCALE
  )


def _blocks(block: Table, theirs: str, depths: tuple[int, ...]) -> Table:
  """Rows of the blocks of an image tower."""
  places = [(i, j) for i, depth in enumerate(depths) for j in range(depth)]
  return sum(
    (nest(block, f'{theirs}{k}.', f'stages_{i}/blocks_{j}/') for k, (i, j) in enumerate(places)), ()
  )


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout and the variant of a CLIP; `hint` is not needed."""
  del hint
  state = unwrap(state)
  if 'text.token_embedding.weight' in state:  # open_clip keeps some text towers as a module
    state = {name.removeprefix('text.'): x for name, x in state.items()}
  if TRANSFORMERS.places in state:
    fields = sizes(state, TRANSFORMERS, len(state['visual_projection.weight']))
    layout, rows = 'transformers', table_transformers(fields[0]['depths'])
  elif OPENAI.places in state and OPENAI.words in state:
    fields = sizes(state, OPENAI, state['visual.proj'].shape[1])
    layout, rows = 'openai', table(fields[0]['depths'])
  else:
    raise ValueError(
      f'No CLIP with a vision transformer in this file: it has neither visual.class_embedding and '
      f"token_embedding.weight nor transformers' names but {len(state)} such as "
      f'{", ".join(sorted(state)[:3])}.'
    )
  return Plan(layout, variant(fields[0]), state, rows, shapes(*fields))


def plan_vision(state: State, hint: str = '') -> Plan:
  """The image tower alone, as a backbone: without the projection to the features of texts."""
  whole = plan(state, hint)
  rows = tuple(
    (theirs, ours.removeprefix('visual/'), kind)
    if ours and ours.startswith('visual/') and not ours.startswith('visual/projection')
    else (theirs, None, kind if isinstance(kind, Drop) else Drop('not of the image tower'))
    for theirs, ours, kind in whole.table
  )
  kept = {
    name.replace('/visual/', '/', 1): shape
    for name, shape in whole.targets.items()
    if '/visual/' in name and '/visual/projection/' not in name
  }
  return Plan(whole.layout, whole.variant, whole.state, rows, kept)


def sizes(state: State, names: Names, features: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """The fields of `CLIPVision` and `CLIPText` that shapes tell."""
  width, _, patch, _ = state[names.patches].shape
  tokens = len(state[names.places]) - 1
  depth, text_depth = _depth(state, names.blocks), _depth(state, names.text_blocks)
  vocabulary, text_width = state[names.words].shape
  visual = dict(
    image=round(tokens**0.5) * patch,
    patch=patch,
    width=width,
    depths=stages(depth),
    heads=max(width // HEADS, 1),
    mlp_ratio=len(state[f'{names.blocks}.0.{names.hidden}']) / width,
    features=features,
  )
  text = dict(
    vocabulary=vocabulary,
    context=len(state[names.text_places]),
    width=text_width,
    depth=text_depth,
    heads=max(text_width // HEADS, 1),
    mlp_ratio=len(state[f'{names.text_blocks}.0.{names.hidden}']) / text_width,
    features=features,
  )
  return visual, text


def _depth(state: State, blocks: str) -> int:
  numbers = re.compile(re.escape(blocks) + r'\.(\d+)\.')
  return 1 + max(int(match[1]) for name in state if (match := numbers.match(name)))


def stages(depth: int) -> tuple[int, ...]:
  """The stages that so many blocks take from HTS-AT; one stage where they do not fit."""
  partner = (2, 2, 6, 2)
  times, rest = divmod(depth, sum(partner))
  return (depth,) if rest else tuple(times * blocks for blocks in partner)


def variant(fields: dict[str, Any]) -> str:
  """The released image tower of these sizes, or 'custom'."""
  for name, known in clip.VISUAL.items():
    wanted = dict(image=224) | known
    if all(fields[field] == value for field, value in wanted.items()):
      return name
  return 'custom'


def shapes(visual: dict[str, Any], text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """Targets of both towers."""
  model = clip.build('custom', visual, text)
  side = model.visual.image
  return targets(
    model,
    jax.ShapeDtypeStruct((1, side, side, 3), np.float32),
    jax.ShapeDtypeStruct((1, 2), np.int32),
  )
