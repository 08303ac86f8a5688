"""The streams of a file: which of them are read, and what they hold, packet by packet.

Of several tracks one is read: the first that moves, and the first that sounds.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import Float32

PYAV = int(av.__version__.split('.')[0])
SILENT = 1e-4  # root mean square of what is called silence, full scale 1
LOOK = 300  # pictures that are compared to find out whether a track moves
STILL, SILENCE, BROKEN, EMPTY = 'is a still picture', 'is silent', 'cannot be decoded', 'is empty'
FAULTS = ('', STILL, SILENCE, BROKEN, EMPTY)  # from good to bad


class MediaError(ValueError):
  """A file that cannot be used; the message names it and says why."""


class NoVideoTrack(MediaError):
  """There is no picture in the file (the cover of a piece of music is none)."""


class NoAudioTrack(MediaError):
  """There is no sound in the file."""


class Track(NamedTuple):
  """The stream that is read."""

  stream: int | None  # its place in `container.streams`; None: there is none
  note: str  # what a user should know of it, or ''


class Tracks(NamedTuple):
  """What is read of a file."""

  video: Track
  audio: Track

  @property
  def notes(self) -> list[str]:
    """All that a user should know of them."""
    return [track.note for track in self if track.note]


class Look(NamedTuple):
  """What a glance at a stream tells."""

  fault: str
  pictures: int = 0


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[av.container.InputContainer]:
  """An open file, whatever encoding its title has.

  Raises:
    MediaError: it is a folder or a device; or no video or sound.
    OSError: it is not there.
  """
  path = os.fsdecode(path)
  try:
    mode = os.stat(path).st_mode
  except ValueError as error:  # a zero byte in the name
    raise MediaError(f'{path!r} is no name of a file ({error}).') from error
  if not stat.S_ISREG(mode):  # to open a pipe would wait for what comes
    raise MediaError(f'{path} is {_kind(mode)}; give a video or sound file.')
  lenient: dict[str, Any] = {'metadata_errors': 'replace'} if PYAV < 19 else {}  # 19 always is
  try:
    container = av.open(f'file:{path}', 'r', **lenient)  # else `12:30.mp4` has a protocol
  except (av.error.FFmpegError, OSError, ValueError) as error:
    why = getattr(error, 'strerror', None) or error  # without the path once more
    raise MediaError(f'{path} cannot be read as video or sound ({why}).') from error
  with container:
    yield container


def _kind(mode: int) -> str:
  kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a named pipe', stat.S_IFSOCK: 'a socket'}
  return kinds.get(stat.S_IFMT(mode), 'a device')


def tracks(path: str | os.PathLike) -> Tracks:
  """Which tracks are read: the first that decodes to pictures and moves, and likewise sounds.

  If none moves, it is the one of most pictures; if none sounds, the first. Tracks without a packet,
  covers, subtitles, data and attachments do not count.

  Raises:
    MediaError: there is neither sound nor picture, or as `reading`.
  """
  cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
  with reading(path) as container:
    video = [s.index for s in container.streams.video if not s.disposition & cover]
    audio = [s.index for s in container.streams.audio]
    full = _full(container, {*video, *audio})
  found = Tracks(
    _choose('video', video, full, lambda index: _moves(path, index)),
    _choose('audio', audio, full, lambda index: _sounds(path, index)),
  )
  if found.video.stream is None and found.audio.stream is None:
    empty = f' ({" and ".join(found.notes)})' if found.notes else ''
    raise MediaError(f'{path} has neither sound nor picture{empty}.')
  return found


def _full(container: av.container.InputContainer, indices: set[int]) -> set[int]:
  """Those of some streams that have a packet; the file is read on until all have one."""
  found: set[int] = set()
  if not indices:
    return found
  for packet in packets(container, list(indices)):
    found.add(packet.stream_index)
    if found == indices:
      break
  return found


def _choose(
  kind: str, candidates: Sequence[int], full: set[int], look: Callable[[int], Look]
) -> Track:
  """One of the streams of a kind, and why it is not the first of them."""
  looks = {}
  for index in candidates:
    if index not in full:
      looks[index] = Look(EMPTY)
    else:
      alone = len(full.intersection(candidates)) == 1
      looks[index] = Look('') if alone else look(index)
    if not looks[index].fault:
      break
  best = min(looks, key=lambda i: (FAULTS.index(looks[i].fault), -looks[i].pictures), default=None)
  if best is None or looks[best].fault == EMPTY:
    return Track(None, f'its {kind} track is empty' if looks else '')
  if best == candidates[0]:
    return Track(best, '')
  place, fault = candidates.index(best) + 1, looks[candidates[0]].fault
  return Track(best, f'{kind} track {place} of {len(candidates)} is read: the first {fault}')


def _moves(path: str | os.PathLike, index: int) -> Look:
  first, pictures = None, 0
  for frame in _looked_at(path, index, LOOK):
    small = frame.to_ndarray(format='gray', width=64, height=64).astype(np.int16)
    first, pictures = small if first is None else first, pictures + 1
    if np.abs(small - first).max() > 2:
      return Look('', pictures)
  return Look(STILL if pictures else BROKEN, pictures)


@np.errstate(over='ignore')  # as of media.sound
def _sounds(path: str | os.PathLike, index: int) -> Look:
  fault = BROKEN
  for frame in _looked_at(path, index):
    fault = SILENCE
    if (np.square(channels(frame)).mean(1) > SILENT**2).any():
      return Look('')
  return Look(fault)


def _looked_at(path: str | os.PathLike, index: int, most: int | None = None) -> Iterator:
  """The first frames of a stream; none where it is damaged."""
  with reading(path) as container, contextlib.suppress(MediaError, av.error.FFmpegError):
    yield from itertools.islice(decode(container, container.streams[index]), most)


def start(container: av.container.InputContainer) -> float:
  """The time stamp in seconds at which a file begins."""
  return (container.start_time or 0) / av.time_base


def packets(container: av.container.InputContainer, indices: Sequence[int]) -> Iterator[av.Packet]:
  """The packets of some streams up to the end, or to where the file breaks off."""
  for packet in _demux(container, [container.streams[index] for index in indices]):
    if packet.size:
      yield packet


def decode(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
  """The frames of a stream, without those that are damaged; MediaError if these are the most."""
  name = container.name.removeprefix('file:')
  if stream.codec_context is None:
    raise MediaError(f'{name}: there is no decoder for its {stream.type} track.')
  total = damaged = 0
  for packet in _demux(container, [stream]):
    try:
      yield from packet.decode()
    except av.error.FFmpegError:
      damaged += packet.size > 0
    total += 1
    if damaged > max(50, total / 2):  # fewer: a recording that begins between two key frames
      raise MediaError(
        f'{name}: {damaged} of the first {total} packets of its '
        f'{stream.type} track cannot be decoded.'
      )


def _demux(
  container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
  """The packets of some streams up to the end, or to where the file breaks off; empty ones, too."""
  while True:
    try:
      yield from container.demux(streams)
      return
    except IndexError:  # a track begins within the file, which PyAV does not know
      pass  # what follows is read on
    except av.error.FFmpegError:
      return


def channels(frame: av.AudioFrame) -> Float32[np.ndarray, 'c n']:
  """Samples of all channels, full scale 1, however they are stored."""
  if frame.format.is_planar and len(frame.layout.channels) >= 8:  # PyAV 18 counts planes wrongly
    (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
  samples: Any = frame.to_ndarray()
  if not frame.format.is_planar:
    samples = samples.reshape(-1, len(frame.layout.channels)).T
  if samples.dtype == np.uint8:
    samples = (samples.astype(np.float32) - 128) / 128
  elif samples.dtype.kind == 'i':
    samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
  return samples.astype(np.float32, copy=False)
