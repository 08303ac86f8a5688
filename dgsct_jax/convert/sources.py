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


class Source(NamedTuple):
  """A kind of checkpoint.

  plan: recognises it; its second argument is the file's name.
  export: writes a model of ours under its names, which then get the `prefix`; without it the
    original can be had. rows: of its table; those without a place here are what is left unread.
  borrow: what a checkpoint lacks, from the file that was there before it.
  """

  plan: Callable[[table.State, str], table.Plan]
  export: Callable[[table.State], table.State] | None = None
  rows: table.Table = ()
  prefix: str = ''
  borrow: Callable[[table.State], table.State] | None = None


SOURCES = {
  'swin_v2': Source(swin_v2.plan),
  'htsat': Source(htsat.plan),
  'clip': Source(clip.plan),
  'clip-visual': Source(clip.plan_vision),
  'clap': Source(clap.plan),
  'vit': Source(vit.plan),
  'efficientnet_lite': Source(efficientnet_lite.plan),
  'efficientnet_lite-features': Source(efficientnet_lite.plan_features),
  'yamnet': Source(yamnet.plan),
  'yamnet-features': Source(yamnet.plan_features),
  'dgsct-ave': Source(dgsct.plan_ave, release.export_ave, dgsct.AVE),
  'dgsct-avqa': Source(avqa.plan, release.export_avqa, avqa.AVQA, 'module.'),
  'dgsct-grounding': Source(
    avqa.plan_grounding, release.export_grounding, avqa.MATCHING, 'module.'
  ),
  'dgsct-avvp': Source(avvp.plan, release.export_avvp, avvp.AVVP),
  # What S4 drops besides, MS3 reads; where ours lacks it, it comes from the original.
  'dgsct-avs': Source(avs.plan, release.export_avs, avs.TABLES['ms3']),
  'dgsct-matching': Source(
    matching.plan, matching.export, matching.MATCHING, borrow=matching.borrow
  ),
  'lavish-ave': Source(lavish.plan_ave),
  'ma-avt': Source(ma_avt.plan, ma_avt.export, ma_avt.TABLE, 'module.'),
  'ma-avt-folded': Source(ma_avt.plan, ma_avt.export_folded, ma_avt.TABLE, 'module.'),
}
