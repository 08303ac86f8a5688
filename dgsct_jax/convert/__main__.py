"""Converts released weights into files that `config.init` names, and trained models back.

  python -m dgsct_jax.convert SOURCE CHECKPOINT OUT.safetensors
  python -m dgsct_jax.convert run WORKDIR OUT.safetensors [--part encoder/visual]
  python -m dgsct_jax.convert --export SOURCE OURS.safetensors OUT.pt [--original RELEASED.pt]

CHECKPOINT is a .safetensors, an .npz, a PyTorch file that holds nothing but tensors, or
hf://owner/name[/file].
`run` writes the whole model of a finished run, or a part of it, which --export then takes.
"""

import argparse
import collections
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dgsct_jax.convert import (
  avqa,
  dgsct,
  htsat,
  lavish,
  ma_avt,
  read,
  release,
  run,
  swin_v2,
  table,
  vit,
)


class Source(NamedTuple):
  """A kind of checkpoint.

  plan: recognises it; its second argument is the file's name.
  export: writes a model of ours under its names, which then get the `prefix`; without it the
    original can be had. table: of its rows, those without a place here are what is left unread.
  """

  plan: Callable[[table.State, str], table.Plan]
  export: Callable[[table.State], table.State] | None = None
  table: table.Table = ()
  prefix: str = ''


SOURCES = {
  'swin_v2': Source(swin_v2.plan),
  'htsat': Source(htsat.plan),
  'vit': Source(vit.plan),
  'dgsct-ave': Source(dgsct.plan_ave, release.export_ave, dgsct.AVE),
  'dgsct-avqa': Source(avqa.plan, release.export_avqa, avqa.AVQA, 'module.'),
  'dgsct-grounding': Source(
    avqa.plan_grounding, release.export_grounding, avqa.MATCHING, 'module.'
  ),
  'lavish-ave': Source(lavish.plan_ave),
  'ma-avt': Source(ma_avt.plan, ma_avt.export, ma_avt.TABLE, 'module.'),
  'ma-avt-folded': Source(ma_avt.plan, ma_avt.export_folded, ma_avt.TABLE, 'module.'),
}


def convert(source: str, checkpoint: str, out: Path) -> str:
  """Writes our file of a checkpoint, whole or not at all; says what it held. Raises ValueError."""
  path = read.fetch(checkpoint)
  plan = SOURCES[source].plan(read.read(path), checkpoint)
  tensors = table.convert(plan.state, plan.table, plan.targets)
  sha256 = read.sha256(path)
  read.write(
    out,
    tensors,
    {'source': source, 'variant': plan.variant, 'sha256': sha256, 'table': table.VERSION},
  )
  dropped = collections.Counter(table.dropped(plan.table, plan.state).values())
  return '\n'.join(
    [
      f'{path}: {source} in the layout of {plan.layout}, variant {plan.variant}, sha256 {sha256}',
      f'{len(plan.state) - dropped.total()} of {len(plan.state)} tensors used, dropped:',
      *(f'  {count:5} {reason}' for reason, count in dropped.items()),
      f'{out}: {len(tensors)} tensors, {sum(x.size for x in tensors.values()):,} values',
    ]
  )


def export(source: str, checkpoint: str, out: Path, original: str | None) -> str:
  """Writes a model of ours under the released names. Raises ValueError."""
  kind = SOURCES[source]
  state = kind.export(read.read(read.fetch(checkpoint)))
  if original:
    kept = kind.plan(read.read(read.fetch(original)), original).state
    state |= {name: kept[name] for name in table.dropped(kind.table, kept) if name in state}
  state = {kind.prefix + name: x for name, x in state.items()}
  read.write(out, state, {'source': source, 'table': table.VERSION})
  return f'{out}: {len(state)} tensors with the released names'


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.convert',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--export', action='store_true', help='from our names to the released ones')
  parser.add_argument(
    '--original', help='with --export: take the weights that the model never reads from this file'
  )
  parser.add_argument(
    '--part', default='', help='with run: only what lies below this path of the model'
  )
  parser.add_argument(
    '--dtype',
    default='float32',
    choices=('float32', 'float16'),
    help='with run: how values are stored',
  )
  parser.add_argument('source', choices=(*SOURCES, 'run'))
  parser.add_argument('checkpoint')
  parser.add_argument('out', type=Path)
  args = parser.parse_args(argv)
  suffixes = ('.safetensors', *read.TORCH) if args.export else ('.safetensors',)
  try:
    if args.out.suffix not in suffixes or not args.out.absolute().parent.is_dir():
      raise ValueError(
        f'{args.out}: OUT is a file {" or ".join(suffixes)} in a folder that exists.'
      )
    if args.export and not (args.source in SOURCES and SOURCES[args.source].export):
      exported = [name for name, source in SOURCES.items() if source.export]
      raise ValueError(
        f'{args.source} cannot be exported, only {", ".join(exported)}; its released files exist.'
      )
    if args.source == 'run' and not args.export:
      print(run.convert(Path(args.checkpoint), args.out, args.part, args.dtype))
    elif args.export:
      print(export(args.source, args.checkpoint, args.out, args.original))
    else:
      print(convert(args.source, args.checkpoint, args.out))
  except ValueError as error:
    print(error, file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
