"""HTS-AT checkpoints: the original Lightning files, LAION CLAP's audio branch, and transformers' ClapAudioModel."""

import math
import re

import jax
import numpy as np

from dgsct_jax.convert.table import (
  BATCH_NORM,
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
  ('bn0.num_batches_tracked', None, Drop('torch counts batches, nothing reads it')),
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
  ('batch_norm.num_batches_tracked', None, Drop('torch counts batches, nothing reads it')),
)

CLASSES = {527: 'audioset', 50: 'esc50', 35: 'scv2'}


def plan(state: State, hint: str = '') -> Plan:
  """Recognises the layout and the variant of an HTS-AT checkpoint; `hint` is not needed."""
  del hint
  original = 'spectrogram_extractor.stft.conv_real.weight'
  prefix = next((name.removesuffix(original) for name in state if name.endswith(original)), None)
  if prefix is not None:
    layout = 'laion clap' if prefix.endswith('audio_branch.') else 'lightning'
    state = below(state, prefix)
    classes = len(state['head.bias']) if 'head.bias' in state else 0
    variant = 'clap' if layout == 'laion clap' else CLASSES.get(classes, 'custom')
    return Plan(layout, variant, state, TABLE, shapes(sizes(state)))
  prefix = next(
    (
      name.removesuffix('batch_norm.weight')
      for name in state
      if re.fullmatch(r'(.*\.)?audio_encoder\.batch_norm\.weight', name)
    ),
    None,
  )
  if prefix is None:
    raise ValueError(
      f"No HTS-AT in this file: it has neither {original} nor transformers' names "
      f'(audio_encoder.batch_norm.weight) but {len(state)} such as {", ".join(sorted(state)[:3])}.'
    )
  state = below(state, prefix) | front_end(sample_rate=48000)
  return Plan('transformers', 'clap', state, TABLE_TRANSFORMERS, shapes(sizes(state)))


def front_end(
  sample_rate: int = 32000,
  n_fft: int = 1024,
  mel_bins: int = 64,
  fmin: float = 50.0,
  fmax: float = 14000.0,
) -> State:
  """What torchlibrosa stores of STFT and mel filters: constants that transformers leaves to a feature extractor.

  The filters are those that LAION's files hold (Slaney's), for fused models too, whose own extractor has others.
  """
  real, imag = mel.stft_kernels(n_fft)
  return {
    'spectrogram_extractor.stft.conv_real.weight': real.T[:, None],
    'spectrogram_extractor.stft.conv_imag.weight': imag.T[:, None],
    'logmel_extractor.melW': mel.mel_filters(sample_rate, n_fft, mel_bins, fmin, fmax),
  }


def sizes(state: State) -> dict[str, object]:
  """The fields of `HTSAT` that shapes tell, for either layout."""
  width, _, patch, _ = state['patch_embed.proj.weight'].shape
  tables, hidden = {}, 0
  for name, x in state.items():
    if match := re.fullmatch(r'layers\.(\d+)\.blocks\.(\d+)\..*relative_position_bias_table', name):
      tables.setdefault(int(match[1]), {})[int(match[2])] = x.shape
    elif re.fullmatch(r'layers\.0\.blocks\.0\.(mlp\.fc1|intermediate\.dense)\.bias', name):
      hidden = len(x)
  stages = [tables[i] for i in sorted(tables)]
  bins, mel_bins = state['logmel_extractor.melW'].shape
  return dict(
    patch=patch,
    width=width,
    depths=tuple(1 + max(stage) for stage in stages),
    heads=tuple(next(iter(stage.values()))[1] for stage in stages),
    mlp_ratio=hidden / width,
    window=(math.isqrt(next(iter(stages[0].values()))[0]) + 1) // 2,
    n_fft=2 * (bins - 1),
    mel_bins=mel_bins,
    classes=len(state['tscam_conv.bias']) if 'tscam_conv.bias' in state else 1,
  )


def shapes(fields: dict[str, object], tagging: bool = False) -> dict[str, tuple[int, ...]]:
  """Targets of an HTS-AT encoder, or of the whole tagger."""
  model = htsat.build('audioset', **fields)
  method = htsat.HTSAT.tag if tagging else lambda model, wave: model.body(model.stem(wave))
  return targets(model, jax.ShapeDtypeStruct((1, 32000), np.float32), method=method)
