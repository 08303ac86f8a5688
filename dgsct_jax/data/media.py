"""Any video or sound file -> frames at times, and one waveform at a rate.

Times are seconds from the start of the file, the same for picture and sound, whatever time stamps
the container has. Which tracks are read, streams.py tells.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
import soxr
from av.sidedata.sidedata import Type as SideData
from jaxtyping import Float32, Int, Int16, UInt8
from PIL import ExifTags, Image, ImageOps

from dgsct_jax.data.streams import (
  SILENT,
  MediaError,
  NoAudioTrack,
  NoVideoTrack,
  Tracks,
  channels,
  decode,
  packets,
  reading,
  start,
  tracks,
)

__all__ = [  # passed on
  'MediaError',
  'NoAudioTrack',
  'NoVideoTrack',
  'Tracks',
  'packets',
  'reading',
  'start',
  'tracks',
]

JITTER = 0.05  # seconds by which sound may miss its time stamp, once it has begun
LEAP = 60.0  # seconds of a gap that is taken for a jump of the clock, not for silence
CANCELLED = 0.01  # power of the mean of all channels, of their mean power: -20 dB
LARGEST = 8192**2  # pixels of a picture
EARLY = 1e-3  # seconds by which a picture may begin after the time at which it is asked for


@dataclasses.dataclass(frozen=True)
class Info:
  """What a file says of itself; `duration` is None where it does not say (or for a picture)."""

  duration: float | None
  has_video: bool
  has_audio: bool


class Sound(NamedTuple):
  """One waveform."""

  wave: Float32[np.ndarray, 's']
  note: str  # what a user should know of it, or ''


def probe(path: str | os.PathLike) -> Info:
  """Reads the header of a file. Raises MediaError, or OSError if it is not there."""
  read = tracks(path)
  with reading(path) as container:
    lengths = [s.duration * s.time_base for s in container.streams if s.duration and s.time_base]
    duration = container.duration / av.time_base if container.duration else max(lengths, default=0)
  return Info(float(duration) or None, read.video.stream is not None, read.audio.stream is not None)


def frames(path: str | os.PathLike, times: Sequence[float | int]) -> UInt8[np.ndarray, 'n h w 3']:
  """The picture that is shown at each of some times."""
  return np.stack(list(each_frame(path, times)))


def each_frame(
  path: str | os.PathLike, times: Sequence[float | int]
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Like `frames`, one after the other; the times must ascend.

  A time before the first or after the last picture gets that one. Pictures are turned and mirrored
  as the file says (telephones store them lying), and all have the size of the first.

  Raises:
    NoVideoTrack, MediaError: no picture, or none that can be decoded.
  """
  if list(times) != sorted(times):
    raise ValueError(f'The times of frames must ascend: {list(times)}.')
  track = tracks(path).video
  if track.stream is None:
    raise NoVideoTrack(f'{path} has no video track{f" ({track.note})" if track.note else ""}.')
  with reading(path) as container:
    stream: Any = container.streams[track.stream]
    stream.thread_type = 'AUTO'
    period = 1 / float(stream.average_rate or 25)
    shown, left = None, list(times)
    size: tuple[int, int] = (0, 0)
    time = -period
    for frame in decode(container, stream):
      # Some containers leave time stamps out.
      time = time + period if frame.time is None else frame.time - start(container)
      size = size if any(size) else (frame.width, frame.height)
      if frame.width * frame.height > LARGEST:
        raise MediaError(
          f'{path} has pictures of {frame.width}×{frame.height}; scale them to 8192×8192 or less.'
        )
      while shown is not None and left and left[0] < time - EARLY:
        left.pop(0)
        yield _pixels(path, shown, size)
      shown = frame
      if not left:
        return
    if shown is None:
      raise MediaError(f'{path}: not one picture of its video track can be decoded.')
    for _ in left:
      yield _pixels(path, shown, size)


def waveform(path: str | os.PathLike, rate: int) -> Float32[np.ndarray, 's']:
  """The whole sound of a file; see `sound`."""
  return sound(path, rate).wave


def sound(path: str | os.PathLike, rate: int) -> Sound:
  """The whole sound of a file as the mean of its channels, or as one of them if they cancel.

  Silence stands where the sound begins later than the picture, and in gaps.

  Raises:
    NoAudioTrack, MediaError: no sound, or none that can be decoded.
  """
  track = tracks(path).audio
  if track.stream is None:
    raise NoAudioTrack(f'{path} has no audio track{f" ({track.note})" if track.note else ""}.')
  mixed = _mixed(path, track.stream, lambda heard: heard.mean(0, dtype=np.float32))
  power, note = mixed.channels, ''
  if power.mean() > SILENT**2 and mixed.mean < CANCELLED * power.mean():
    channel = int(np.flatnonzero(power > power.max() / 2)[0])
    mixed = _mixed(path, track.stream, lambda heard: heard[min(channel, len(heard) - 1)])
    note = (
      f'the {len(power)} channels cancel each other, their mean is all but silent: channel '
      f'{channel + 1} is read alone'
    )
  return Sound(soxr.resample(mixed.wave, mixed.rate, rate), note)


class _Mixed(NamedTuple):
  """The sound of a track at its own rate, and what it was mixed from."""

  wave: Float32[np.ndarray, 's']
  rate: int
  mean: float  # power of the mean of all channels
  channels: Float32[np.ndarray, 'c']  # power of each


@np.errstate(over='ignore', invalid='ignore')  # samples that are no sound are told by cut.fit
def _mixed(
  path: str | os.PathLike,
  index: int,
  mix: Callable[[Float32[np.ndarray, 'c n']], Float32[np.ndarray, 'n']],
) -> _Mixed:
  pieces, length, own_rate = [], 0, None
  mean, power, samples = 0.0, np.zeros(0), 0
  with reading(path) as container:
    # Without a picture nothing begins late; the first time stamp of Vorbis in Ogg is wrong.
    patience = 0 if container.streams.video else JITTER
    for frame in decode(container, container.streams[index]):
      own_rate = own_rate or frame.sample_rate
      heard = channels(frame)
      mean += float(np.square(heard.mean(0), dtype=np.float64).sum())
      power = np.pad(power, (0, max(0, len(heard) - len(power))))
      power[: len(heard)] += np.square(heard, dtype=np.float64).sum(1)
      samples += heard.shape[1]
      piece = mix(heard)
      if frame.sample_rate != own_rate:
        piece = soxr.resample(piece, frame.sample_rate, own_rate)
      if frame.time is not None:
        late = round((frame.time - start(container)) * own_rate) - length
        if patience * own_rate < late < LEAP * own_rate:
          pieces.append(np.zeros(late, np.float32))
          length += late
        elif JITTER * own_rate < -late < len(piece):
          piece = piece[-late:]
      pieces.append(piece)
      length += len(piece)
      patience = JITTER
  if own_rate is None:
    raise MediaError(f'{path}: no sound of its audio track can be decoded.')
  return _Mixed(np.concatenate(pieces), own_rate, mean / samples, power / samples)


def to_int16(wave: Float32[np.ndarray, 's']) -> Int16[np.ndarray, 's']:
  """As it is stored: 32768 is full scale; what is louder is clipped."""
  return np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)


def jpeg(pixels: UInt8[np.ndarray, 'h w 3'], side: int | None = None, quality: int = 95) -> bytes:
  """A JPEG file; a picture whose shorter side is longer than `side` is scaled down to that."""
  image = Image.fromarray(pixels)
  if side and min(image.size) > side:
    scale = side / min(image.size)
    size = [max(side, round(length * scale)) for length in image.size]
    image = image.resize(size, Image.Resampling.LANCZOS)
  file = io.BytesIO()
  image.save(file, 'jpeg', quality=quality)
  return file.getvalue()


def letterbox(
  pixels: UInt8[np.ndarray, 'y x 3'], longest: int, least: int = 16
) -> UInt8[np.ndarray, 'h w 3']:
  """A picture that encoders take: both sides are even, from `least` to `longest` pixels.

  It is scaled down, never up; black fills what a very narrow one leaves.
  """
  height, width = pixels.shape[:2]
  scale = min(1, longest / max(height, width))
  size = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
  whole = [max(least, side) for side in size]
  canvas = Image.new('RGB', whole)
  image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
  canvas.paste(image, ((whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2))
  return np.asarray(canvas)


def printable(path: str | os.PathLike) -> str:
  """A name as text; bytes that are none in UTF-8 are written in hexadecimal."""
  return os.fsencode(path).decode(errors='backslashreplace')


def _pixels(
  path: str | os.PathLike, frame: av.VideoFrame, size: tuple[int, int]
) -> UInt8[np.ndarray, 'h w 3']:
  pixels = frame.to_ndarray(format='rgb24', width=size[0], height=size[1])
  try:
    side_data: Any = frame.side_data  # whose stubs lack the kinds as keys
    matrix = side_data.get(SideData.DISPLAYMATRIX)
  except ValueError:  # PyAV 18 fails on EXIF, which photographs have
    return _as_exif_says(path, pixels, round(frame.rotation / 90))
  if matrix is not None:
    pixels = displayed(pixels, np.frombuffer(matrix, np.int32))
  return np.ascontiguousarray(pixels)


def _as_exif_says(
  path: str | os.PathLike, pixels: UInt8[np.ndarray, 'y x 3'], quarters: int
) -> UInt8[np.ndarray, 'h w 3']:
  """A picture turned and mirrored by its EXIF; a video of such pictures by `quarters` alone."""
  try:
    with Image.open(path) as file:
      orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
  except OSError:
    return np.ascontiguousarray(np.rot90(pixels, quarters))
  image = Image.fromarray(pixels)
  image.getexif()[ExifTags.Base.Orientation] = orientation
  return np.asarray(ImageOps.exif_transpose(image))


def displayed(
  pixels: UInt8[np.ndarray, 'y x 3'], matrix: Int[np.ndarray, '9']
) -> UInt8[np.ndarray, 'h w 3']:
  """Turned by the nearest quarter and mirrored as a display matrix says (ISO 14496-12)."""
  a, b, _, c, d = map(int, matrix[:5])  # to the right goes a·x + c·y, downwards b·x + d·y
  if abs(b) + abs(c) > abs(a) + abs(d):
    pixels, a, d = pixels.swapaxes(0, 1), c, b
  return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
