"""Converts released weights into files that `config.init` names, and trained models back.

  python -m dgsct_jax.convert --list
  python -m dgsct_jax.convert SOURCE CHECKPOINT OUT.safetensors
  python -m dgsct_jax.convert dgsct-matching CHECKPOINT OUT.safetensors --original CLAP
  python -m dgsct_jax.convert run WORKDIR OUT.safetensors [--part encoder/visual]
  python -m dgsct_jax.convert publish WORKDIR OUT
  python -m dgsct_jax.convert --export SOURCE OURS.safetensors OUT.pt [--original RELEASED.pt]

CHECKPOINT is a .safetensors, an .npz, a PyTorch file that holds nothing but tensors, or
hf://owner/name[/file].
--list tells of every source the files that are known, and which field of config.init takes them.
`run` writes the whole model of a finished run, or a part of it, which --export then takes.
`publish` writes a folder that `predict` takes in place of the run: all variables, the settings, a
model card, and the hashes of these files.
"""

import argparse
import collections
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dgsct_jax import hub
from dgsct_jax.convert import publish, read, run, table
from dgsct_jax.convert.sources import SOURCES, listing


def convert(source: str, checkpoint: str, out: Path, original: str | None = None) -> str:
  """Writes our file of a checkpoint whole or not at all, and says what it found in it.

  Raises:
    ValueError: with the file, the tensors and what to do.
  """
  borrow = SOURCES[source].borrow
  if bool(original) != bool(borrow):
    raise ValueError(
      f'{source} needs --original: the CLAP file, which alone has the factor of its scores.'
      if borrow
      else f'{source} takes nothing from --original.'
    )
  path = hub.fetch(checkpoint)
  state = read.read(path)
  if borrow and original:
    state = table.unwrap(state) | borrow(read.read(hub.fetch(original)))
  plan, tensors = _converted(source, path, state, checkpoint)
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


def _converted(
  source: str,
  path: Path,
  state: table.State,
  hint: str = '',
  remedy: str = 'Give the file as it was released, or the SOURCE that it is of.',
) -> tuple[table.Plan, table.State]:
  try:
    plan = SOURCES[source].plan(state, hint)
    return plan, table.convert(plan.state, plan.table, plan.targets)
  except ValueError as error:
    raise ValueError(f'{path} cannot be read as {source}: {error}\n{remedy}') from error


def export(source: str, checkpoint: str, out: Path, original: str | None) -> str:
  """Writes a model of ours under the released names.

  Raises:
    ValueError: with the file, the tensors and what to do.
  """
  kind = SOURCES[source]
  path = hub.fetch(checkpoint)
  ours = read.read(path)
  try:
    released = table.export(ours, kind.rows)
  except ValueError as error:
    raise ValueError(f'{path} is no file of ours of {source}: {error}') from error
  whole = (
    'Export the model of a whole run; one with adapters in some stages alone has no released form.'
  )
  _converted(source, path, released, remedy=whole)  # for what is missing
  assert kind.export is not None  # `main` has refused the others
  state = kind.export(ours)
  if original:
    kept = table.unwrap(read.read(hub.fetch(original)))
    unread = table.dropped(kind.rows, kept)
    if not unread:
      raise ValueError(
        f'--original={original} has no weights that a released {source} holds and never reads; give'
        ' a checkpoint of the release.'
      )
    state = kept | {name: x for name, x in state.items() if name not in unread}
  state = {kind.prefix + name: x for name, x in state.items()}
  read.write(out, state, {'source': source, 'table': table.VERSION})
  return f'{out}: {len(state)} tensors with the released names'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.convert',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  # Like --version: it is printed, and no other argument is needed.
  parser.add_argument('--list', action='version', version=listing(), help='all known sources')
  parser.add_argument('--export', action='store_true', help='from our names to the released ones')
  parser.add_argument(
    '--original',
    help='take from this file, with --export, the weights that the model never reads; with'
    ' dgsct-matching, those that only CLAP has',
  )
  parser.add_argument(
    '--part', default='', help='with run: only what lies below this path of the model'
  )
  parser.add_argument(
    '--dtype',
    default='float32',
    choices=('float32', 'float16'),
    help='with run and publish: how values are stored',
  )
  parser.add_argument('source', choices=(*SOURCES, 'run', 'publish'))
  parser.add_argument('checkpoint')
  parser.add_argument('out', type=Path)
  args = parser.parse_args(argv)
  suffixes = ('.safetensors', *read.TORCH) if args.export else ('.safetensors',)
  out = Path(os.path.expanduser(args.out))
  try:
    if args.source == 'publish' and not args.export:
      print(_printable(publish.publish(Path(args.checkpoint), out, args.dtype)))
      return 0
    if out.suffix not in suffixes or not os.path.isdir(out.absolute().parent):
      raise ValueError(f'{out}: OUT is a file {" or ".join(suffixes)} in a folder that exists.')
    read.check_place(out)
    if args.export and not (args.source in SOURCES and SOURCES[args.source].export):
      exported = [name for name, source in SOURCES.items() if source.export]
      raise ValueError(
        f'{args.source} cannot be exported, only {", ".join(exported)}; its released files exist.'
      )
    if args.source == 'run' and not args.export:
      said = run.convert(Path(args.checkpoint), out, args.part, args.dtype)
    elif args.export:
      said = export(args.source, args.checkpoint, out, args.original)
    else:
      said = convert(args.source, args.checkpoint, out, args.original)
  except ValueError as error:
    print(_printable(f'{error}'), file=sys.stderr)
    return 1
  print(_printable(said))
  return 0


def _printable(text: str) -> str:
  """Names of files and tensors may hold what is no text."""
  return text.encode(errors='backslashreplace').decode()


if __name__ == '__main__':
  sys.exit(main())
