"""What the two parts of AVSBench share: five seconds with a picture, a mask and sound each.

A mask marks the pixels of objects that sound; docs/data/avsbench.md has the rules.
"""

import dataclasses
import functools
import io
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dgsct_jax.data import clips, cut, records, rules, transforms

VERSION = '1.0.0'
SECONDS = 5
TAKEN = rules.Taken(16, range(15, 16 * SECONDS, 16))  # the last of sixteen, as the authors did
SPLITS = ('train', 'val', 'test')
SOFT = 0.2  # share of grey pixels above which a picture is not accepted as a mask


@dataclasses.dataclass(frozen=True)
class Entry:
  """A row of the list, and the places of its files."""

  id: str
  frames: tuple[str, ...]  # pictures; empty: take those of the video
  video: str
  masks: tuple[str, ...]
  waves: str  # the AVS.npy with the sound; '': take that of the video
  sound: str  # the name of the sound in AVS.npy
  start: float | None = 0.0  # of the clip in a longer video; None: the video is the clip
  category: int = 0


@dataclasses.dataclass(frozen=True)
class Read:
  """How a clip becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the clip cannot be used."""
    start = cut.start_of(entry.video, entry.start, SECONDS) if entry.video else 0
    if entry.frames:
      frames = cut.read_pictures([Path(path) for path in entry.frames])
    else:
      times = [start + time for time in TAKEN.times(self.frames_like)]
      frames = cut.video_frames(entry.video, times, self.side)
    if entry.waves:
      wave = _stored_waves(entry.waves).get(entry.sound)
      if wave is None:
        raise FileNotFoundError(f'{entry.waves} has no {entry.sound!r}.')
      wave = cut.fit(
        np.asarray(wave, np.float32).reshape(-1),
        SECONDS,
        self.rate,
        f'{entry.sound} in {entry.waves}',
      )
    else:
      wave = cut.video_wave(entry.video, SECONDS, self.rate, start)
    masks = [binary_mask(path) for path in entry.masks]
    if all(transforms.decode_image(mask).all() for mask in masks):
      remark = 'its masks cover the whole picture in every second'
      warnings.warn(remark, records.Remark, stacklevel=2)
    return {
      'id': entry.id,
      'frames': frames,
      'wave': wave,
      'masks': masks,
      'category': entry.category,
    }


def recipe(
  name: str,
  root: Path,
  entries: Mapping[str, list[Entry]],
  rate: int,
  side: int,
  frames_like: str,
  videos: Callable[[], Mapping[str, Path]],
  categories: Sequence[str] = (),
) -> records.Recipe:
  """The data set of some clips, which will be read in their order.

  (The released metrics depend on the order.) They are stored in the order of the sound files, so
  that each of those is read once.

  Args:
    videos: those that are there, by name, though pictures may be stored.

  Raises:
    ValueError: `frames_like` is no rule that applies.
  """
  stored_frames = any(entry.frames for listed in entries.values() for entry in listed)
  rules.check(frames_like, stored_frames)
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * rate),
    'masks': records.IMAGES,  # PNG of one channel, 0 or 255
    'category': tfds.features.Scalar(np.int32),
  }
  stored = {
    split: sorted(listed, key=lambda entry: entry.waves) for split, listed in entries.items()
  }
  files = {
    f'{split}.order.txt': '\n'.join(entry.id for entry in listed)
    for split, listed in entries.items()
  }
  if categories:
    files['classes.txt'] = '\n'.join(categories)
  return records.Recipe(
    name,
    VERSION,
    features,
    stored,
    Read(rate, side, frames_like),
    files,
    root=root,
    frames_like='' if stored_frames else frames_like,
    pairs=lambda: _pairs(entries, videos()),
  )


def _pairs(entries: Mapping[str, list[Entry]], videos: Mapping[str, Path]) -> list[rules.Pair]:
  return [
    rules.Pair(video, Path(entry.frames[0]).parent, TAKEN, SECONDS, entry.start)
    for listed in entries.values()
    for entry in listed
    if entry.frames and (video := videos.get(Path(entry.frames[0]).parent.name))
  ]


def binary_mask(path: str | os.PathLike) -> bytes:
  """A mask file of any mode as a PNG of one channel, 0 and 255.

  The mask is what is not black; in pictures of one colour, what is not transparent. Soft edges are
  thresholded at half, with a remark.

  Raises:
    ValueError: too many pixels are neither black nor as bright as the brightest.
  """
  try:
    with Image.open(path) as image:
      transforms.check_size(image)
      colours = np.asarray(image.convert('RGBA'))  # of a palette: its colours, in whatever order
  except FileNotFoundError:
    raise
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # of Pillow
    raise ValueError(f'{path} is not a readable picture ({error}).') from error
  values, alpha = colours[..., :3].max(-1), colours[..., 3]
  if np.ptp(alpha):  # a mask in the transparency, or beside it
    values = alpha if not np.ptp(values) else np.where(alpha > 0, values, 0)
  soft = (values > 0) & (values < values.max())
  if soft.mean() > SOFT:
    raise ValueError(
      f'{path} has {len(np.unique(values))} shades, on {100 * soft.mean():.0f} % of its pixels; a'
      ' mask is black and one other.'
    )
  if soft.any():
    remark = f'{path} has soft edges: what is half as bright as its brightest counts'
    warnings.warn(remark, records.Remark, stacklevel=2)
  mask = (2 * values.astype(int) > values.max()) * np.uint8(255)
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'png')
  return file.getvalue()


def find_media(root: Path, name: str) -> tuple[Path, Mapping[str, Path]]:
  """The folder with `gt_masks`, and the videos by name if there are no `visual_frames`.

  Raises:
    ValueError: there is no such folder, or neither frames nor videos.
  """
  folder = root / name if (root / name).is_dir() else root
  if not (folder / 'gt_masks').is_dir():
    raise ValueError(f'There is no folder gt_masks in {root} or {root / name}.')
  if (folder / 'visual_frames').is_dir():
    return folder, {}
  videos = cut.find_videos_below(folder)
  if not videos:
    raise ValueError(f'{folder} has neither a folder visual_frames nor any video.')
  return folder, videos


@functools.lru_cache(maxsize=1)
def _stored_waves(path: str) -> Mapping[str, np.ndarray]:
  """A dictionary of waves that np.save wrote: a pickle, from which only arrays are loaded."""
  with open(path, 'rb') as file:
    try:
      version = np.lib.format.read_magic(file)
      read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
      shape, _, dtype = read[version[0]](file)
      waves = _Arrays(file).load() if dtype.hasobject else None
    except (ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
      raise ValueError(f'{path} is not a readable dictionary of waves ({error}).') from error
  stored = waves.item() if waves is not None and shape == () else None
  if not isinstance(stored, dict):
    raise ValueError(f'{path} holds an array of shape {shape}, not one dictionary of waves.')
  return stored


class _Arrays(pickle.Unpickler):
  """Loads pickled numpy arrays and plain containers only; everything else could run code."""

  harmless = ('_reconstruct', '_frombuffer', 'ndarray', 'dtype', 'scalar')

  def find_class(self, module: str, name: str) -> object:
    if module.split('.')[0] == 'numpy' and name in self.harmless:
      return super().find_class(module, name)
    raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def windows(fields: Any, length: float) -> list[clips.Window]:
  """Windows of five seconds, each second with the last of its sixteen pictures."""
  return clips.consecutive(length, TAKEN.times())


def masks(split: str) -> tuple[transforms.DecodeMasks, ...]:
  """Decodes the stored masks: in S4's training split only that of the first second."""
  del split
  return (transforms.DecodeMasks(),)
