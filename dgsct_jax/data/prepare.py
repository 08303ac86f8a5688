"""Builds a data set for training from released folders or videos.

python -m dgsct_jax.data.prepare NAME --source=DIR --out=DIR [--workers=N] [--skip_bad]

After an interruption the same command continues with the files that are not built yet. All clips
that cannot be used are listed, with reasons. `prepare NAME --help` shows the rules of cutting that
can be changed; docs/data has a page for each data set.
"""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from dgsct_jax.data import datasets, records


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.data.prepare', description=str(__doc__).splitlines()[0]
  )
  subparsers = parser.add_subparsers(dest='name', required=True, metavar='NAME')
  for name in names():
    about = str(sys.modules[recipe_of(name).__module__].__doc__)
    one = subparsers.add_parser(
      name,
      help=about.splitlines()[0],
      description=about,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      parents=[cutting(name)],
    )
    one.add_argument('--source', type=os.path.expanduser, required=True, help='folder of the files')
    one.add_argument(
      '--out', type=os.path.expanduser, required=True, help='folder for data sets; config.data.dir'
    )
    one.add_argument('--workers', type=int, default=os.cpu_count(), help='processes that read')
    one.add_argument('--skip_bad', action='store_true', help='leave out clips that cannot be used')
    one.add_argument('--beam_runner', help='Apache Beam runner, such as DirectRunner, to use')
    one.add_argument('--beam_options', default='', help='what it is told: NAME=VALUE,NAME=VALUE')
  flags = vars(parser.parse_args(arguments))
  name, source, out = (flags.pop(key) for key in ('name', 'source', 'out'))
  writing = {key: flags.pop(key) for key in ('workers', 'skip_bad', 'beam_runner', 'beam_options')}
  try:
    folder = records.write(recipe_of(name)(source, **flags), out, **writing)
  except (ValueError, OSError) as error:
    print(error, file=sys.stderr)
    return 1
  print(summary(folder))
  return 0


def summary(folder: Path) -> str:
  """Numbers and sizes of the clips of a built data set, and how many were left out."""
  builder = tfds.builder_from_directory(folder)
  lines = [str(folder)]
  for split in builder.info.splits.values():
    size = split.num_bytes / split.num_examples
    lines.append(f'  {split.name}: {split.num_examples} clips, {size / 1e3:.0f} kB each')
  for name, what in (('skipped', 'clips left out'), ('remarks', 'remarks')):
    if count := len(json.loads((folder / f'{name}.json').read_text())):
      lines.append(f'  {count} {what}, see {folder / name}.json')
  return '\n'.join(lines)


def names() -> tuple[str, ...]:
  """The data sets that are built from files."""
  return tuple(name for name, kind in datasets.KINDS.items() if kind.recipe)


def recipe_of(name: str) -> Callable[..., records.Recipe]:
  """The recipe of one of `names()`."""
  recipe = datasets.KINDS[name].recipe
  assert recipe is not None  # by the definition of names
  return recipe


def cutting(name: str) -> argparse.ArgumentParser:
  """The flags of one data set: the rules of cutting that are options of its recipe."""
  parser = argparse.ArgumentParser(prog=name, add_help=False)
  for rule in list(inspect.signature(recipe_of(name)).parameters.values())[1:]:
    parser.add_argument(
      f'--{rule.name}',
      type=type(rule.default),
      default=rule.default,
      help=f'default {rule.default!r}',
    )
  return parser


if __name__ == '__main__':
  sys.exit(main())
