"""VGGSound: ten seconds of video with one of 309 classes of sound.

Read from the folder of the MA-AVT release (`frames/<split>/Image-01-FPS/<clip>.mp4/*.jpg`,
`audio/<split>/<clip>.wav`), or from videos `<clip>.mp4`, where <clip> is the video's id, '_' and
the second of its start in six digits; both need vggsound.csv.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax.data import clips, cut, files, kind, records, rules

VERSION = '1.0.0'
SECONDS = 10
LEAST = 4  # pictures, as released
TAKEN = rules.Taken(1, range(SECONDS), at=0.5)
SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class Entry:
  """A row of vggsound.csv."""

  id: str  # video and start
  label: int  # index of its class in alphabetical order
  start: int  # seconds
  files: str  # the video; '': use the folder of pictures
  frames: str  # the folder of pictures; '': use the video
  sound: str


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    if entry.frames:
      frames = cut.first_files(entry.frames, SECONDS, LEAST)
      wave = cut.sound_looped(entry.sound, SECONDS, self.rate)
    else:
      start = cut.start_of(entry.files, entry.start, SECONDS)
      times = [start + time for time in TAKEN.times(self.frames_like)]
      frames = cut.video_frames(entry.files, times, self.side)
      wave = cut.sound_looped(entry.files, SECONDS, self.rate, start)
    return {'id': entry.id, 'frames': frames, 'wave': wave, 'label': entry.label}


def recipe(
  source: str | os.PathLike,
  *,
  rate: int = 32000,
  side: int = 256,
  ids: str = '',
  frames_like: str = rules.RELEASE,
) -> records.Recipe:
  """The data set in a folder. Its file classes.txt has the names of the classes in their order.

  Args:
    ids: a file with the names of the clips to use, one in each line; by default all are used.

  Raises:
    ValueError: the folder has neither layout, the splits have different classes, or `frames_like`
      is no rule that applies.
  """
  root = cut.find_root(source, 'vggsound', 'vggsound.csv')
  rows, classes = labels(root / 'vggsound.csv')
  wanted = set(files.read_text(Path(ids)).split()) if ids else None
  there = {row.id for listed in rows.values() for row in listed}
  if unknown := (wanted or set()) - there:
    raise ValueError(
      f'{ids} names {len(unknown)} clips that are not in vggsound.csv, such as {min(unknown)}.'
    )
  released = (root / 'frames').is_dir() and (root / 'audio').is_dir()
  rules.check(frames_like, stored=released)
  videos = {} if released else cut.find_videos_below(root)
  if not (released or videos):
    raise ValueError(f'{root} has neither the folders frames and audio, nor any video.')
  splits = {}
  for split, listed in rows.items():
    splits[split] = [
      _located(entry, root, split, None if released else videos)
      for entry in listed
      if wanted is None or entry.id in wanted
    ]
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,  # one each second; the released folders have 4 to 10
    'wave': records.wave(SECONDS * rate),
    'label': tfds.features.Scalar(np.int32),
  }
  return records.Recipe(
    'vggsound',
    VERSION,
    features,
    splits,
    Read(rate, side, frames_like),
    {'classes.txt': '\n'.join(classes)},
    root=root,
    frames_like='' if released else frames_like,
    pairs=lambda: _pairs(splits, cut.find_videos_below(root)),
  )


def _pairs(splits: Mapping[str, list[Entry]], videos: Mapping[str, Path]) -> list[rules.Pair]:
  return [
    rules.Pair(videos[entry.id], Path(entry.frames), TAKEN, SECONDS, entry.start)
    for rows in splits.values()
    for entry in rows
    if entry.id in videos
  ]


def labels(path: Path) -> tuple[dict[str, list[Entry]], list[str]]:
  """The clips of each split, without their files, and the names of the classes."""
  lines = []
  for row in files.columns(path, 4):
    video, start, name, split = row.fields.values()
    if not start.isdigit() or split not in SPLITS:
      raise row.fail(f'{list(row.fields.values())} is not a video, a second, a class and a split')
    lines.append((video, start, name, split))
  # From the full list: a list of the available clips only would change the indices of classes.
  classes = sorted({line[2] for line in lines})
  splits = {
    split: [
      Entry(f'{video}_{int(start):06d}', classes.index(name), int(start), '', '', '')
      for video, start, name, own in lines
      if own == split
    ]
    for split in SPLITS
  }
  counts = {split: len({entry.label for entry in listed}) for split, listed in splits.items()}
  if len(set(counts.values())) > 1:
    raise ValueError(f'{path} has {counts} different classes in its splits.')
  return splits, classes


def _located(entry: Entry, root: Path, split: str, videos: Mapping[str, Path] | None) -> Entry:
  if videos is None:
    return dataclasses.replace(
      entry,
      frames=str(root / 'frames' / split / 'Image-01-FPS' / f'{entry.id}.mp4'),
      sound=str(root / 'audio' / split / f'{entry.id}.wav'),
    )
  return dataclasses.replace(
    entry, files=str(videos.get(entry.id, root / 'videos' / f'{entry.id}.mp4'))
  )


def class_names(fields: Any) -> tuple[str, ...]:
  """The class names that are stored with the built data set."""
  return records.class_names(fields.dir, fields.name)


KIND = kind.Kind(
  classes=class_names,
  windows=lambda fields, length: clips.consecutive(length, clips.middles(SECONDS)),
  recipe=recipe,
)
