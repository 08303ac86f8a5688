"""VGGSound-AVEL40k: like AVE, ten seconds with one event of 141 classes; for pre-training.

Read from the folder of the DG-SCT release (`frames/<number>/*.jpg`, `wave/<number>.npy`, numbers of
six digits), or from videos `<number>.mp4`; both need vggsound-avel40k_labels.csv and
VggsoundAVEL40kCategories.txt.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax.data import clips, cut, files, kind, records, rules

VERSION = '1.0.0'
SECONDS = 10
TAKEN = rules.Taken(1, range(SECONDS), at=0.5)
LABELS = 'vggsound-avel40k_labels.csv'


@dataclasses.dataclass(frozen=True)
class Entry:
  """A row of the labels."""

  id: str
  event: int  # class
  on: tuple[int, ...]  # 1 for the seconds of the event
  background: int
  files: str  # the video, or the released folder


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  usual: int = dataclasses.field(default=0, repr=False)  # pictures in a folder
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    times = TAKEN.times(self.frames_like)
    frames, wave = cut.read_clip(entry.files, entry.id, times, self.rate, self.side, self.usual)
    label = np.where(entry.on, entry.event, entry.background).astype(np.int32)
    return {'id': entry.id, 'frames': frames, 'wave': wave, 'event': entry.event, 'label': label}


def recipe(
  source: str | os.PathLike, *, rate: int = 32000, side: int = 256, frames_like: str = rules.RELEASE
) -> records.Recipe:
  """The data set in a folder, with the splits of the label file. Background is the last class.

  Raises:
    ValueError: the folder has neither layout, a row is not understood, or `frames_like` is no rule
      that applies.
  """
  root = cut.find_root(source, 'vggsound', LABELS)
  released = (root / 'frames').is_dir() and (root / 'wave').is_dir()
  rules.check(frames_like, stored=released)
  places = [root, *sorted(root.glob('*[vV]ideo*'))]
  videos = {} if released else cut.find_videos(places)
  if not (released or videos):
    raise ValueError(
      f'{root} has neither the folders frames and wave, nor videos in itself or in '
      'a folder with "video" in its name.'
    )
  missing = str(root / 'videos' / '{}.mp4')
  listed = labels(root)
  splits = {
    split: [
      dataclasses.replace(
        entry, files=str(root if released else videos.get(entry.id, missing.format(entry.id)))
      )
      for entry in rows
    ]
    for split, rows in listed.items()
  }
  folders = (root / 'frames' / entry.id for rows in listed.values() for entry in rows)
  usual = cut.usual_count(folders) if released else 0
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * rate),
    'event': tfds.features.Scalar(np.int32),
    'label': tfds.features.Tensor(shape=(SECONDS,), dtype=np.int32),
  }
  return records.Recipe(
    'vggsound_avel',
    VERSION,
    features,
    splits,
    Read(rate, side, usual, frames_like),
    {'classes.txt': '\n'.join(categories(root))},
    root=root,
    frames_like='' if released else frames_like,
    pairs=lambda: rules.pairs(cut.find_videos(places), root / 'frames', TAKEN, SECONDS),
  )


def categories(root: Path) -> list[str]:
  """The names of the 141 classes in their order."""
  return [name for _, name in files.lines(root / 'VggsoundAVEL40kCategories.txt')]


def labels(root: Path) -> dict[str, list[Entry]]:
  """The clips of each split in the order of the file, without their files."""
  classes = categories(root)
  splits: dict[str, list[Entry]] = {}
  for row in files.table(root / LABELS, ('video_id', 'category', 'label', 'split')):
    text, category = row.fields['label'], row.fields['category']
    try:
      on = tuple(int(second) for second in json.loads(text))
    except (ValueError, TypeError):
      on = ()
    if len(on) != SECONDS or not set(on) <= {0, 1}:
      raise row.fail(f'label is {text!r}; it must be a list of ten 0 or 1')
    if category not in classes:
      raise row.fail(f'{category!r} is no category of VggsoundAVEL40kCategories.txt')
    name = f'{row.whole("video_id", 0, 999999):06d}'
    entry = Entry(name, classes.index(category), on, len(classes), '')
    splits.setdefault(row.fields['split'], []).append(entry)
  return splits


def class_names(fields: Any) -> tuple[str, ...]:
  """The class names that are stored with the built data set."""
  return records.class_names(fields.dir, fields.name)


KIND = kind.Kind(
  classes=class_names,
  windows=lambda fields, length: clips.consecutive(length, clips.middles(SECONDS)),
  recipe=recipe,
)
