"""The film of a prediction: a video with attention drawn over its pictures, and its sound."""

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from dgsct_jax import figures
from dgsct_jax.data import media
from dgsct_jax.data.clips import Length
from dgsct_jax.tracks import Heat, Mask

Picture = UInt8[np.ndarray, 'h w 3']
LONGER = 640  # pixels: the longer side of a film is at most this
SOUND = 48000  # Hz, of sound that has to be encoded anew
COPIED = ('aac', 'mp3', 'ac3', 'eac3', 'opus', 'flac', 'alac')  # sound that mp4 takes as it is


def draw(
  source: str | os.PathLike,
  target: str | os.PathLike,
  length: Length,
  starts: Sequence[int],
  overlay: Heat | Mask | None = None,
  captions: Sequence[str] = (),
) -> None:
  """Writes a file's video as an mp4, with a model's outputs drawn over it.

  Args:
    starts: the second of the file at which each second of the overlay begins; every second of the
      film shows the nearest of them.
    captions: one for each second of the overlay, or none.

  Raises:
    MediaError, av.FFmpegError: the source cannot be decoded, or the film not written.
  """
  seconds = range(max(1, math.ceil(length.seconds)))
  nearest = [int(np.abs(np.subtract(starts, second)).argmin()) for second in seconds]
  try:
    _write(source, target, length, nearest, overlay, captions, copy=True)
  except av.FFmpegError:  # the sound of some containers cannot be copied into an mp4
    _write(source, target, length, nearest, overlay, captions, copy=False)


def _write(
  source: str | os.PathLike,
  target: str | os.PathLike,
  length: Length,
  nearest: Sequence[int],
  overlay: Heat | Mask | None,
  captions: Sequence[str],
  copy: bool,
) -> None:
  rate = length.rate
  times = [float(i / rate) for i in range(max(1, math.ceil(length.seconds * rate)))]
  with av.open(os.fspath(target), 'w', options={'movflags': 'faststart'}) as container:
    video = container.add_stream('libx264', rate=rate, options={'crf': '20', 'preset': 'veryfast'})
    video.pix_fmt = 'yuv420p'
    sound = _sound(source, container, copy)
    packet, drawn = next(sound, None), -1
    for i, (time, picture) in enumerate(zip(times, media.each_frame(source, times))):
      picture = media.letterbox(picture, LONGER)  # h264 needs even sides
      if not i:
        video.height, video.width = picture.shape[:2]
      if (second := nearest[int(time)]) != drawn:  # prepared once for all pictures of a second
        drawn = second
        if overlay:
          lay_over = figures.over(overlay, second, picture.shape[:2])
        if captions:
          write_on = _caption(captions[second], picture.shape[:2])
      if overlay:
        picture = lay_over(picture)
      if captions:
        picture = write_on(picture)
      frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
      frame.pts, frame.time_base = i, 1 / rate
      container.mux(video.encode(frame))
      while packet and _time(packet) <= time:
        container.mux(packet)
        packet = next(sound, None)
    container.mux(video.encode())
    while packet:
      container.mux(packet)
      packet = next(sound, None)


def _sound(
  source: str | os.PathLike, output: av.container.OutputContainer, copy: bool
) -> Iterator[av.Packet]:
  """The sound of a file for the film: its own packets, or encoded anew."""
  index = media.tracks(source).audio.stream
  if index is None:
    return iter(())
  with media.reading(source) as container:
    track: Any = container.streams[index]
    if copy and track.codec.canonical_name in COPIED:
      return _copied(source, index, output.add_stream_from_template(track))
  stream = output.add_stream('aac', rate=SOUND, layout='mono')
  return _encoded(media.waveform(source, SOUND), stream)


def _copied(source: str | os.PathLike, index: int, stream: Any) -> Iterator[av.Packet]:
  with media.reading(source) as container:
    late = media.start(container)
    for packet in media.packets(container, [index]):
      if packet.pts is None or packet.dts is None:
        continue
      packet.pts -= round(late / packet.time_base)
      packet.dts -= round(late / packet.time_base)
      packet.stream = stream
      yield packet


def _encoded(wave: Float[np.ndarray, 's'], stream: Any) -> Iterator[av.Packet]:
  for start in range(0, len(wave), 1024):
    piece = np.ascontiguousarray(wave[None, start : start + 1024], np.float32)
    frame = av.AudioFrame.from_ndarray(piece, format='fltp', layout='mono')
    frame.sample_rate, frame.pts = SOUND, start
    yield from stream.encode(frame)
  yield from stream.encode()


def _time(packet: av.Packet) -> float:
  assert packet.pts is not None  # `_copied` skips those without, encoders set it
  return float(packet.pts * packet.time_base)


def _caption(text: str, shape: tuple[int, int]) -> Callable[[Picture], Picture]:
  """What writes a text on the lower part of pictures, in as many lines as it needs."""
  height, width = shape
  size = max(10, min(shape) // 16)
  font = ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)
  edge, ink = Image.new('L', (width, height)), Image.new('L', (width, height))
  for i, line in enumerate(reversed(_lines(text, font, width - size))):
    place = (size / 2, height - size * (0.5 + 1.3 * i))
    stroke = max(1, size // 9)
    ImageDraw.Draw(edge).text(place, line, 255, font, anchor='lb', stroke_width=stroke)
    ImageDraw.Draw(ink).text(place, line, 255, font, anchor='lb')
  box = edge.getbbox()
  edge, ink = edge.crop(box), ink.crop(box)

  def write(picture: Picture) -> Picture:
    image = Image.fromarray(picture)
    if box:
      image.paste('black', box, edge)
      image.paste('white', box, ink)
    return np.asarray(image)

  return write


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
  """A text in lines of at most so many pixels, broken between words."""
  lines = ['']
  for word in re.findall(r'\S+\s*', text):
    if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
      lines.append('')
    lines[-1] += word
  return lines
