"""CLAP: LAION's own files and transformers' ClapModel, the fused ones too, without their fusion."""

import re
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert import htsat as htsat_source
from dgsct_jax.convert.table import (
  DENSE,
  NORM,
  RAW,
  Drop,
  Plan,
  State,
  Table,
  below,
  nest,
  split_mha,
  targets,
  unwrap,
)
from dgsct_jax.models import clap, htsat

COUNTED = Drop('counts from 0')
UNUSED = Drop('a second projection, for the loss of its training alone')
ATTENTION = split_mha('self.query', 'self.key', 'self.value', 'output.dense')
ROBERTA: Table = (
  ('embeddings.word_embeddings.weight', 'words/embedding', RAW),
  ('embeddings.position_embeddings.weight', 'positions/embedding', RAW),
  ('embeddings.token_type_embeddings.weight', 'token_type', RAW),
  ('embeddings.LayerNorm', 'norm', NORM),
  ('encoder.layer.#.attention', 'layers_#/attn', ATTENTION),
  ('encoder.layer.#.attention.output.LayerNorm', 'layers_#/norm1', NORM),
  ('encoder.layer.#.intermediate.dense', 'layers_#/mlp/fc1', DENSE),
  ('encoder.layer.#.output.dense', 'layers_#/mlp/fc2', DENSE),
  ('encoder.layer.#.output.LayerNorm', 'layers_#/norm2', NORM),
  ('pooler.dense', 'pooler', DENSE),
  ('embeddings.position_ids', None, COUNTED),  # in LAION's files and in those of old transformers
  ('embeddings.token_type_ids', None, COUNTED),
)
SCALES: Table = (('logit_scale_a', 'logit_scale_a', RAW), ('logit_scale_t', 'logit_scale_t', RAW))


def audio_tower(rows: Table) -> Table:
  """The rows of an HTS-AT with its final norm, which features need."""
  return tuple(row for row in rows if row[0] != 'norm') + (('norm', 'norm', NORM),)


def projection(theirs: tuple[str, str], ours: str) -> Table:
  """The rows of two linear layers."""
  return (theirs[0], f'{ours}/fc1', DENSE), (theirs[1], f'{ours}/fc2', DENSE)


LAION: Table = (
  nest(audio_tower(htsat_source.TABLE), 'audio_branch.', 'audio/')
  + nest(ROBERTA, 'text_branch.', 'text/')
  + projection(('audio_projection.0', 'audio_projection.2'), 'audio_projection')
  + projection(('text_projection.0', 'text_projection.2'), 'text_projection')
  + SCALES
  + (('text_transform', None, UNUSED), ('audio_transform', None, UNUSED))
)
TRANSFORMERS: Table = (
  nest(audio_tower(htsat_source.TABLE_TRANSFORMERS), 'audio_model.audio_encoder.', 'audio/')
  + nest(ROBERTA, 'text_model.', 'text/')
  + projection(('audio_projection.linear1', 'audio_projection.linear2'), 'audio_projection')
  + projection(('text_projection.linear1', 'text_projection.linear2'), 'text_projection')
  + SCALES
)


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout of a CLAP; `hint` is not needed."""
  del hint
  state = unwrap(state)
  if 'audio_branch.bn0.weight' in state and 'text_branch.pooler.dense.bias' in state:
    layout, rows, audio, text = 'laion', LAION, 'audio_branch.', 'text_branch.'
    last = 'text_projection.2.bias'
  elif 'audio_model.audio_encoder.batch_norm.weight' in state:
    layout, rows = 'transformers', TRANSFORMERS
    audio, text = 'audio_model.audio_encoder.', 'text_model.'
    last = 'text_projection.linear2.bias'
    filters = htsat_source.front_end(sample_rate=48000)
    state = state | {audio + name: x for name, x in filters.items()}
  else:
    raise ValueError(
      f'No CLAP in this file: it has neither audio_branch and text_branch nor the names of '
      f"transformers' ClapModel but {len(state)} such as {', '.join(sorted(state)[:3])}."
    )
  fields = htsat_source.sizes(below(state, audio)), sizes(below(state, text))
  return Plan(layout, 'clap', state, rows, shapes(*fields, len(state[last])))


def sizes(state: State) -> dict[str, Any]:
  """The fields of `Roberta` that shapes tell; heads have 64 numbers in every one of them."""
  vocabulary, width = state['embeddings.word_embeddings.weight'].shape
  layers = re.compile(r'encoder\.layer\.(\d+)\.')
  return dict(
    vocabulary=vocabulary,
    positions=len(state['embeddings.position_embeddings.weight']),
    width=width,
    depth=1 + max(int(match[1]) for name in state if (match := layers.match(name))),
    heads=max(width // 64, 1),
    mlp_ratio=len(state['encoder.layer.0.intermediate.dense.bias']) / width,
  )


def build(audio: dict[str, Any], text: dict[str, Any], features: int) -> clap.CLAP:
  """The model of these sizes."""
  return clap.CLAP(htsat.build('audioset', **audio), clap.Roberta(**text), features)


def shapes(
  audio: dict[str, Any], text: dict[str, Any], features: int
) -> dict[str, tuple[int, ...]]:
  """Targets of both towers and their projections."""
  return targets(
    build(audio, text, features),
    jax.ShapeDtypeStruct((1, 32000), np.float32),
    jax.ShapeDtypeStruct((1, 2), np.int32),
  )
