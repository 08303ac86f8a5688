"""Any video or sound file -> frames at times, and one waveform at a rate.

Times are seconds from the start of the file, the same for picture and sound, whatever time stamps
the container has.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator, Sequence

import av
import numpy as np
import soxr
from jaxtyping import Float32, Int16, UInt8
from PIL import Image

PYAV = int(av.__version__.split('.')[0])
JITTER = 0.05  # seconds by which sound may miss its time stamp before silence fills the gap
LEAP = 60.0  # seconds of a gap that is taken for a jump of the clock, not for silence


class MediaError(ValueError):
  """A file that cannot be used; the message names it and says why."""


class NoVideoTrack(MediaError):
  """There is no picture in the file (the cover of a piece of music is none)."""


class NoAudioTrack(MediaError):
  """There is no sound in the file."""


@dataclasses.dataclass(frozen=True)
class Info:
  """What a file says of itself; `duration` is None where it does not say (or for a picture)."""

  duration: float | None
  has_video: bool
  has_audio: bool


def probe(path: str | os.PathLike) -> Info:
  """Reads the header of a file. Raises MediaError, or OSError if it is not there."""
  with reading(path) as container:
    lengths = [s.duration * s.time_base for s in container.streams if s.duration]
    duration = container.duration / av.time_base if container.duration else max(lengths, default=0)
    return Info(float(duration) or None, bool(_video(container)), bool(container.streams.audio))


def frames(path: str | os.PathLike, times: Sequence[float | int]) -> UInt8[np.ndarray, 'n h w 3']:
  """The picture that is shown at each of some times."""
  return np.stack(list(each_frame(path, times)))


def each_frame(
  path: str | os.PathLike, times: Sequence[float | int]
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Like `frames`, one after the other; the times must ascend.

  A time before the first or after the last picture gets that one. Pictures are turned as the file
  says (telephones store them lying), and all have the size of the first.

  Raises:
    NoVideoTrack, MediaError: no picture, or none that can be decoded.
  """
  if list(times) != sorted(times):
    raise ValueError(f'The times of frames must ascend: {list(times)}.')
  with reading(path) as container:
    if not (tracks := _video(container)):
      raise NoVideoTrack(f'{path} has no video track.')
    tracks[0].thread_type = 'AUTO'
    period = 1 / float(tracks[0].average_rate or 25)
    shown, size, left = None, None, list(times)
    time = -period
    for frame in _decode(container, tracks[0]):
      # Some containers leave time stamps out.
      time = time + period if frame.time is None else frame.time - _start(container)
      size = size or (frame.width, frame.height)
      while shown is not None and left and left[0] < time - 1e-3:
        left.pop(0)
        yield _pixels(shown, size)
      shown = frame
      if not left:
        return
    if shown is None:
      raise MediaError(f'{path}: not one picture of its video track can be decoded.')
    for _ in left:
      yield _pixels(shown, size)


def waveform(path: str | os.PathLike, rate: int) -> Float32[np.ndarray, 's']:
  """The whole sound of a file as the mean of its channels.

  Silence stands where the sound begins later than the picture, and in gaps.

  Raises:
    NoAudioTrack, MediaError: no sound, or none that can be decoded.
  """
  with reading(path) as container:
    if not container.streams.audio:
      raise NoAudioTrack(f'{path} has no audio track.')
    pieces, length, own_rate = [], 0, None
    for frame in _decode(container, container.streams.audio[0]):
      own_rate = own_rate or frame.sample_rate
      piece = _mono(frame)
      if frame.sample_rate != own_rate:
        piece = soxr.resample(piece, frame.sample_rate, own_rate)
      if frame.time is not None:
        late = round((frame.time - _start(container)) * own_rate) - length
        if JITTER * own_rate < late < LEAP * own_rate:
          pieces.append(np.zeros(late, np.float32))
          length += late
        elif JITTER * own_rate < -late < len(piece):
          piece = piece[-late:]
      pieces.append(piece)
      length += len(piece)
  if not length:
    raise MediaError(f'{path}: no sound of its audio track can be decoded.')
  return soxr.resample(np.concatenate(pieces), own_rate, rate)


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


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[av.container.InputContainer]:
  """An open file, whatever encoding its title has. Raises MediaError; OSError if it is not there."""
  lenient = {'metadata_errors': 'replace'} if PYAV < 19 else {}  # 19 always is
  try:
    container = av.open(os.fspath(path), **lenient)
  except FileNotFoundError:
    raise
  except (av.error.FFmpegError, OSError, ValueError) as error:
    why = getattr(error, 'strerror', None) or error  # without the path once more
    raise MediaError(f'{path} cannot be read as video or sound ({why}).') from error
  with container:
    yield container


def packets(
  container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
  """The packets of some streams up to the end, or to where the file breaks off."""
  try:
    yield from (packet for packet in container.demux(list(streams)) if packet.size)
  except av.error.FFmpegError:
    return


def _video(container: av.container.InputContainer) -> list[av.VideoStream]:
  cover = av.stream.Disposition.attached_pic
  return [s for s in container.streams.video if not s.disposition & cover]


def _start(container: av.container.InputContainer) -> float:
  return (container.start_time or 0) / av.time_base


def _decode(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
  """The frames of a stream, without those that are damaged; MediaError if these are the most."""
  packets = container.demux(stream)
  total = damaged = 0
  while packet := _next(packets):
    try:
      yield from packet.decode()
    except av.error.FFmpegError:
      damaged += packet.size > 0
    total += 1
    if damaged > max(50, total / 2):  # fewer: a recording that begins between two key frames
      raise MediaError(
        f'{container.name}: {damaged} of the first {total} packets of its '
        f'{stream.type} track cannot be decoded.'
      )


def _next(packets: Iterator[av.Packet]) -> av.Packet | None:
  try:
    return next(packets, None)
  except av.error.FFmpegError:  # the file breaks off
    return None


def _pixels(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, 'h w 3']:
  pixels = frame.to_ndarray(format='rgb24', width=size[0], height=size[1])
  return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _mono(frame: av.AudioFrame) -> Float32[np.ndarray, 's']:
  samples = frame.to_ndarray()
  if not frame.format.is_planar:
    samples = samples.reshape(-1, len(frame.layout.channels)).T
  if samples.dtype == np.uint8:
    samples = (samples.astype(np.float32) - 128) / 128
  elif samples.dtype.kind == 'i':
    samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
  return samples.mean(axis=0, dtype=np.float32)
