"""Examines the files of a data set, clip by clip, before it is built.

python -m dgsct_jax.data.doctor NAME --source=DIR [--csv=FILE] [--workers=N]

Clips with faults cannot be used: missing, wrong length, unreadable. Remarks are: made good (silence
added or samples left out), silent, frozen picture, in two splits. At the end the usable clips are
counted and compared with the published numbers. Where pictures are stored and videos are there,
too, it says by which rule of prepare's --frames_like the pictures were cut. The exit status is 1 if
there are faults, or fewer usable clips than published.
"""

import argparse
import collections
import csv
import dataclasses
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dgsct_jax.data import compare, cut, datasets, prepare, readers, records
from dgsct_jax.data.kind import Kind

FAULTS = ('missing', 'wrong length', 'unreadable')
REMARKS = ('made good', 'silent', 'frozen picture', 'in two splits')
SILENT = 33  # peak of 32768, -60 dB
FROZEN = 2  # largest difference of 255 between thumbnails


@dataclasses.dataclass(frozen=True)
class Finding:
  """The faults and remarks of a clip, if any, with details."""

  split: str
  id: str
  kinds: tuple[str, ...]  # of FAULTS and REMARKS
  detail: str
  content: str = ''  # a hash of frames and sound

  @property
  def usable(self) -> bool:
    """Whether it has no faults."""
    return not set(self.kinds) & set(FAULTS)


def examine(recipe: records.Recipe, workers: int = 0) -> list[Finding]:
  """Reads every clip of a data set, and compares the splits.

  Args:
    workers: processes that read; with 0 this one does.
  """
  entries = [(split, entry) for split, listed in recipe.splits.items() for entry in listed]
  look, findings = _Look(recipe.read), []
  for (split, entry), (kinds, detail, content) in zip(entries, _map(look, entries, workers)):
    findings.append(Finding(split, entry.id, kinds, detail, content))
    if len(findings) % 500 == 0 or len(findings) == len(entries):
      print(f'{len(findings)} of {len(entries)} clips', file=sys.stderr, flush=True)
  return _compared(findings)


def totals(
  kind: Kind, recipe: records.Recipe, findings: Sequence[Finding]
) -> list[tuple[str, int, int, int]]:
  """(what, listed, usable, published or -1) of each split, or of each file of questions."""
  usable: dict[str, set[str]] = collections.defaultdict(set)
  for finding in findings:
    if finding.usable:
      usable[finding.split].add(finding.id)
  # A recipe of another name is cut by other rules, for which no numbers are published.
  published = kind.published if kind is datasets.KINDS.get(recipe.name) else {}
  return [
    (what, listed, count, published.get(what, -1))
    for what, listed, count in kind.totals(recipe, usable)
  ]


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.data.doctor',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('name', choices=prepare.names())
  parser.add_argument(
    '--source', type=os.path.expanduser, required=True, help='folder of the files'
  )
  parser.add_argument(
    '--csv', type=os.path.expanduser, help='file to write, with a row for each clip'
  )
  parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes that read')
  flags, cutting = parser.parse_known_args(arguments)
  kind = datasets.KINDS[flags.name]
  try:
    rules = vars(prepare.cutting(flags.name).parse_args(cutting))
    recipe = prepare.recipe_of(flags.name)(flags.source, **rules)
  except (ValueError, OSError) as error:
    print(error, file=sys.stderr)
    return 1
  for remark in recipe.remarks:
    print(f'label files: {remark}')
  if rule := compare.followed(recipe.pairs()):
    print(rule)
  findings = examine(recipe, flags.workers)
  if flags.csv:
    with open(flags.csv, 'w', newline='', encoding='utf-8') as file:
      writer = csv.writer(file)
      writer.writerow(('split', 'id', 'findings', 'detail'))
      writer.writerows((f.split, f.id, '; '.join(f.kinds) or 'ok', f.detail) for f in findings)
  counts = totals(kind, recipe, findings)
  print(report(findings, counts))
  short = any(usable < published for *_, usable, published in counts)
  return int(short or not all(finding.usable for finding in findings))


def report(findings: Sequence[Finding], counts: Sequence[tuple[str, int, int, int]]) -> str:
  """All faults, up to ten clips of every remark, and the totals."""
  lines = []
  for kind in (*FAULTS, *REMARKS):
    concerned = [finding for finding in findings if kind in finding.kinds]
    if concerned:
      lines.append(f'{kind}: {len(concerned)}')
      shown = concerned if kind in FAULTS else concerned[:10]
      lines += [f'  {finding.split} {finding.id}: {finding.detail}' for finding in shown]
      lines += [f'  and {len(concerned) - len(shown)} more'] * (len(concerned) > len(shown))
  lines.append('')
  for name, listed, usable, published in counts:
    line = f'{name}: {listed} listed, {usable} usable'
    lines.append(line if published < 0 else f'{line}, {published} published')
  return '\n'.join(lines)


@dataclasses.dataclass(frozen=True)
class _Look:
  """(split, entry) -> (kinds, detail, hash of the content); a class, for worker processes."""

  read: Callable[[Any], records.Record]

  def __call__(self, listed: tuple[str, records.Entry]) -> tuple[tuple[str, ...], str, str]:
    result = records.Attempt(self.read)(listed[1])
    if isinstance(result, Exception):
      wrong = 'wrong length' if isinstance(result, cut.WrongLength) else 'unreadable'
      return ('missing' if isinstance(result, FileNotFoundError) else wrong,), str(result), ''
    record, remarks = result
    kinds, details = ['made good'] * bool(remarks), list(remarks)
    if (peak := int(np.abs(record['wave'].astype(int)).max())) < SILENT:
      kinds.append('silent')
      details.append(f'the sound reaches {peak} of 32768')
    if len(record['frames']) > 1 and _frozen(record['frames']):
      kinds.append('frozen picture')
      details.append(f'all {len(record["frames"])} frames look the same')
    content = hashlib.sha1(b''.join(record['frames']) + record['wave'].tobytes())
    return tuple(kinds), '; '.join(details), content.hexdigest()


def _frozen(frames: Sequence[bytes]) -> bool:
  small = []
  for frame in frames:
    with Image.open(io.BytesIO(frame)) as image:
      grey = image.convert('L').resize((32, 32), Image.Resampling.BOX)
    small.append(np.asarray(grey).astype(int))
  return bool(np.ptp(np.stack(small), axis=0).max() < FROZEN)


def _compared(findings: Sequence[Finding]) -> list[Finding]:
  """Adds a remark to findings whose content or name is in another split too."""
  places: dict[str, dict[str, str]] = collections.defaultdict(dict)
  for finding in findings:
    for key in filter(None, (finding.content, finding.id)):
      places[key].setdefault(finding.split, finding.id)
  result = []
  for finding in findings:
    others = {
      split: name
      for key in (finding.content, finding.id)
      for split, name in places.get(key, {}).items()
      if split != finding.split
    }
    if others:
      same = 'the same as ' + ', '.join(f'{name} in {split}' for split, name in others.items())
      detail = '; '.join(filter(None, (finding.detail, same)))
      finding = dataclasses.replace(finding, kinds=(*finding.kinds, 'in two splits'), detail=detail)
    result.append(finding)
  return result


def _map(look: _Look, entries: Sequence, workers: int) -> Iterator:
  if not workers:
    yield from map(look, entries)
    return
  with readers.pool(workers) as pool:
    yield from pool.map(look, entries, chunksize=16)


if __name__ == '__main__':
  sys.exit(main())
