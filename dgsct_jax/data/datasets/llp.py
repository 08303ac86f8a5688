"""LLP (Look, Listen and Parse): ten seconds of video with visible and audible events, 25 classes.

Read from the folder of the DG-SCT release (`LLP_dataset/frame/<id>/*.jpg`, `LLP_dataset/wave/
<id>.npy`, perhaps `LLP_dataset/feats/r2plus1d_18/<id>.npy`), or from videos `<id>.mp4`; both need
the AVVP_*.csv files. docs/data/llp.md has the rules by which clips are cut.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32

from dgsct_jax.data import clips, cut, files, kind, records, rules

VERSION = '1.0.0'
SECONDS = 10
TAKEN = rules.Taken(1, range(SECONDS), at=0.5)
MOTION = 512  # features of R(2+1)D a second
CLASSES = (
  'Speech',
  'Car',
  'Cheering',
  'Dog',
  'Cat',
  'Frying_(food)',
  'Basketball_bounce',
  'Fire_alarm',
  'Chainsaw',
  'Cello',
  'Banjo',
  'Singing',
  'Chicken_rooster',
  'Violin_fiddle',
  'Vacuum_cleaner',
  'Baby_laughter',
  'Accordion',
  'Lawn_mower',
  'Motorcycle',
  'Helicopter',
  'Acoustic_guitar',
  'Telephone_bell_ringing',
  'Baby_cry_infant_cry',
  'Blender',
  'Clapping',
)
SPLITS = {'train': 'AVVP_train.csv', 'val': 'AVVP_val_pd.csv', 'test': 'AVVP_test_pd.csv'}

Spans = tuple[tuple[int, int, int], ...]  # class, first second, second after the last


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of a split's file, with the labels of its seconds."""

  id: str  # as in the file: video, start and end
  events: tuple[int, ...]  # classes that are visible or audible at some time
  heard: Spans  # val and test only
  seen: Spans
  files: str  # the video, or the released folder
  motion: bool  # whether there are R(2+1)D features

  @property
  def video(self) -> str:
    """The id of the video."""
    return self.id[:11]  # it may itself contain underscores

  @property
  def start(self) -> float:
    """The second of the video at which the clip starts."""
    return float(self.id[12:].split('_')[0])

  def start_in(self, path: Path) -> float | None:
    """The same, or None for a file that has the name of the clip and so is not the video."""
    return None if path.stem == self.id else self.start


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    path = Path(entry.files)
    if path.is_dir():
      frames = cut.first_files(path / 'frame' / entry.video, SECONDS)
      wave = cut.wave_file(path / 'wave' / f'{entry.video}.npy', SECONDS, self.rate)
    else:
      start = cut.start_of(path, entry.start_in(path), SECONDS)
      times = [start + time for time in TAKEN.times(self.frames_like)]
      frames = cut.video_frames(path, times, self.side)
      wave = cut.video_wave(path, SECONDS, self.rate, start)
    label = np.zeros(len(CLASSES), np.float32)
    label[list(entry.events)] = 1
    record = {
      'id': entry.id,
      'frames': frames,
      'wave': wave,
      'audio': raster(entry.heard),
      'visual': raster(entry.seen),
      'label': label,
    }
    if entry.motion:
      record['motion'] = _motion(path / f'feats/r2plus1d_18/{entry.video}.npy')
    return record


def recipe(
  source: str | os.PathLike, *, rate: int = 32000, side: int = 256, frames_like: str = rules.RELEASE
) -> records.Recipe:
  """The data set in a folder.

  Raises:
    ValueError: the folder has neither layout, its label files have unknown classes, or
      `frames_like` is no rule that applies.
  """
  root = cut.find_root(source, 'AVVP', SPLITS['train'])
  folder = root / 'LLP_dataset'
  released = (folder / 'frame').is_dir() and (folder / 'wave').is_dir()
  motion = released and (folder / 'feats/r2plus1d_18').is_dir()
  places = [root, root / 'video', root / 'videos', folder / 'video']
  rules.check(frames_like, stored=released)
  videos = {} if released else cut.find_videos(places)
  if not (released or videos):
    raise ValueError(
      f'{root} has neither the folders frame and wave in LLP_dataset, nor videos in '
      'video, videos, LLP_dataset/video or itself.'
    )
  listed = labels(root)
  splits: dict[str, list[Entry]] = {}
  for split, rows in listed.items():
    splits[split] = []
    for entry in rows:
      video = _video(entry, videos) or root / 'video' / f'{entry.video}.mp4'
      files = str(folder if released else video)
      splits[split].append(dataclasses.replace(entry, files=files, motion=motion))
  seconds = tfds.features.Tensor(shape=(SECONDS, len(CLASSES)), dtype=np.float32)
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * rate),
    'label': tfds.features.Tensor(shape=(len(CLASSES),), dtype=np.float32),  # of the clip
    'audio': seconds,  # heard; zeros in train
    'visual': seconds,  # seen; zeros in train
  }
  if motion:
    features['motion'] = tfds.features.Tensor(
      shape=(SECONDS, MOTION), dtype=np.float32, encoding='bytes'
    )
  return records.Recipe(
    'llp',
    VERSION,
    features,
    splits,
    Read(rate, side, frames_like),
    {'classes.txt': '\n'.join(CLASSES)},
    root=root,
    frames_like='' if released else frames_like,
    pairs=lambda: _pairs(folder, listed, cut.find_videos(places)),
  )


def _video(entry: Entry, videos: Mapping[str, Path]) -> Path | None:
  return videos.get(entry.id) or videos.get(entry.video)


def _pairs(
  folder: Path, listed: Mapping[str, list[Entry]], videos: Mapping[str, Path]
) -> list[rules.Pair]:
  return [
    rules.Pair(video, folder / 'frame' / entry.video, TAKEN, SECONDS, entry.start_in(video))
    for rows in listed.values()
    for entry in rows
    if (video := _video(entry, videos))
  ]


def labels(root: Path) -> dict[str, list[Entry]]:
  """The clips of each split in the order of its file, without their files."""
  heard, seen = (_spans(root / f'AVVP_eval_{name}.csv') for name in ('audio', 'visual'))
  splits: dict[str, list[Entry]] = {}
  for split, name in SPLITS.items():
    splits[split] = []
    for row in files.table(root / name, ('filename', 'event_labels'), '\t'):
      events = {_class(row, label) for label in row.fields['event_labels'].split(',')}
      clip = row.fields['filename']
      known = split != 'train'
      splits[split].append(
        Entry(
          clip,
          tuple(sorted(events)),
          heard.get(clip, ()) if known else (),
          seen.get(clip, ()) if known else (),
          '',
          False,
        )
      )
  return splits


def raster(spans: Spans) -> Float32[np.ndarray, 't c']:
  """1 for the classes of each second; spans that end before they begin are ignored."""
  on = np.zeros((SECONDS, len(CLASSES)), np.float32)
  for event, start, end in spans:
    on[start:end, event] = 1
  return on


def _spans(path: Path) -> Mapping[str, Spans]:
  spans: dict[str, list[tuple[int, int, int]]] = {}
  for row in files.table(path, ('filename', 'onset', 'offset', 'event_labels'), '\t'):
    start, end = (row.whole(name, 0, SECONDS) for name in ('onset', 'offset'))
    span = _class(row, row.fields['event_labels']), start, end
    spans.setdefault(row.fields['filename'], []).append(span)
  return {name: tuple(listed) for name, listed in spans.items()}


def _class(row: files.Row, label: str) -> int:
  if label.strip() not in CLASSES:
    raise row.fail(f'the event {label!r} is none of {", ".join(CLASSES)}')
  return CLASSES.index(label.strip())


def _motion(path: Path) -> Float32[np.ndarray, 't 512']:
  try:
    features = np.load(path)
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{path} is missing, though other clips have motion features; extract it, or remove the'
      ' folder feats/r2plus1d_18 to go without.'
    ) from None
  except (ValueError, EOFError) as error:
    raise ValueError(f'{path} is not a readable array of numbers ({error}).') from error
  shape = getattr(features, 'shape', 'no shape')
  if shape != (SECONDS, MOTION) or not np.isfinite(features).all():
    raise cut.WrongLength(
      f'{path} has the shape {shape}, or is not finite; it should hold {(SECONDS, MOTION)} numbers.'
    )
  return features.astype(np.float32)


KIND = kind.Kind(
  classes=lambda fields: CLASSES,
  windows=lambda fields, length: clips.consecutive(length, clips.middles(SECONDS)),
  recipe=recipe,
  published={'train': 10000, 'val': 649, 'test': 1200},
  parsing=(),
)
