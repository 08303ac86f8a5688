"""From the files of a clip to the fields of its record: what the data sets share.

ValueError (of which media.MediaError is one) and OSError are the reasons for which a clip is bad;
what could be made good is a warning, `records.Remark`.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16

from dgsct_jax.data import media, transforms
from dgsct_jax.data.records import Remark

PICTURES = ('.jpg', '.jpeg', '.png')
VIDEOS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.flv', '.m4v', '.mpg', '.mpeg', '.wmv', '.3gp')


class WrongLength(ValueError):
  """There is too little of something, or too much to know which part is meant."""


def spread(total: int, count: int) -> list[int]:
  """Which `count` of `total` things, from 0, as released: evenly, first and last, rounded down."""
  return [int(i) - 1 for i in np.linspace(1, total, count)]


def frame_files(folder: str | os.PathLike, count: int) -> list[bytes]:
  """`count` of the pictures of a folder, evenly spread over their sorted names, as they are."""
  files = _pictures(folder)
  return read_pictures([files[i] for i in spread(len(files), count)])


def first_files(folder: str | os.PathLike, count: int, least: int | None = None) -> list[bytes]:
  """The first `count`, or at `least` some, of the pictures of a folder by their sorted names."""
  files = _pictures(folder)
  if len(files) < (least or count):
    raise WrongLength(f'{folder} has {len(files)} pictures; {least or count} are needed.')
  return read_pictures(files[:count])


def read_pictures(files: Sequence[Path]) -> list[bytes]:
  """The contents of picture files, of which each is found to be one."""
  encoded = {path: path.read_bytes() for path in dict.fromkeys(files)}
  for path, content in encoded.items():
    try:
      transforms.decode_image(content)
    except ValueError as error:
      raise ValueError(f'{path} {error}.') from error
  return [encoded[path] for path in files]


def wave_file(path: str | os.PathLike, seconds: int, rate: int) -> Int16[np.ndarray, 's']:
  """A stored .npy waveform, fitted to its length."""
  try:
    wave = np.load(path)
  except (ValueError, EOFError) as error:  # pickled objects could run code: not read
    raise ValueError(f'{path} is not a readable array of numbers ({error}).') from error
  if wave.dtype == np.int16:
    wave = wave / np.float32(32768)
  if wave.dtype.kind != 'f':
    raise ValueError(f'{path} holds {wave.dtype}, not int16 or float samples.')
  if wave.ndim == 2 and 1 < min(wave.shape) <= 8 and wave.size >= 2 * (seconds - 1) * rate:
    wave = wave.mean(int(np.argmin(wave.shape)))  # channels
  if wave.size > seconds * rate:
    excess = f'{path} has {wave.size} samples; those after {seconds * rate} are left out'
    warnings.warn(excess, Remark)
  return fit(wave.reshape(-1).astype(np.float32), seconds, rate, str(path))


def fit(
  wave: Float32[np.ndarray, 'r'], seconds: int, rate: int, name: str
) -> Int16[np.ndarray, 's']:
  """Exactly `seconds` of a wave: the rest is dropped, less than a missing second is silence.

  Raises:
    WrongLength: a second or more is missing.
    ValueError: the samples are not finite numbers within -1..1.
  """
  wanted = seconds * rate
  if len(wave) <= wanted - rate:
    raise WrongLength(
      f'{name} has {len(wave)} samples = {len(wave) / rate:.2f} s at {rate} Hz; '
      f'{seconds} s are needed.'
    )
  if len(wave) < wanted:
    warnings.warn(f'{name} has {len(wave)} samples; silence was added up to {wanted}', Remark)
  if not np.isfinite(wave).all():
    raise ValueError(f'{name} has {np.sum(~np.isfinite(wave))} samples that are not finite.')
  if (peak := np.abs(wave).max()) > 2:  # a little over 1 is usual and clipped
    raise ValueError(f'{name} reaches {peak:.4g}; full scale is 1.')
  return media.to_int16(np.pad(wave[:wanted], (0, max(0, wanted - len(wave)))))


def start_of(path: str | os.PathLike, start: float | int, seconds: int) -> float:
  """Where in a file a clip begins whose name says that it is from `start` on of a longer video.

  People keep the clip alone (0), or the whole video (`start`).

  Raises:
    WrongLength: the length of the file fits to neither.
  """
  length = media.probe(path).duration or seconds
  if seconds - 1 < length < seconds + 2:
    return 0.0
  if length > start + seconds - 1:
    return float(start)
  raise WrongLength(
    f'{path} lasts {length:.2f} s: too long or short to be the clip of {seconds} s, too short to '
    f'be the video from which it is taken at {start:g} s.'
  )


def length_of(path: str | os.PathLike, least: float | int) -> float | None:
  """The length of a video in seconds if it says; WrongLength if that is not over `least`."""
  length = media.probe(path).duration
  if length is not None and length <= least:
    raise WrongLength(f'{path} lasts {length:.2f} s; more than {least} s are needed.')
  return length


def sound_looped(
  path: str | os.PathLike, seconds: int, rate: int, start: float | int = 0
) -> Int16[np.ndarray, 's']:
  """The sound of a file from `start` on; where it ends early, it begins again."""
  wave = _sound(path, rate)[round(start * rate) :]
  if not len(wave):
    raise WrongLength(f'the sound of {path} ends before {start:g} s.')
  return fit(np.resize(wave, max(len(wave), seconds * rate)), seconds, rate, f'the sound of {path}')


def video_frames(path: str | os.PathLike, times: Sequence[float | int], side: int) -> list[bytes]:
  """The pictures of a video at some times, as JPEG files whose shorter side is at most `side`."""
  _remark(path, media.tracks(path).video.note)
  return [media.jpeg(frame, side) for frame in media.each_frame(path, times)]


def video_wave(
  path: str | os.PathLike, seconds: int, rate: int, start: float | int = 0
) -> Int16[np.ndarray, 's']:
  """The sound of a video from `start` on."""
  wave = _sound(path, rate)[round(start * rate) :]
  return fit(wave, seconds, rate, f'the sound of {path}')


def _sound(path: str | os.PathLike, rate: int) -> Float32[np.ndarray, 's']:
  sound = media.sound(path, rate)
  _remark(path, media.tracks(path).audio.note)
  _remark(path, sound.note)
  return sound.wave


def _remark(path: str | os.PathLike, note: str) -> None:
  if note:
    warnings.warn(f'{path}: {note}', Remark)


def find_videos(folders: Iterable[Path]) -> Mapping[str, Path]:
  """The video files that lie in some folders, by their names without suffix."""
  return {
    path.stem: path
    for folder in folders
    if folder.is_dir()
    for path in folder.iterdir()
    if path.suffix.lower() in VIDEOS
  }


def find_root(source: str | os.PathLike, below: str, *markers: str) -> Path:
  """The folder that holds a data set's label files: `source`, or where the releases put it below.

  Raises:
    ValueError: none of the files `markers` is in any.
  """
  source = Path(source).resolve()
  candidates = [source, source / below, source / 'data' / below]
  for folder in candidates:
    if any((folder / marker).exists() for marker in markers):
      return folder
  raise ValueError(
    f'There is no {" or ".join(markers)} in {", ".join(map(str, candidates))}; give '
    'the folder that holds it as --source.'
  )


def _pictures(folder: str | os.PathLike) -> list[Path]:
  files = sorted(path for path in Path(folder).iterdir() if path.suffix in PICTURES)
  if not files:
    raise FileNotFoundError(f'{folder} has no pictures.')
  return files
