"""From the files of a clip to the fields of its record: what the data sets share.

ValueError (of which media.MediaError is one) and OSError are the reasons for which a clip is bad;
what could be made good is a warning, `records.Remark`.
"""

import collections
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16

from dgsct_jax.data import files, media, transforms
from dgsct_jax.data.records import Remark

COMMON_RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
USUAL = 0.9  # a folder with fewer of the usual number of pictures does not show the whole clip
VIDEOS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.flv', '.m4v', '.mpg', '.mpeg', '.wmv', '.3gp')


class WrongLength(ValueError):
  """There is too little of something, or too much to know which part is meant."""


def spread(total: int, count: int) -> list[int]:
  """Which `count` of `total` things, from 0, as released: evenly, first and last, rounded down."""
  return [int(i) - 1 for i in np.linspace(1, total, count)]


def frame_files(folder: str | os.PathLike, count: int, usual: int = 0) -> list[bytes]:
  """`count` of the pictures of a folder, evenly spread over them in their order, as they are.

  Args:
    usual: how many pictures the folders of the data set have; far fewer do not show the whole clip.
  """
  found = files.pictures(Path(folder))
  if len(found) < USUAL * usual:
    raise WrongLength(
      f'{folder} has {len(found)} pictures, where the folders of this data set have {usual}; cut'
      ' the clip again.'
    )
  return read_pictures([found[i] for i in spread(len(found), count)])


def usual_count(folders: Iterable[Path]) -> int:
  """How many pictures most folders have; 0 if there are none."""
  counts = collections.Counter(
    sum(entry.suffix.lower() in files.PICTURES for entry in folder.iterdir())
    for folder in folders
    if folder.is_dir()
  )
  return max(counts, key=lambda count: (counts[count], count), default=0)


def first_files(folder: str | os.PathLike, count: int, least: int | None = None) -> list[bytes]:
  """The first `count`, or at `least` some, of the pictures of a folder in their order."""
  found = files.pictures(Path(folder))
  if len(found) < (least or count):
    raise WrongLength(f'{folder} has {len(found)} pictures; {least or count} are needed.')
  return read_pictures(found[:count])


def read_pictures(paths: Sequence[Path]) -> list[bytes]:
  """The contents of picture files, of which each is found to be one."""
  if odd := [path for path in paths if path.exists() and not path.is_file()]:
    raise ValueError(f'{odd[0]} is no regular file.')
  encoded = {path: path.read_bytes() for path in dict.fromkeys(paths)}
  for path, content in encoded.items():
    try:
      transforms.decode_image(content)
    except ValueError as error:
      raise ValueError(f'{path} {error}.') from error
  return [encoded[path] for path in paths]


def wave_file(path: str | os.PathLike, seconds: int, rate: int) -> Int16[np.ndarray, 's']:
  """A stored .npy waveform, fitted to its length.

  Raises:
    WrongLength: it is a second or more too short or too long, so that it may have another rate.
    ValueError: it holds something else.
  """
  wave = read_wave(path, seconds, rate)
  excess = wave.size - seconds * rate
  if abs(excess) >= rate:
    raise WrongLength(_too_short(str(path), wave.size, seconds, rate) + _hint(wave.size, seconds))
  if excess > 0:
    remark = f'{path} has {wave.size} samples; those after {seconds * rate} are left out'
    warnings.warn(remark, Remark, stacklevel=2)
  return fit(wave, seconds, rate, str(path))


def read_wave(path: str | os.PathLike, seconds: int, rate: int) -> Float32[np.ndarray, 'r']:
  """A stored .npy waveform of about so many seconds, or more; of several channels their mean."""
  try:
    wave = np.load(path)
  except (ValueError, EOFError) as error:  # pickled objects could run code: not read
    raise ValueError(f'{path} is not a readable array of numbers ({error}).') from error
  if not isinstance(wave, np.ndarray):
    raise ValueError(f'{path} is an archive of arrays (.npz), not one array; save it by np.save.')
  if wave.dtype == np.int16:
    wave = wave / np.float32(32768)
  if wave.dtype.kind != 'f':
    raise ValueError(f'{path} holds {wave.dtype}, not int16 or float samples.')
  if wave.ndim == 2 and 1 < min(wave.shape) <= 8 and wave.size >= 2 * (seconds - 1) * rate:
    wave = wave.mean(int(np.argmin(wave.shape)))  # channels
  return wave.reshape(-1).astype(np.float32)


def _too_short(name: str, samples: int, seconds: int, rate: int) -> str:
  return (
    f'{name} has {samples} samples = {samples / rate:.2f} s at {rate} Hz; {seconds} s are needed.'
  )


def _hint(samples: int, seconds: int) -> str:
  """At which rate a wave would last as long as it should."""
  fitting = samples / seconds
  near = [rate for rate in COMMON_RATES if abs(rate - fitting) < 0.01 * rate]
  rate = near[0] if near else round(fitting)
  return f' {seconds} s of sound at {rate} Hz have so many samples: if that is its rate, give --rate={rate}.'


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
    raise WrongLength(_too_short(name, len(wave), seconds, rate))
  if len(wave) < wanted:
    added = f'{name} has {len(wave)} samples; silence was added up to {wanted}'
    warnings.warn(added, Remark, stacklevel=2)
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
  wave = media.waveform(path, rate)[round(start * rate) :]
  if not len(wave):
    raise WrongLength(f'the sound of {path} ends before {start:g} s.')
  return fit(np.resize(wave, max(len(wave), seconds * rate)), seconds, rate, f'the sound of {path}')


def read_clip(
  source: str | os.PathLike, name: str, times: Sequence[float], rate: int, side: int, usual: int = 0
) -> tuple[list[bytes], Int16[np.ndarray, 's']]:
  """A frame and a second of sound for each of some times: from a released folder, or from a video.

  Args:
    source: the folder with `frames/NAME/*.jpg` and `wave/NAME.npy`, or the video.
    times: of the frames, in videos. usual: as for `frame_files`.
  """
  path, seconds = Path(source), len(times)
  if path.is_dir():
    frames = frame_files(path / 'frames' / name, seconds, usual)
    return frames, wave_file(path / 'wave' / f'{name}.npy', seconds, rate)
  length_of(path, least=seconds - 1)
  return video_frames(path, times, side), video_wave(path, seconds, rate)


def video_frames(path: str | os.PathLike, times: Sequence[float | int], side: int) -> list[bytes]:
  """The pictures of a video at some times, as JPEG files whose shorter side is at most `side`."""
  return [media.jpeg(frame, side) for frame in media.each_frame(path, times)]


def video_wave(
  path: str | os.PathLike, seconds: int, rate: int, start: float | int = 0
) -> Int16[np.ndarray, 's']:
  """The sound of a video from `start` on."""
  wave = media.waveform(path, rate)[round(start * rate) :]
  return fit(wave, seconds, rate, f'the sound of {path}')


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
