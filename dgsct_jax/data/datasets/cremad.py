"""CREMA-D: actors say a sentence with one of six emotions, in about three seconds.

Read from the folder of the MA-AVT and OGM-GE releases (`AudioWAV/<clip>.wav`,
`frames/Image-01-FPS/<clip>/*.jpg`), or from that of the authors (`VideoFlash/<clip>.flv`).
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax.data import clips, cut, files, kind, media, records, rules

VERSION = '1.0.0'
SECONDS = 3
TAKEN = rules.Taken(1, range(SECONDS), at=0.5)
CLASSES = ('NEU', 'HAP', 'SAD', 'FEA', 'DIS', 'ANG')


@dataclasses.dataclass(frozen=True)
class Entry:
  """One sentence of an actor."""

  id: str  # actor_sentence_emotion_level
  label: int
  video: str  # '': use the folder of pictures
  frames: str  # the folder of pictures; '': use the video
  sound: str  # '': use that of the video


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    if entry.frames:
      frames = cut.first_files(entry.frames, SECONDS, 1)
    else:
      seconds = max(1, round(media.probe(entry.video).duration or 1))
      times = TAKEN.times(self.frames_like)[:seconds]
      frames = cut.video_frames(entry.video, times, self.side)
    wave = cut.sound_looped(entry.sound or entry.video, SECONDS, self.rate)
    return {'id': entry.id, 'frames': frames, 'wave': wave, 'label': entry.label}


def recipe(
  source: str | os.PathLike,
  *,
  rate: int = 22050,
  side: int = 256,
  split: str = 'released',
  frames_like: str = rules.RELEASE,
) -> records.Recipe:
  """The data set in a folder.

  Args:
    split: 'released', that of Annotations/train.csv and test.csv, which have the same actors; or
      'actors', in which every tenth actor is in test only, and every tenth in val only.

  Raises:
    ValueError: the folder has neither layout, the lists an unknown emotion, or `frames_like` is no
      rule that applies.
  """
  root = cut.find_root(source, 'CREMA-D', 'AudioWAV', 'VideoFlash')
  if split not in ('released', 'actors'):
    raise ValueError(f"split={split!r}; choose 'released' or 'actors'.")
  listed = released_split(root) if split == 'released' else actor_split(root)
  pictures = root / 'frames' / 'Image-01-FPS'
  rules.check(frames_like, stored=pictures.is_dir())
  places = [root, root / 'VideoFlash']
  videos = {} if pictures.is_dir() else cut.find_videos(places)
  if not (pictures.is_dir() or videos):
    raise ValueError(
      f'{root} has neither the folder frames/Image-01-FPS, nor videos in VideoFlash.'
    )
  sounds = root / 'AudioWAV'
  splits = {
    name: [
      Entry(
        clip,
        label,
        video=str(videos.get(clip, root / 'VideoFlash' / f'{clip}.flv')) if videos else '',
        frames='' if videos else str(pictures / clip),
        sound=str(sounds / f'{clip}.wav') if sounds.is_dir() else '',
      )
      for clip, label in rows
    ]
    for name, rows in listed.items()
  }
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,  # one each second, up to three
    'wave': records.wave(SECONDS * rate),
    'label': tfds.features.Scalar(np.int32),
  }
  name = 'cremad' if split == 'released' else 'cremad_actors'
  return records.Recipe(
    name,
    VERSION,
    features,
    splits,
    Read(rate, side, frames_like),
    {'classes.txt': '\n'.join(CLASSES)},
    root=root,
    frames_like=frames_like if videos else '',
    pairs=lambda: rules.pairs(
      cut.find_videos(places), pictures, rules.Taken(1, range(2), at=0.5), 2
    ),
  )


def released_split(root: Path) -> dict[str, list[tuple[str, int]]]:
  """(clip, class) of the rows of the two lists."""
  splits: dict[str, list[tuple[str, int]]] = {}
  for name in ('train', 'test'):
    path = root / 'Annotations' / f'{name}.csv'
    if not path.exists():
      raise ValueError(f'{path} is missing; use --split=actors, which does not need it.')
    splits[name] = []
    for row in files.columns(path, 2):
      clip, emotion = row.fields.values()
      if emotion not in CLASSES:
        raise row.fail(f'{emotion!r} is none of the emotions {", ".join(CLASSES)}')
      splits[name].append((clip, CLASSES.index(emotion)))
  return splits


def actor_split(root: Path) -> dict[str, list[tuple[str, int]]]:
  """(clip, class) of all files, according to their names."""
  folder = root / 'AudioWAV' if (root / 'AudioWAV').is_dir() else root / 'VideoFlash'
  clips = sorted(path.stem for path in folder.iterdir() if path.stem.count('_') == 3)
  actors = sorted({clip.split('_')[0] for clip in clips})
  place = {actor: {0: 'test', 5: 'val'}.get(i % 10, 'train') for i, actor in enumerate(actors)}
  splits: dict[str, list[tuple[str, int]]] = {'train': [], 'val': [], 'test': []}
  for clip in clips:
    actor, _, emotion, _ = clip.split('_')
    if emotion not in CLASSES:
      raise ValueError(f'{folder / clip} has none of the emotions {CLASSES} in its name.')
    splits[place[actor]].append((clip, CLASSES.index(emotion)))
  return splits


KIND = kind.Kind(
  classes=lambda fields: CLASSES,
  windows=lambda fields, length: clips.consecutive(length, clips.middles(SECONDS)),
  recipe=recipe,
  published={'train': 6698, 'test': 744},
)
