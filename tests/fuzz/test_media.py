"""Videos and sounds as users bring them: read as a model gets them, or refused in one error.

Whatever is whole must be read. A failing input is made again by its seed and number.
"""

import functools
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dgsct_jax import film
from dgsct_jax.data import clips, datasets, media, transforms
from tests.fuzz import damage

pytestmark = pytest.mark.fuzz

INPUTS = 250
SIDE = 64  # of stored frames at most
# By suffix: codec and pixels of pictures, codec and samples of sound.
FORMATS = {
  '.mp4': ('libx264', 'yuv420p', 'aac', 'fltp'),
  '.mov': ('mpeg4', 'yuv420p', 'pcm_s16le', 's16'),
  '.mkv': ('ffv1', 'yuv444p', 'flac', 's16'),
  '.webm': ('libvpx', 'yuv420p', 'libopus', 'flt'),
  '.avi': ('mjpeg', 'yuvj420p', 'libmp3lame', 'fltp'),
  '.ts': ('mpeg2video', 'yuv420p', 'mp2', 's16'),
  '.flv': ('libx264', 'yuv420p', 'aac', 'fltp'),
  '.3gp': ('mpeg4', 'yuv420p', 'aac', 'fltp'),
  '.gif': ('gif', 'rgb8', '', ''),
  '.wav': ('', '', 'pcm_f32le', 'flt'),
  '.mp3': ('', '', 'libmp3lame', 'fltp'),
  '.ogg': ('', '', 'libopus', 'flt'),
  '.flac': ('', '', 'flac', 's16'),
  '.m4a': ('', '', 'aac', 'fltp'),
}
SIZES = ((32, 24), (16, 16), (33, 17), (64, 2), (2, 64), (130, 18), (1, 40), (1, 1))
FRAME_RATES = (1, 5, 12, 25, Fraction(30000, 1001), Fraction(1, 2), 240)
SAMPLE_RATES = (48000, 44100, 32000, 16000, 8000, 11025, 96000)
LAYOUTS = ('mono', 'stereo', 'stereo', '5.1', '7.1')
LENGTHS = (2.0, 1.0, 3.4, 0.5, 0.04, 0.0)
TEXT = b'filename\tevent_labels\nvideo_0_10\tSpeech\n'


def draw(rng, values, usual=0.5):
  """One of the values: the first one, or any."""
  return values[0 if rng.random() < usual else rng.integers(len(values))]


def pictures(rng, size, count):
  for _ in range(count):
    x = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    yield av.VideoFrame.from_ndarray(x, format='rgb24')


def sounds(rng, rate, layout, length, kind):
  """Frames of noise, of silence, or of channels that cancel each other, in two."""
  samples, channels = round(rate * length), av.AudioLayout(layout).nb_channels
  wave = rng.uniform(-0.5, 0.5, samples).astype(np.float32) * (kind != 'silent')
  wave = np.stack([-wave if kind == 'cancelling' and i % 2 else wave for i in range(channels)])
  for start in range(0, samples, 1024):
    piece = wave[:, start : start + 1024].T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(piece, format='flt', layout=layout)
    frame.sample_rate, frame.pts = rate, start
    yield frame


def made(rng, told):
  """The bytes of a whole file, its suffix, and of each track: is anything in it, its seconds."""
  suffix = list(FORMATS)[rng.integers(len(FORMATS))]
  picture_codec, pixels, sound_codec, samples = FORMATS[suffix]
  several = suffix in ('.mkv', '.mp4', '.mov', '.ts')
  counts = [(1, 1), (1, 0), (0, 1), (2, 1), (1, 2), (2, 3)]
  seen, heard = draw(rng, counts[: 6 if several else 3])
  seen, heard = (seen or not heard) and bool(picture_codec) * seen, bool(sound_codec) * heard
  if not (seen or heard):
    seen, heard = int(bool(picture_codec)), int(bool(sound_codec))
  file, lengths = io.BytesIO(), []
  with av.open(file, 'w', format=av_format(suffix)) as container:
    tracks = []
    for _ in range(seen):
      size, rate, length = draw(rng, SIZES), draw(rng, FRAME_RATES), draw(rng, LENGTHS)
      stream = container.add_stream(picture_codec, rate=rate)
      stream.width, stream.height, stream.pix_fmt = *size, pixels
      count = min(60, round(rate * length))
      told.append(f'{count} pictures of {size} at {rate} Hz as {picture_codec}')
      tracks.append((stream, pictures(rng, size, count)))
      seconds = float(count / rate) * (count > 1)  # one alone is shown for long
      lengths.append((count > 0, seconds))
    for _ in range(heard):
      rate, layout, length = draw(rng, SAMPLE_RATES), draw(rng, LAYOUTS), draw(rng, LENGTHS)
      kind = draw(rng, ('noise', 'silent', 'cancelling'))
      stream = container.add_stream(sound_codec, rate=rate, layout=layout, format=samples)
      told.append(f'{length} s of {kind} at {rate} Hz, {layout}, as {sound_codec}')
      tracks.append((stream, sounds(rng, rate, layout, length, kind)))
      lengths.append((length > 0, length))
    container.start_encoding()
    for stream, frames in tracks:
      for i, frame in enumerate(frames):
        frame.pts = i if stream.type == 'video' else frame.pts
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  return file.getvalue(), suffix, lengths


def av_format(suffix):
  names = {'.mkv': 'matroska', '.ts': 'mpegts', '.m4a': 'ipod'}
  return names.get(suffix, suffix[1:])


@functools.cache
def still():
  file = io.BytesIO()
  Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(file, 'jpeg')
  return file.getvalue()


def content(rng, told):
  """Bytes, a suffix, and the seconds of the tracks of a file that must be read; (): of others."""
  if rng.random() < 0.08:
    data = (b'', TEXT, bytes(5000), rng.bytes(5000), still())[rng.integers(5)]
    told.append(f'{len(data)} bytes that begin with {data[:10]}')
    suffix = list(FORMATS)[rng.integers(len(FORMATS))]
    return data, suffix, ()
  try:
    data, suffix, lengths = made(rng, told)
  except (av.FFmpegError, ValueError) as error:  # this encoder does not take such
    told.append(f'refused ({error}); the rest of it')
    return TEXT, '.mp4', ()
  told.append(f'{len(data)} bytes of {suffix}')
  whole = lengths if max(seconds for _, seconds in lengths) > 0.1 else ()
  for _ in range(rng.integers(0, 4)):
    whole, end = (), 600 if rng.random() < 0.4 else None  # the header, of most
    data = damage.of_bytes(rng, data, told, 0, end)
  if rng.random() < 0.1:
    suffix = list(FORMATS)[rng.integers(len(FORMATS))]
    told.append(f'named {suffix}')
  return data, suffix, whole


def check(file, rate, windows):
  """What a model gets has the right shapes and is finite."""
  assert file.wave.shape[1] == rate and len(file.wave) >= file.seconds >= 1
  decode_frames = transforms.DecodeFrames(16)
  thumbnails = []
  for window, (example, small) in zip(file.windows, file.examples(SIDE), strict=True):
    t = len(window.seconds)
    decoded = transforms.DecodeWave(t, rate).map(decode_frames.map(example))
    assert decoded['video'].shape == (t, 16, 16, 3) and decoded['wave'].shape == (t, rate)
    assert np.isfinite(decoded['video']).all() and np.isfinite(decoded['wave']).all()
    thumbnails.append(small)
  shown = file.shown(thumbnails)
  assert len(shown.frames) == len(shown.wave) == len(shown.seconds)
  assert max(shown.seconds) < file.seconds


def test_a_file_is_read_or_refused_in_one_error(tmp_path, seed, number):
  rng, told = np.random.default_rng([seed, number]), []
  data, suffix, whole = content(rng, told)
  given = tmp_path / f'given{suffix}'
  given.write_bytes(data)
  kind = datasets.KINDS[('ave', 'avsbench_s4', 'music_avqa', 'cremad')[rng.integers(4)]]
  rate = (16000, 22050, 32000, 800)[rng.integers(4)]
  input_ = f'seed {seed}, number {number}: {"; ".join(told)}; read at {rate} Hz'

  cost = damage.Cost()
  try:
    file = clips.open_file(given, rate, lambda length: kind.windows(None, length))
    check(file, rate, kind.windows)
    if whole:
      with media.reading(given) as container:  # some containers leave out what is empty
        empty = len(container.streams) == len(whole)
      kept = [seconds for filled, seconds in whole if filled or empty]
      read = [kept[track.stream] for track in media.tracks(given) if track.stream is not None]
      assert abs(file.seconds - max(1, *read)) <= 1, (file.seconds, whole, read)
    if file.length.pictures and rng.random() < 0.3:
      film.draw(given, tmp_path / 'film.mp4', file.length, file.starts)
      assert clips.measure(tmp_path / 'film.mp4').pictures
  except (ValueError, OSError, av.FFmpegError) as error:
    assert given.name in str(error) and not whole, f'{input_}: {error}'
  except Exception as error:
    raise AssertionError(input_) from error
  cost.check(input_)
