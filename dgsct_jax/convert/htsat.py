"""HTS-AT checkpoints.

The original Lightning files, LAION CLAP's audio branch, and transformers' ClapAudioModel.
"""

import math
from typing import Any

import jax
import numpy as np

from dgsct_jax.convert import table
from dgsct_jax.convert.table import (
  BATCH_NORM,
  BATCHES,
  CONV,
  DENSE,
  MATRIX,
  NORM,
  RAW,
  SAME,
  STFT,
  Drop,
  Leaf,
  Plan,
  State,
  Table,
  below,
  side,
  targets,
)
from dgsct_jax.models import htsat, mel

COMPUTED = Drop('computed from the shapes of the windows')
TAGGING = Drop('tagging head; the encoder ends before it')
FUSION = Drop('fusion of clips longer than 10 s, which this encoder does not do')

TABLE: Table = (
  ('spectrogram_extractor.stft.conv_real', 'mel/stft_real', STFT),
  ('spectrogram_extractor.stft.conv_imag', 'mel/stft_imag', STFT),
  ('logmel_extractor.melW', 'mel/mel_basis', RAW),
  ('bn0', 'mel/bn0', BATCH_NORM),
  ('patch_embed.proj', 'patch_embed/proj', CONV),
  ('patch_embed.norm', 'patch_embed/norm', NORM),
  ('layers.#.blocks.#.norm1', 'stages_#/blocks_#/norm1', NORM),
  ('layers.#.blocks.#.norm2', 'stages_#/blocks_#/norm2', NORM),
  (
    'layers.#.blocks.#.attn.relative_position_bias_table',
    'stages_#/blocks_#/attn/relative_position_bias_table',
    RAW,
  ),
  ('layers.#.blocks.#.attn.qkv', 'stages_#/blocks_#/attn/qkv', DENSE),
  ('layers.#.blocks.#.attn.proj', 'stages_#/blocks_#/attn/proj', DENSE),
  ('layers.#.blocks.#.mlp.fc1', 'stages_#/blocks_#/mlp/fc1', DENSE),
  ('layers.#.blocks.#.mlp.fc2', 'stages_#/blocks_#/mlp/fc2', DENSE),
  ('layers.#.downsample.norm', 'stages_#/downsample/norm', NORM),
  ('layers.#.downsample.reduction', 'stages_#/downsample/reduction', DENSE),
  ('bn0.num_batches_tracked', None, BATCHES),
  ('layers.#.blocks.#.attn_mask', None, COMPUTED),
  ('layers.#.blocks.#.attn.relative_position_index', None, COMPUTED),
  ('norm', None, TAGGING),
  ('tscam_conv', None, TAGGING),
  ('head', None, Drop('unused by HTS-AT itself')),
  ('patch_embed.mel_conv2d', None, FUSION),
  ('patch_embed.fusion_model', None, FUSION),
)
# With HTS-AT's own tagging head, for `HTSAT.tag`.
TABLE_TAGGING = TABLE + (('norm', 'norm', NORM), ('tscam_conv', 'tscam_conv', CONV))

_BLOCK, _OURS = 'layers.#.blocks.#.', 'stages_#/blocks_#/'
_QKV = (
  Leaf(('.query.weight', '.key.weight', '.value.weight'), '/kernel', MATRIX),
  Leaf(('.query.bias', '.key.bias', '.value.bias'), '/bias', SAME),
)
TABLE_TRANSFORMERS = tuple(row for row in TABLE if not row[0].startswith((_BLOCK, 'bn0'))) + (
  ('batch_norm', 'mel/bn0', BATCH_NORM),
  (_BLOCK + 'layernorm_before', _OURS + 'norm1', NORM),
  (_BLOCK + 'layernorm_after', _OURS + 'norm2', NORM),
  (
    _BLOCK + 'attention.self.relative_position_bias_table',
    _OURS + 'attn/relative_position_bias_table',
    RAW,
  ),
  (_BLOCK + 'attention.self', _OURS + 'attn/qkv', _QKV),
  (_BLOCK + 'attention.output.dense', _OURS + 'attn/proj', DENSE),
  (_BLOCK + 'intermediate.dense', _OURS + 'mlp/fc1', DENSE),
  (_BLOCK + 'output.dense', _OURS + 'mlp/fc2', DENSE),
  (_BLOCK + 'attention.self.relative_position_index', None, COMPUTED),
  ('batch_norm.num_batches_tracked', None, BATCHES),
)

# By any of these names a layout is recognised.
ORIGINAL = (
  'spectrogram_extractor.stft.conv_real.weight',
  'spectrogram_extractor.stft.conv_imag.weight',
  'logmel_extractor.melW',
)
TRANSFORMERS = ('audio_encoder.batch_norm.weight', 'audio_encoder.batch_norm.running_mean')
CLASSES = {527: 'audioset', 50: 'esc50', 35: 'scv2'}


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout and the variant of an HTS-AT checkpoint; `hint` is not needed."""
  del hint
  if (prefix := _prefix(state, ORIGINAL)) is not None:
    layout = 'laion clap' if prefix.endswith('audio_branch.') else 'lightning'
    state = below(state, prefix)
    classes = side(state, 0, ('head.bias', 0, 1))
    variant = 'clap' if layout == 'laion clap' else CLASSES.get(classes, 'custom')
    return Plan(layout, variant, state, TABLE, shapes(sizes(state)))
  if (prefix := _prefix(state, TRANSFORMERS)) is not None:
    state = below(state, prefix + 'audio_encoder.') | front_end(sample_rate=48000)
    return Plan('transformers', 'clap', state, TABLE_TRANSFORMERS, shapes(sizes(state)))
  raise ValueError(
    f"No HTS-AT in this file: it has neither {ORIGINAL[0]} nor transformers' names "
    f'({TRANSFORMERS[0]}) but {len(state)} such as {", ".join(sorted(state)[:3])}.'
  )


def _prefix(state: State, known: tuple[str, ...]) -> str | None:
  """What stands before the first of some names that the file has."""
  for wanted in known:
    for name in state:
      if name == wanted or name.endswith('.' + wanted):
        return name.removesuffix(wanted)
  return None


def front_end(
  sample_rate: int = 32000,
  n_fft: int = 1024,
  mel_bins: int = 64,
  fmin: float = 50.0,
  fmax: float = 14000.0,
) -> State:
  """What torchlibrosa stores of STFT and mel filters.

  Constants that transformers leaves to a feature extractor.

  The filters are those that LAION's files hold (Slaney's), for fused models too, whose own
  extractor has others.
  """
  real, imag = mel.stft_kernels(n_fft)
  return {
    'spectrogram_extractor.stft.conv_real.weight': real.T[:, None],
    'spectrogram_extractor.stft.conv_imag.weight': imag.T[:, None],
    'logmel_extractor.melW': mel.mel_filters(sample_rate, n_fft, mel_bins, fmin, fmax),
  }


def sizes(state: State) -> dict[str, Any]:
  """The fields of `HTSAT` that shapes tell, for either layout."""
  patch_embed, bn0 = 'patch_embed.proj.weight', [f'{name}.bias' for name in ('bn0', 'batch_norm')]
  melw, stft = 'logmel_extractor.melW', 'spectrogram_extractor.stft.conv_{}.weight'
  depths = table.depths(state)
  blocks = [[f'layers.{i}.blocks.{j}' for j in range(depth)] for i, depth in enumerate(depths)]
  tables = [
    [
      f'{block}.{attention}.relative_position_bias_table'
      for block in stage
      for attention in ('attn', 'attention.self')
    ]
    for stage in blocks
  ]
  mlp = [
    (f'{block}.{name}.{kind}', 0, rank)
    for block in blocks[0]
    for name in ('mlp.fc1', 'intermediate.dense')
    for kind, rank in (('bias', 1), ('weight', 2))
  ]
  width = side(
    state, 96, (patch_embed, 0, 4), ('patch_embed.proj.bias', 0, 1), ('patch_embed.norm.bias', 0, 1)
  )
  bins = side(state, 513, (melw, 0, 2), (stft.format('real'), 0, 3), (stft.format('imag'), 0, 3))
  offsets = side(state, 225, *((name, 0, 2) for stage in tables for name in stage))
  # No released one is near these bounds; beyond them a damaged shape would cost gigabytes.
  return dict(
    patch=side(state, 4, (patch_embed, 2, 4)),
    width=width,
    depths=depths,
    heads=tuple(side(state, 1, *((name, 1, 2) for name in stage)) for stage in tables),
    mlp_ratio=side(state, 4 * width, *mlp) / width,
    window=min((math.isqrt(offsets) + 1) // 2, 16),
    n_fft=2 * (min(bins, 2049) - 1),
    mel_bins=side(state, 64, (melw, 1, 2), *((name, 0, 1) for name in bn0)),
    classes=side(state, 1, ('tscam_conv.bias', 0, 1)),
  )


def shapes(fields: dict[str, Any], tagging: bool = False) -> dict[str, tuple[int, ...]]:
  """Targets of an HTS-AT encoder, or of the whole tagger."""
  model = htsat.build('audioset', **fields)
  method = htsat.HTSAT.tag if tagging else _encoded
  return targets(model, jax.ShapeDtypeStruct((1, 32000), np.float32), method=method)


def _encoded(model: htsat.HTSAT, wave: Any) -> Any:
  """The last tokens, without what is behind them."""
  return model.body(model.stem(wave))
