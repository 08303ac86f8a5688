"""A flash and a click at one time stay together, whatever the file stores them in."""

import av
import numpy as np
import pytest

from dgsct_jax.data import media
from tests import clips

RATE = 48000  # Hz
AT = 0.8  # seconds
TOGETHER = 1.5e-3  # seconds

PAIRS = [
  'mp4 libx264 aac',
  'mp4 libx264 libmp3lame',
  'mp4 libx264 ac3',
  'mp4 libx264 flac',
  'mp4 libx264 libopus',
  'mp4 mpeg4 aac',
  'mp4 libx265 alac',
  'mov libx264 aac',
  'mov mjpeg pcm_s16le',
  'mov prores_ks pcm_s16le',
  'mkv libx264 aac',
  'mkv ffv1 flac',
  'mkv mpeg4 libmp3lame',
  'mkv libx264 ac3',
  'mkv libvpx-vp9 libopus',
  'webm libvpx vorbis',
  'webm libvpx-vp9 libopus',
  'avi mpeg4 pcm_s16le',
  'avi mpeg4 libmp3lame',
  'avi mpeg4 ac3',
  'ts libx264 aac',
  'ts mpeg2video mp2',
  'mpg mpeg2video mp2',
  'flv libx264 aac',
  'flv flv libmp3lame',
]
# Where the encoder's delay is not in the file: by how much the sound comes late, in seconds.
LATE = {'avi mpeg4 libmp3lame': -17e-3, 'avi mpeg4 ac3': 5.3e-3}


def click(length=1.4, at=AT):
  """Noise that lasts 50 ms, in silence."""
  noise = np.random.default_rng(0).normal(0, 0.2, RATE // 20)
  wave = np.zeros(round(length * RATE), np.float32)
  wave[round(at * RATE) :][: len(noise)] = noise
  return np.stack([wave, wave])


def flash(times):
  """Black pictures, white ones from the time of the click on."""
  white = np.uint8(255) * (np.asarray(times) > AT - 1e-6)
  return np.broadcast_to(white[:, None, None, None], (len(times), 48, 64, 3))


def apart(path, at=AT):
  """Seconds by which the click comes after the flash, which is sought around a time."""
  fine = np.arange(at - 0.1, at + 0.1, 2.5e-4)
  bright = [frame.mean() > 128 for frame in media.each_frame(path, fine.tolist())]
  assert not bright[0] and bright[-1]
  seen = fine[bright.index(True)] + media.EARLY
  wave, original = media.waveform(path, RATE), click(at=0, length=0.05)[0]
  spectra = [np.fft.rfft(part, 2**18) for part in (wave, original)]
  heard = np.argmax(np.fft.irfft(spectra[0] * spectra[1].conj())) / RATE
  return heard - seen


def write(path, times, codecs, clock=25):
  """Writes a flash and a click; skips the test if PyAV here lacks a codec."""
  if missing := [name for name in codecs if name not in av.codecs_available]:
    pytest.skip(f'this PyAV cannot encode {", ".join(missing)}')
  return clips.write(path, flash(times), times, click(), RATE, codecs=codecs, clock=clock)


@pytest.mark.parametrize('pair', PAIRS)
def test_picture_and_sound_stay_together(tmp_path, pair):
  suffix, *codecs = pair.split()
  path = write(tmp_path / f'a.{suffix}', np.arange(35) / 25, codecs)
  assert abs(apart(path) - LATE.get(pair, 0)) < TOGETHER


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'flv'])
def test_they_do_at_a_varying_frame_rate(tmp_path, suffix):
  times = np.cumsum(np.random.default_rng(1).choice([0.017, 0.033, 0.08, 0.21], 20)).round(3)
  times = np.concatenate([times[times < AT - 0.02], [AT, 0.95, 1.3]])
  path = write(tmp_path / f'a.{suffix}', times, ('libx264', 'aac'), clock=1000)
  assert abs(apart(path)) < TOGETHER


@pytest.mark.parametrize(
  'pair', ['mp4 mpeg4 aac', 'mov mpeg4 aac', 'mkv mpeg4 aac', 'ts mpeg2video mp2', 'flv flv aac']
)
@pytest.mark.parametrize('late', ['video', 'audio'])
def test_they_do_if_one_track_begins_late(tmp_path, pair, late):
  suffix, *codecs = pair.split()
  whole = write(tmp_path / f'a.{suffix}', np.arange(35) / 25, codecs)
  path = clips.copy(whole, tmp_path / f'b.{suffix}', late={late: 0.3})
  with av.open(str(path)) as container:
    starts = {s.type: float(s.start_time * s.time_base) for s in container.streams}
  assert max(starts, key=starts.__getitem__) == late and max(starts.values()) > 0.3
  assert abs(apart(path)) < TOGETHER


@pytest.mark.parametrize('suffix, at', [('mp4', 0.48), ('mov', 0.48), ('mkv', 0.8)])
def test_they_do_behind_an_edit_list_or_the_key_frame_before_it(tmp_path, suffix, at):
  """FFmpeg moves pictures to the edge of an edit list that lies between two; here it is on one."""
  whole = write(tmp_path / 'a.mkv', np.arange(35) / 25, ('mpeg4', 'aac'))
  path = clips.copy(whole, tmp_path / f'b.{suffix}', start=0.32)
  assert abs(apart(path, at)) < TOGETHER
