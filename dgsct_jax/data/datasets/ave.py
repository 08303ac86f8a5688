"""AVE: 4143 clips of ten seconds with one audio-visual event each, of 28 classes.

Read from the folder of the DG-SCT release (`frames/<VideoID>/*.jpg`, `wave/<VideoID>.npy`), or
from that of the data set's authors (`AVE/<VideoID>.mp4`); both have Annotations.txt and the split
files. docs/data/ave.md has the rules by which clips are cut.
"""

import collections
import dataclasses
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax.data import clips, cut, files, kind, records, rules

VERSION = '1.0.0'
SECONDS = 10
CLASSES = (
  'Church bell',
  'Male speech, man speaking',
  'Bark',
  'Fixed-wing aircraft, airplane',
  'Race car, auto racing',
  'Female speech, woman speaking',
  'Helicopter',
  'Violin, fiddle',
  'Flute',
  'Ukulele',
  'Frying (food)',
  'Truck',
  'Shofar',
  'Motorcycle',
  'Acoustic guitar',
  'Train horn',
  'Clock',
  'Banjo',
  'Goat',
  'Baby cry, infant cry',
  'Bus',
  'Chainsaw',
  'Cat',
  'Horse',
  'Toilet flush',
  'Rodents, rats, mice',
  'Accordion',
  'Mandolin',
)
BACKGROUND = len(CLASSES)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of Annotations.txt; 46 videos have two or more."""

  id: str  # of the video
  row: int
  event: int  # class
  start: int  # seconds
  end: int
  files: str  # the video, or the released folder

  @property
  def label(self) -> list[int]:
    """The class of each second."""
    return [self.event if self.start <= t < self.end else BACKGROUND for t in range(SECONDS)]


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frames_per_second: int  # at which videos are cut before ten frames are chosen
  usual: int = dataclasses.field(default=0, repr=False)  # pictures in a folder
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    times = taken(self.frames_per_second).times(self.frames_like)
    frames, wave = cut.read_clip(entry.files, entry.id, times, self.rate, self.side, self.usual)
    return {
      'id': entry.id,
      'row': entry.row,
      'frames': frames,
      'wave': wave,
      'event': entry.event,
      'label': np.array(entry.label, np.int32),
    }


def recipe(
  source: str | os.PathLike,
  *,
  rate: int = 32000,
  side: int = 256,
  frames_per_second: int = 16,
  frames_like: str = rules.RELEASE,
) -> records.Recipe:
  """The data set in a folder.

  Raises:
    ValueError: the folder has neither layout, its label files contradict each other, or
      `frames_like` is no rule that applies.
  """
  root = cut.find_root(source, 'AVE', 'Annotations.txt')
  rows = annotations(root)
  released = (root / 'frames').is_dir() and (root / 'wave').is_dir()
  rules.check(frames_like, stored=released)
  places = [root, root / 'AVE', root / 'videos']
  videos = {} if released else cut.find_videos(places)
  if not (released or videos):
    raise ValueError(
      f'{root} has neither the folders frames and wave, nor videos in AVE, videos or itself.'
    )
  usual = cut.usual_count(root / 'frames' / row.id for row in rows) if released else 0
  missing = str(root / 'AVE' / '{}.mp4')  # the file that the error names
  entries = [
    dataclasses.replace(
      row, files=str(root if released else videos.get(row.id, missing.format(row.id)))
    )
    for row in rows
  ]
  features = {
    'id': tfds.features.Text(),
    'row': tfds.features.Scalar(np.int32),  # of Annotations.txt, from 0
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * rate),
    'event': tfds.features.Scalar(np.int32),
    'label': tfds.features.Tensor(shape=(SECONDS,), dtype=np.int32),  # 28: background
  }
  return records.Recipe(
    name='ave',
    version=VERSION,
    features=features,
    splits={name: [entries[i] for i in order] for name, order in splits(root, rows).items()},
    read=Read(rate, side, frames_per_second, usual, frames_like),
    files={'classes.txt': '\n'.join(CLASSES)},
    remarks=repeated(rows),
    root=root,
    frames_like='' if released else frames_like,
    pairs=lambda: rules.pairs(
      cut.find_videos(places), root / 'frames', taken(frames_per_second), SECONDS
    ),
  )


def annotations(root: Path) -> list[Entry]:
  """The rows of Annotations.txt, without their files."""
  rows = files.lines(root / 'Annotations.txt')
  if rows and rows[0][1].startswith('Category&'):
    del rows[0]
  return [
    _parse(root / 'Annotations.txt', line, text, row) for row, (line, text) in enumerate(rows)
  ]


def repeated(rows: list[Entry]) -> list[str]:
  """Remarks on equal rows of Annotations.txt."""
  same: dict[tuple[int, str, int, int], list[int]] = {}
  for row in rows:
    same.setdefault(_key(row), []).append(row.row)
  return [
    f'Annotations.txt has {key[1]} in the rows {", ".join(map(str, numbers))} from 0, all alike'
    for key, numbers in same.items()
    if len(numbers) > 1
  ]


def splits(root: Path, rows: list[Entry]) -> dict[str, list[int]]:
  """The rows of each split in their order, from NAME_order.h5 or NAMESet.txt, which must agree."""
  result: dict[str, list[int]] = {}
  numbers: dict[tuple[int, str, int, int], list[int]] = {}
  for row in rows:
    numbers.setdefault(_key(row), []).append(row.row)
  for name in ('train', 'val', 'test'):
    order, listed = root / f'{name}_order.h5', root / f'{name}Set.txt'
    if not (order.exists() or listed.exists()):
      raise ValueError(f'{root} has neither {order.name} nor {listed.name}.')
    ordered = _read_order(order, len(rows)) if order.exists() else None
    wanted = _read_list(listed, numbers, ordered) if listed.exists() else []
    if ordered is not None:
      if listed.exists() and [_key(rows[i]) for i in ordered] != [_key(rows[i]) for i in wanted]:
        raise ValueError(f'{order} and {listed} name different clips; remove the wrong one.')
      wanted = ordered
    repeated = [rows[i] for i, count in collections.Counter(wanted).items() if count > 1]
    if repeated:
      raise ValueError(
        f'{order if order.exists() else listed} names {len(repeated)} clips twice, first'
        f' {repeated[0].id}, row {repeated[0].row} of Annotations.txt from 0.'
      )
    result[name] = wanted
  return result


def _read_order(path: Path, rows: int) -> list[int]:
  try:
    with h5py.File(path) as file:
      order = np.asarray(file['order'][:])
  except (OSError, KeyError) as error:
    raise ValueError(f'{path} is no HDF5 file with the field order ({error}).') from error
  if order.dtype.kind not in 'iu' or order.ndim != 1:
    raise ValueError(
      f'{path} holds {order.dtype} of the shape {order.shape}; it should list rows of'
      ' Annotations.txt by number.'
    )
  if outside := [int(i) for i in order if not 0 <= i < rows]:
    raise ValueError(
      f'{path} names the rows {outside[:5]} of Annotations.txt, which has only {rows}.'
    )
  return order.tolist()


def _read_list(
  path: Path, numbers: dict[tuple[int, str, int, int], list[int]], wanted: list[int] | None
) -> list[int]:
  """The rows of Annotations.txt that a list names.

  Args:
    wanted: the rows of the other file, which decide where a clip is in several rows.
  """
  places: list[int] = []
  for line, text in files.lines(path):
    key = _key(_parse(path, line, text, 0))
    if key not in numbers:
      raise ValueError(f'{path}, line {line}: {key[1]} is not in Annotations.txt.')
    same, place = numbers[key], len(places)
    meant = wanted[place] if wanted is not None and place < len(wanted) else same[0]
    places.append(meant if meant in same else same[0])
  return places


def _key(row: Entry) -> tuple[int, str, int, int]:
  return row.event, row.id, row.start, row.end


def _parse(path: Path, line: int, text: str, row: int) -> Entry:
  try:
    category, video, _, start, end = text.split('&')
    return Entry(video, row, CLASSES.index(category), int(start), int(end), '')
  except ValueError:
    raise ValueError(
      f'{path}, line {line}: {text!r} is not a known class, a video, a quality, and two seconds,'
      " with '&' in between."
    ) from None


def windows(fields: Any, length: float) -> list[clips.Window]:
  """Windows of ten seconds, with the pictures of a video that is cut at 16 frames per second."""
  return clips.consecutive(length, taken(16).times())


def taken(frames_per_second: int) -> rules.Taken:
  """The ten pictures of a video that is cut at a frame rate, as released."""
  return rules.Taken(frames_per_second, cut.spread(SECONDS * frames_per_second, SECONDS))


KIND = kind.Kind(
  classes=lambda fields: CLASSES,
  windows=windows,
  recipe=recipe,
  published={'train': 3339, 'val': 402, 'test': 402},
)
