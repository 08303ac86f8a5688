"""Small videos for tests, made on the spot: what is seen and heard when is known."""

import math
import struct
from fractions import Fraction

import av
import numpy as np

PIXELS = {'ffv1': 'bgr0', 'mjpeg': 'yuvj420p', 'prores_ks': 'yuv422p10le'}


def tone(rate, seconds, frequency=440.0, channels=1):
  """A sine at half of full scale, [channels samples]."""
  wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
  return np.tile(wave.astype(np.float32), (channels, 1))


def counter(count, size=(48, 64), step=8):
  """Pictures [n h w 3] whose grey is `step` times their number."""
  grey = (np.arange(count) * step).astype(np.uint8)
  return np.broadcast_to(grey[:, None, None, None], (count, *size, 3))


def write(
  path,
  pictures=None,
  times=None,
  sound=None,
  rate=32000,
  layout=None,
  codecs=None,
  clock=1000,
  gop=None,
):
  """Writes pictures shown from `times` on, and sound [channels samples], as the suffix says.

  mkv holds both without loss (ffv1, pcm), others as h264 and aac, unless `codecs` names two.
  `clock`: ticks a second of the time stamps of pictures. `gop`: pictures from one key frame to the
  next, where there are fewer of them.
  """
  lossless = ('ffv1', 'pcm_s16le') if path.suffix == '.mkv' else ('libx264', 'aac')
  seen, heard = codecs or lossless
  with av.open(str(path), 'w') as container:
    streams = []
    if pictures is not None:
      video = container.add_stream(seen, rate=min(25, clock))
      video.height, video.width = pictures.shape[1:3]
      video.pix_fmt = PIXELS.get(seen, 'yuv420p')
      video.codec_context.time_base = Fraction(1, clock)
      video.codec_context.gop_size = gop or video.codec_context.gop_size
      streams.append(video)
    if sound is not None:
      layout = layout or {1: 'mono', 2: 'stereo', 6: '5.1'}[len(sound)]
      audio = container.add_stream(heard, rate=rate, layout=layout)
      audio.options = {'strict': 'experimental'}  # as FFmpeg calls its Vorbis
      streams.append(audio)
    if pictures is not None:
      for picture, time in zip(pictures, times):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
        frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
        container.mux(video.encode(frame))
      container.mux(video.encode())
    if sound is not None:
      for start in range(0, sound.shape[1], 1024):
        piece = np.ascontiguousarray(sound[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format='fltp', layout=layout)
        frame.sample_rate, frame.pts = rate, start
        container.mux(audio.encode(frame))
      container.mux(audio.encode())
  return path


def copy(source, path, start=0.0, seconds=math.inf, late=None):
  """Copies the packets of a file, as `ffmpeg -ss START -i SOURCE -t SECONDS -c copy PATH` does.

  They begin at the key frame before `start`, and the muxer of the suffix does what it does with
  times before 0: mp4 and mov hide them by an edit list, others let everything begin there.

  Args:
    late: for 'video' or 'audio', the second at which that track begins.
  """
  with av.open(str(source)) as given, av.open(str(path), 'w') as made:
    streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
    begin, begun = (given.start_time or 0) + round(start * av.time_base), set()
    if start:
      given.seek(begin)
    for packet in given.demux():
      index, kind = packet.stream.index, packet.stream.type
      if packet.dts is None:  # the end
        continue
      time = float(packet.dts * packet.time_base - Fraction(begin, av.time_base))
      early = time < (late or {}).get(kind, -math.inf)
      if time >= seconds or index not in begun and (early or not packet.is_keyframe):
        continue
      begun.add(index)
      shift = round(Fraction(begin, av.time_base) / packet.time_base)
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
      packet.stream = streams[index]
      made.mux(packet)
  return path


def write_tracks(path, videos=(), sounds=(), rate=32000):
  """Writes an mkv with several tracks; those of no picture, or no sample, are empty."""
  with av.open(str(path), 'w') as container:
    streams = []
    for pictures in videos:
      stream = container.add_stream('ffv1', rate=10)
      stream.height, stream.width = pictures.shape[1:3]
      stream.pix_fmt = 'bgr0'
      streams.append(stream)
    for sound in sounds:
      layout = {1: 'mono', 2: 'stereo'}[len(sound)]
      streams.append(container.add_stream('pcm_s16le', rate=rate, layout=layout))
    container.start_encoding()
    for stream, content in zip(streams, (*videos, *sounds)):
      if stream.type == 'video':
        frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(x), 'rgb24') for x in content]
      elif content.size:
        frames = [av.AudioFrame.from_ndarray(np.ascontiguousarray(content), 'fltp', stream.layout)]
        frames[0].sample_rate = rate
      else:
        continue
      for i, frame in enumerate(frames):
        frame.pts = i
        container.mux(stream.encode(frame))
      if frames:
        container.mux(stream.encode())
  return path


def show(path, a, b, c, d):
  """Makes an mp4 say that a point x, y of its pictures is shown at a·x + c·y, b·x + d·y."""
  data = bytearray(path.read_bytes())
  matrix = data.index(b'tkhd') + 4 + 4 + 20 + 16  # type, version, times and track, layer to volume
  one = 1 << 16
  values = a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
  data[matrix : matrix + 36] = struct.pack('>9i', *values)
  path.write_bytes(data)
  return path


def turn(path):
  """Makes an mp4 say that it is to be shown turned by 90 degrees clockwise, as telephones do."""
  return show(path, 0, 1, -1, 0)
