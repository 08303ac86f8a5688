"""AVE: 4143 clips of ten seconds with one audio-visual event each, of 28 classes.

Read from the folder of the DG-SCT release (`frames/<VideoID>/*.jpg`, `wave/<VideoID>.npy`), or
from that of the data set's authors (`AVE/<VideoID>.mp4`); Annotations.txt and the split files lie
in both. docs/data/ave.md has the rules by which clips are cut.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax.data import clips, cut, kind, records

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
class Clip:
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
  side: int  # of frames taken from videos: the shorter one is at most this
  frames_per_second: int  # of which ten frames are taken, of videos

  def __call__(self, clip: Clip) -> records.Record:
    times = frame_times(self.frames_per_second)
    frames, wave = cut.read_clip(clip.files, clip.id, times, self.rate, self.side)
    return {
      'id': clip.id,
      'row': clip.row,
      'frames': frames,
      'wave': wave,
      'event': clip.event,
      'label': np.array(clip.label, np.int32),
    }


def recipe(
  source: str | os.PathLike, *, rate: int = 32000, side: int = 256, frames_per_second: int = 16
) -> records.Recipe:
  """The data set in a folder.

  Raises:
    ValueError: the folder has neither layout, or its label files contradict each other.
  """
  root = cut.find_root(source, 'AVE', 'Annotations.txt')
  rows = annotations(root)
  released = (root / 'frames').is_dir() and (root / 'wave').is_dir()
  videos = {} if released else cut.find_videos([root, root / 'AVE', root / 'videos'])
  if not (released or videos):
    raise ValueError(
      f'{root} has neither the folders frames and wave, nor videos in AVE, videos or itself.'
    )
  missing = str(root / 'AVE' / '{}.mp4')  # to be named as the reason
  clips = [
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
    splits={name: [clips[i] for i in order] for name, order in splits(root, rows).items()},
    read=Read(rate, side, frames_per_second),
    files={'classes.txt': '\n'.join(CLASSES)},
  )


def annotations(root: Path) -> list[Clip]:
  """The rows of Annotations.txt, without their files."""
  path = root / 'Annotations.txt'
  lines = path.read_text(encoding='utf-8').splitlines()
  if lines and lines[0].startswith('Category&'):
    del lines[0]
  return [_parse(path, number, line) for number, line in enumerate(lines)]


def splits(root: Path, rows: list[Clip]) -> dict[str, list[int]]:
  """The rows of each split in their order, from {}_order.h5 or {}Set.txt, which must agree."""
  result = {}
  numbers = {(row.event, row.id, row.start, row.end): row.row for row in rows}
  for name in ('train', 'val', 'test'):
    order, listed = root / f'{name}_order.h5', root / f'{name}Set.txt'
    found = []
    if order.exists():
      with h5py.File(order) as file:
        found.append(file['order'][:].tolist())
      if outside := [i for i in found[0] if not 0 <= i < len(rows)]:
        raise ValueError(
          f'{order} names the rows {outside[:5]} of Annotations.txt, which has only {len(rows)}.'
        )
    if listed.exists():
      lines = listed.read_text(encoding='utf-8').splitlines()
      parsed = [_parse(listed, i, line) for i, line in enumerate(lines)]
      keys = [(row.event, row.id, row.start, row.end) for row in parsed]
      if unknown := [key for key in keys if key not in numbers]:
        raise ValueError(
          f'{listed} has {len(unknown)} clips that are not in Annotations.txt, such '
          f'as {unknown[0][1]}.'
        )
      found.append([numbers[key] for key in keys])
    if not found:
      raise ValueError(f'{root} has neither {order.name} nor {listed.name}.')
    if found[0] != found[-1]:
      raise ValueError(f'{order} and {listed} name different clips; remove the wrong one.')
    result[name] = found[0]
  return result


def _parse(path: Path, number: int, line: str) -> Clip:
  try:
    category, video, _, start, end = line.split('&')
    return Clip(video, number, CLASSES.index(category), int(start), int(end), '')
  except ValueError:
    raise ValueError(
      f'{path}, row {number} from 0: {line!r} is not a known class, a video, a '
      "quality, and two seconds, with '&' in between."
    ) from None


def windows(fields: Any, length: float) -> list[clips.Window]:
  """Ten seconds at a time, pictures as from a video that was cut into 16 a second."""
  return clips.consecutive(length, frame_times(16))


def frame_times(frames_per_second: int) -> list[float]:
  """When the ten pictures of a video are taken that was cut into so many, as released."""
  chosen = cut.spread(SECONDS * frames_per_second, SECONDS)
  return [i / frames_per_second for i in chosen]


KIND = kind.Kind(
  classes=lambda fields: CLASSES,
  windows=windows,
  recipe=recipe,
  published={'train': 3339, 'val': 402, 'test': 402},
)
