"""Media files as a model gets them, window by window, and as clips to be shown."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int16, UInt8
from PIL import Image

from dgsct_jax.data import cut, media
from dgsct_jax.data.transforms import Example

SILENT = 1e-4  # root mean square of a second without sound, full scale 1
THUMBNAIL = 160  # pixels: height of the frames that are shown
WIDEST = 4  # the width of those over their height, at most; its inverse at least
SLOWEST, FASTEST = Fraction(5), Fraction(30)  # pictures per second of a film


class Window(NamedTuple):
  """One input of a model: whole seconds of sound, and a picture for each."""

  seconds: tuple[int, ...]  # the start of each in the file
  times: tuple[float, ...]  # of the pictures


class Clip(NamedTuple):
  """What can be shown of a clip: the `t` seconds that the model got.

  known: the fields of a record in its batch, such as labels; empty for a file.
  asked: what the user typed.
  """

  title: str
  seconds: tuple[int, ...]  # the start of each in the file
  frames: UInt8[np.ndarray, 't h w 3'] | None
  wave: Float[np.ndarray, 't s'] | None
  notes: tuple[str, ...] = ()
  known: dict[str, Any] = {}
  asked: tuple[str, ...] = ()

  def join(self, output: np.ndarray) -> np.ndarray:
    """Joins an output [w t ...] of all windows to one [t ...], without seconds beyond the end."""
    return np.concatenate(list(output))[: len(self.seconds)]


class Length(NamedTuple):
  """The length of a file according to its packets, not to its header."""

  seconds: float
  pictures: int  # 0: there is no video track
  rate: Fraction  # pictures per second of its film


def consecutive(length: float, times: Sequence[float]) -> list[Window]:
  """Consecutive windows that cover a file; the last one may extend beyond its end.

  A remainder of less than half a second is left out.

  Args:
    length: seconds of the file.
    times: of the picture of each second, from the start of the window.
  """
  starts = range(0, max(1, round(length)), len(times))
  return [
    Window(tuple(range(start, start + len(times))), tuple(start + time for time in times))
    for start in starts
  ]


def spread(length: float, count: int) -> Window:
  """One window of `count` seconds spread over a file, each with the picture in its middle.

  Ten seconds of a minute are those at 0, 6, 13, 19, 26, 32, 39, 45, 52, 59, as MUSIC-AVQA is cut.
  """
  starts = cut.spread(max(1, int(length)), count)
  return Window(tuple(starts), tuple(start + 0.5 for start in starts))


def middles(seconds: int) -> list[float]:
  """The middle of each second."""
  return [i + 0.5 for i in range(seconds)]


@dataclasses.dataclass(frozen=True)
class File:
  """A file as a model gets it; windows beyond its end have its last picture and silence."""

  path: Path
  length: Length
  seconds: int  # of the file, without those beyond its end
  windows: list[Window]
  wave: Int16[np.ndarray, 'r s']  # all seconds up to the last one of the windows
  notes: tuple[str, ...]  # on the file, for the user

  @property
  def starts(self) -> tuple[int, ...]:
    """The starts of the seconds of all windows, without those beyond the end."""
    seconds = (second for window in self.windows for second in window.seconds)
    return tuple(second for second in seconds if second < self.seconds)

  def examples(self, side: int) -> Iterator[tuple[Example, UInt8[np.ndarray, 't h w 3']]]:
    """For each window, a record as a data set stores it, and thumbnails of its pictures.

    Args:
      side: the maximum of the shorter side of a stored frame, in pixels.
    """
    times = [time for window in self.windows for time in window.times]
    pictures: Iterator[np.ndarray]
    if self.length.pictures:
      pictures = media.each_frame(self.path, times)
    else:
      pictures = itertools.repeat(np.zeros((256, 256, 3), np.uint8))
    for window in self.windows:
      taken = list(itertools.islice(pictures, len(window.times)))
      record = {
        'id': self.path.name,
        'frames': [media.jpeg(picture, side) for picture in taken],
        'wave': self.wave[list(window.seconds)].reshape(-1),
      }
      yield record, np.stack([thumbnail(picture) for picture in taken])

  def shown(
    self, thumbnails: Sequence[UInt8[np.ndarray, 't h w 3']], asked: Sequence[str] = ()
  ) -> Clip:
    """The clip of all windows, without the seconds beyond the end."""
    wave = self.wave[list(self.starts)] / np.float32(32768)
    frames = np.concatenate(thumbnails)[: len(self.starts)]
    return Clip(self.path.name, self.starts, frames, wave, self.notes, asked=tuple(asked))


def open_file(path: str | os.PathLike, rate: int, windows: Callable[[float], list[Window]]) -> File:
  """Reads the sound and the length of a file.

  Args:
    rate: of the sound, in Hz.
    windows: the length of a file in seconds -> its windows.

  Raises:
    MediaError, ValueError: the file cannot be used. OSError: it cannot be opened.
  """
  read = media.tracks(path)
  notes = list(read.notes)
  length = measure(path)
  try:
    wave, note = media.sound(path, rate)
    notes += [note] if note else []
  except media.NoAudioTrack:
    wave = np.zeros(0, np.float32)
    notes.append('no audio track: silence stands in for it')
  if length.pictures == 1 and not len(wave):
    seconds = len(windows(1.0)[0].seconds)
    length = length._replace(seconds=float(seconds))
    notes.append(f'a still picture: it is shown for {seconds} seconds')
  seconds = max(1, round(max(length.seconds, len(wave) / rate)))
  chosen = windows(max(length.seconds, len(wave) / rate))
  padded = max(seconds, 1 + max(max(window.seconds) for window in chosen))
  wave = np.pad(wave, (0, max(0, padded * rate - len(wave))))
  wave = cut.fit(wave, padded, rate, f'the sound of {path}').reshape(padded, rate)
  silent = np.sqrt(np.square(wave[:seconds] / 32768.0).mean(1)) < SILENT
  if read.audio.stream is not None and silent.any():
    notes.append(
      'the audio track is silent'
      if silent.all()
      else f'silence in {silent.sum()} of {seconds} seconds'
    )
  if not length.pictures:
    notes.append('no video track: black frames stand in for it, and there is no film')
  return File(Path(path), length, seconds, chosen, wave, tuple(notes))


def measure(path: str | os.PathLike) -> Length:
  """Reads a file to its end without decoding it. Raises MediaError; OSError if it is not there."""
  read = media.tracks(path)
  with media.reading(path) as container:
    video = None if read.video.stream is None else container.streams[read.video.stream]
    end, pictures = 0.0, 0
    start = media.start(container)
    rate = Fraction(video.average_rate or 25) if video else Fraction(25)
    for packet in media.packets(container, [t.stream for t in read if t.stream is not None]):
      stamp = packet.dts if packet.pts is None else packet.pts
      if packet.stream.type == 'video':
        pictures += 1
        end = max(end, float(pictures / rate)) if stamp is None else end
      if stamp is not None:
        time = float((stamp + (packet.duration or 0)) * packet.time_base) - start
        if time - end < media.LEAP:  # else the clock has jumped
          end = max(end, time)
    return Length(end, pictures, min(max(rate, SLOWEST), FASTEST))


def pixels(
  video: Float[np.ndarray, '*t h w 3'], mean: Sequence[float], std: Sequence[float]
) -> UInt8[np.ndarray, '*t h w 3']:
  """Converts normalised frames back to pictures."""
  scaled = video * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
  return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def thumbnail(picture: UInt8[np.ndarray, 'y x 3']) -> UInt8[np.ndarray, 'h w 3']:
  """A picture of the height that is shown; black surrounds a very narrow or very flat one."""
  height, width = picture.shape[:2]
  scale = min(THUMBNAIL / height, WIDEST * THUMBNAIL / width)
  size = [max(1, round(side * scale)) for side in (width, height)]
  image = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
  canvas = Image.new('RGB', (max(size[0], THUMBNAIL // WIDEST), THUMBNAIL))
  canvas.paste(image, ((canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2))
  return np.asarray(canvas)
