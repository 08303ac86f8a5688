"""From the files of a clip to the fields of its record: what the data sets share.

ValueError, including media.MediaError, and OSError mean that a clip cannot be used; what could be
corrected is a warning, `records.Remark`.
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
SURPLUS = 0.5  # seconds by which a clip may be too long, as the last packets may be
LEAD_IN = 10.0  # seconds between two key frames, at most
USUAL = 0.9  # a folder with a smaller share of the usual number of pictures is incomplete
VIDEOS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.flv', '.m4v', '.mpg', '.mpeg', '.wmv', '.3gp')


class WrongLength(ValueError):
  """A clip is too short, or so long that it is unclear which part of it is meant."""


def spread(total: int, count: int) -> list[int]:
  """Indices of `count` of `total` items, evenly spread from first to last, rounded down.

  As released.
  """
  return [int(i) - 1 for i in np.linspace(1, total, count)]


def frame_files(folder: str | os.PathLike, count: int, usual: int = 0) -> list[bytes]:
  """`count` of the pictures of a folder, evenly spread over them in their order, encoded as stored.

  Args:
    usual: how many pictures the folders of the data set have; one with far fewer is incomplete.
  """
  paths = files.pictures(Path(folder))
  if len(paths) < USUAL * usual:
    raise WrongLength(
      f'{folder} has {len(paths)} pictures, where the folders of this data set have {usual}; cut'
      ' the clip again.'
    )
  return read_pictures([paths[i] for i in spread(len(paths), count)])


def usual_count(folders: Iterable[Path]) -> int:
  """How many pictures most folders have; 0 if there are none."""
  counts = collections.Counter(
    sum(entry.suffix.lower() in files.PICTURES for entry in folder.iterdir())
    for folder in folders
    if folder.is_dir()
  )
  return max(counts, key=lambda count: (counts[count], count), default=0)


def first_files(folder: str | os.PathLike, count: int, least: int | None = None) -> list[bytes]:
  """The first pictures of a folder in their order: `count`, or fewer, but at least `least`."""
  paths = files.pictures(Path(folder))
  if len(paths) < (least or count):
    raise WrongLength(f'{folder} has {len(paths)} pictures; {least or count} are needed.')
  return read_pictures(paths[:count])


def read_pictures(paths: Sequence[Path]) -> list[bytes]:
  """The contents of picture files. Raises ValueError or OSError unless all can be decoded."""
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
    WrongLength: it is too short or too long by a second or more; its rate may be another one.
    ValueError: it is not a waveform.
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
  """A stored .npy waveform of about `seconds` or more; several channels are averaged."""
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
  """The rate at which a wave would have the expected length."""
  fitting = samples / seconds
  near = [rate for rate in COMMON_RATES if abs(rate - fitting) < 0.01 * rate]
  rate = near[0] if near else round(fitting)
  return (
    f' {seconds} s of sound at {rate} Hz have so many samples: if that is its rate, give'
    f' --rate={rate}.'
  )


def fit(
  wave: Float32[np.ndarray, 'r'], seconds: int, rate: int, name: str
) -> Int16[np.ndarray, 's']:
  """Cuts a wave to `seconds`; if less than a second is missing, silence is added.

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


def start_of(path: str | os.PathLike, start: float | int | None, seconds: int) -> float:
  """The second of a file at which a clip begins that was cut from `start` on of a longer video.

  It is 0 if the file is the clip, and `start` if it is the longer video. A file that is a little
  too long may have been cut by `ffmpeg -c copy`, which begins at the key frame before the clip and
  does not say so (in mkv, flv and ts): it is neither.

  Args:
    start: None if the file cannot be the longer video.

  Raises:
    WrongLength: the length of the file fits neither.
  """
  length = media.probe(path).duration or seconds
  surplus = length - seconds
  if -1 < surplus <= SURPLUS:
    return 0.0
  # With so little before the clip, it is the video only if it ends where the clip does, or later.
  if start is not None and start - surplus < (1 if surplus > LEAD_IN else SURPLUS):
    return float(start)
  told = f'{path} lasts {length:.2f} s: too long or short to be the clip of {seconds} s'
  if start is not None:
    told += f', too short to be the video from which it is taken at {start:g} s'
  if SURPLUS < surplus <= LEAD_IN:
    told += (
      '. A clip that was cut by ffmpeg -c copy begins at the key frame before: cut it again,'
      ' without -c copy'
    )
  raise WrongLength(f'{told}.')


def length_of(path: str | os.PathLike, least: float | int) -> float | None:
  """The length of a video in seconds, or None if its header has none.

  Raises:
    WrongLength: it is not over `least` seconds.
  """
  length = media.probe(path).duration
  if length is not None and length <= least:
    raise WrongLength(f'{path} lasts {length:.2f} s; more than {least} s are needed.')
  return length


def sound_looped(
  path: str | os.PathLike, seconds: int, rate: int, start: float | int = 0
) -> Int16[np.ndarray, 's']:
  """The sound of a file from `start` on, repeated if it is too short."""
  wave = sound_of(path, rate)[round(start * rate) :]
  if not len(wave):
    raise WrongLength(f'the sound of {path} ends before {start:g} s.')
  return fit(np.resize(wave, max(len(wave), seconds * rate)), seconds, rate, f'the sound of {path}')


def read_clip(
  source: str | os.PathLike, name: str, times: Sequence[float], rate: int, side: int, usual: int = 0
) -> tuple[list[bytes], Int16[np.ndarray, 's']]:
  """A frame and a second of sound for each of some times: from a released folder, or from a video.

  Args:
    source: the folder with `frames/NAME/*.jpg` and `wave/NAME.npy`, or the video.
    times: of the frames in the video, in seconds.
    usual: as for `frame_files`.
  """
  path, seconds = Path(source), len(times)
  if path.is_dir():
    frames = frame_files(path / 'frames' / name, seconds, usual)
    return frames, wave_file(path / 'wave' / f'{name}.npy', seconds, rate)
  length = length_of(path, least=seconds - 1)
  if length and length > seconds + SURPLUS:
    _remark(path, f'it lasts {length:.2f} s, of which the first {seconds} are taken')
  return video_frames(path, times, side), video_wave(path, seconds, rate)


def video_frames(path: str | os.PathLike, times: Sequence[float | int], side: int) -> list[bytes]:
  """Pictures of a video at `times`, as JPEG files whose shorter side is at most `side` pixels."""
  _remark(path, media.tracks(path).video.note)
  return [media.jpeg(frame, side) for frame in media.each_frame(path, times)]


def video_wave(
  path: str | os.PathLike, seconds: int, rate: int, start: float | int = 0
) -> Int16[np.ndarray, 's']:
  """The sound of a video from `start` on."""
  wave = sound_of(path, rate)[round(start * rate) :]
  return fit(wave, seconds, rate, f'the sound of {path}')


def sound_of(path: str | os.PathLike, rate: int) -> Float32[np.ndarray, 's']:
  """The whole sound of a file; what is odd about it is a remark."""
  sound = media.sound(path, rate)
  _remark(path, media.tracks(path).audio.note)
  _remark(path, sound.note)
  return sound.wave


def _remark(path: str | os.PathLike, note: str) -> None:
  if note:
    warnings.warn(f'{path}: {note}', Remark, stacklevel=3)


def find_videos(folders: Iterable[Path]) -> Mapping[str, Path]:
  """The video files in some folders, by their names without suffix."""
  return {
    path.stem: path
    for folder in folders
    if folder.is_dir()
    for path in folder.iterdir()
    if path.suffix.lower() in VIDEOS
  }


def find_videos_below(folder: Path) -> Mapping[str, Path]:
  """The video files in a folder and all those below it, by their names without suffix."""
  return find_videos(path for path in (folder, *folder.rglob('*')) if path.is_dir())


def find_root(source: str | os.PathLike, below: str, *markers: str) -> Path:
  """The folder that has a data set's label files: `source`, or its place in the releases.

  Args:
    below: where the releases have it.
    markers: files or folders, one of which must be in it.

  Raises:
    ValueError: there is none.
  """
  base = Path(source).resolve()
  candidates = [base, base / below, base / 'data' / below]
  for folder in candidates:
    if any((folder / marker).exists() for marker in markers):
      return folder
  raise ValueError(
    f'There is no {" or ".join(markers)} in {", ".join(map(str, candidates))}; give '
    'the folder that holds it as --source.'
  )
