"""The film of a prediction: a video with attention drawn over its pictures, and its own sound."""

import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from dgsct_jax import figures
from dgsct_jax.data import media

LONGER = 640  # pixels: the longer side of a film is at most this
SLOWEST, FASTEST = Fraction(5), Fraction(30)  # pictures per second
SOUND = 48000  # Hz, of sound that has to be encoded anew
COPIED = ('aac', 'mp3', 'ac3', 'eac3', 'opus', 'flac', 'alac')  # sound that mp4 takes as it is


class Length(NamedTuple):
  """How long a file really is: what its packets say, not its header."""

  seconds: float
  pictures: int  # 0: there is no video track
  rate: Fraction  # pictures per second that a film of it should have


def measure(path: str | os.PathLike) -> Length:
  """Reads a file to its end without decoding it. Raises MediaError; OSError if it is not there."""
  media.probe(path)  # for its error messages
  with media.reading(path) as container:
    cover = av.stream.Disposition.attached_pic
    video = [s for s in container.streams.video if not s.disposition & cover][:1]
    end, pictures = 0.0, 0
    start = (container.start_time or 0) / av.time_base
    rate = Fraction(video[0].average_rate or 25) if video else Fraction(25)
    for packet in _packets(container, [*video, *container.streams.audio[:1]]):
      stamp = packet.dts if packet.pts is None else packet.pts
      if packet.stream.type == 'video':
        pictures += 1
        end = max(end, float(pictures / rate)) if stamp is None else end
      if stamp is not None:
        time = float((stamp + (packet.duration or 0)) * packet.time_base) - start
        if time - end < media.LEAP:  # else the clock has jumped
          end = max(end, time)
    return Length(end, pictures, min(max(rate, SLOWEST), FASTEST))


def draw(
  source: str | os.PathLike,
  target: str | os.PathLike,
  seconds: float,
  rate: Fraction,
  visual_map: Float[np.ndarray, 't n'],
  captions: Sequence[str],
) -> None:
  """Writes an mp4 of `seconds` with the attention and the caption of each second of t.

  Raises:
    MediaError, av.FFmpegError: the source cannot be decoded, or the film not written.
  """
  try:
    _write(source, target, seconds, rate, visual_map, captions, copy=True)
  except av.FFmpegError:  # some containers hold sound in a form that another does not take
    _write(source, target, seconds, rate, visual_map, captions, copy=False)


def _write(
  source: str | os.PathLike,
  target: str | os.PathLike,
  seconds: float,
  rate: Fraction,
  visual_map: Float[np.ndarray, 't n'],
  captions: Sequence[str],
  copy: bool,
) -> None:
  scale = figures.attention_scale(visual_map)
  times = [float(i / rate) for i in range(max(1, math.ceil(seconds * rate)))]
  with av.open(os.fspath(target), 'w', options={'movflags': 'faststart'}) as container:
    video = container.add_stream('libx264', rate=rate, options={'crf': '20', 'preset': 'veryfast'})
    video.pix_fmt = 'yuv420p'
    sound = _sound(source, container, copy)
    packet, now = next(sound, None), -1
    for i, (time, picture) in enumerate(zip(times, media.each_frame(source, times))):
      picture = _fit(picture)
      if not i:
        video.height, video.width = picture.shape[:2]
      if (second := min(int(time), len(captions) - 1)) > now:
        now = second
        tint = figures.tint(figures.square(visual_map[now]), scale, picture.shape[:2])
      picture = _caption(figures.blend(picture, *tint), captions[now])
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
  """The sound of a file for another one: its own packets, or encoded anew."""
  if not media.probe(source).has_audio:
    return iter(())
  with media.reading(source) as container:
    track = container.streams.audio[0]
    if copy and track.codec.canonical_name in COPIED:
      return _copied(source, output.add_stream_from_template(track))
  stream = output.add_stream('aac', rate=SOUND, layout='mono')
  return _encoded(media.waveform(source, SOUND), stream)


def _copied(source: str | os.PathLike, stream: av.AudioStream) -> Iterator[av.Packet]:
  with media.reading(source) as container:
    late = (container.start_time or 0) / av.time_base
    for packet in _packets(container, [container.streams.audio[0]]):
      if packet.pts is None or packet.dts is None:
        continue
      packet.pts -= round(late / packet.time_base)
      packet.dts -= round(late / packet.time_base)
      packet.stream = stream
      yield packet


def _encoded(wave: Float[np.ndarray, 's'], stream: av.AudioStream) -> Iterator[av.Packet]:
  for start in range(0, len(wave), 1024):
    piece = np.ascontiguousarray(wave[None, start : start + 1024], np.float32)
    frame = av.AudioFrame.from_ndarray(piece, format='fltp', layout='mono')
    frame.sample_rate, frame.pts = SOUND, start
    yield from stream.encode(frame)
  yield from stream.encode()


def _packets(
  container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
  """The packets of some streams up to the end, or to where the file breaks off."""
  try:
    yield from (packet for packet in container.demux(list(streams)) if packet.size)
  except av.FFmpegError:
    return


def _time(packet: av.Packet) -> float:
  return float(packet.pts * packet.time_base)


def _fit(picture: UInt8[np.ndarray, 'y x 3']) -> UInt8[np.ndarray, 'h w 3']:
  """Scaled down to the size of a film; h264 wants even sides."""
  height, width = picture.shape[:2]
  scale = min(1, LONGER / max(height, width))
  size = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
  return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _caption(picture: UInt8[np.ndarray, 'h w 3'], text: str) -> UInt8[np.ndarray, 'h w 3']:
  image = Image.fromarray(picture)
  size = max(10, min(image.size) // 16)
  font = ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)
  ImageDraw.Draw(image).text(
    (size / 2, image.height - size / 2),
    text,
    'white',
    font,
    anchor='lb',
    stroke_width=max(1, size // 9),
    stroke_fill='black',
  )
  return np.asarray(image)
