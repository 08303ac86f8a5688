"""Clips that `ffmpeg -c copy` cuts begin at a key frame: labels are never shifted by that."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import cut
from dgsct_jax.data.datasets import avsbench, llp
from tests import clips

RATE = 800  # Hz, of all sound here
NAME = 'aaaaaaaaaaa'


@pytest.fixture(scope='module')
def video(tmp_path_factory):
  """25 s: the grey of a picture is its number, five a second; the pitch 10 Hz more each second."""
  path = tmp_path_factory.mktemp('video') / 'a.mp4'
  sound = np.concatenate([clips.tone(8000, 1, 100.0 + 10 * i) for i in range(25)], 1)
  pictures = clips.counter(125, (48, 64), 2)
  return clips.write(path, pictures, np.arange(125) / 5, sound, 8000, clock=5, gop=25)


def lead_in(path, seconds):
  """Seconds of a file before a clip that ends with it."""
  with av.open(str(path)) as container:
    return container.duration / av.time_base - seconds


def seen(frames):
  """The seconds of the video in which pictures are shown."""
  return [int(np.asarray(Image.open(io.BytesIO(frame))).mean() / 10) for frame in frames]


def heard(wave, seconds):
  """The seconds of the video in which sound is heard."""
  pitches = np.abs(np.fft.rfft(wave.reshape(seconds, -1), axis=1)).argmax(1)
  return np.round(pitches / 10 - 10).astype(int).tolist()


def read_llp(path, start):
  return llp.Read(RATE, 256)(
    llp.Entry(f'{NAME}_{start}_{start + 10}', (0,), (), (), str(path), False)
  )


def read_avsbench(path, start):
  mask = path.with_suffix('.png')
  Image.new('L', (4, 4)).save(mask)
  entry = avsbench.Entry(NAME, (), str(path), (str(mask),) * 5, '', '', start)
  return avsbench.Read(RATE, 256)(entry)


READ = {'llp': (read_llp, 10), 'avsbench': (read_avsbench, 5)}


@pytest.mark.parametrize('data', READ)
@pytest.mark.parametrize('suffix', ['mkv', 'flv', 'ts'])
@pytest.mark.parametrize('start', [12, 7, 6])
def test_a_lead_in_is_refused(tmp_path, video, suffix, data, start):
  read, seconds = READ[data]
  path = clips.copy(video, tmp_path / f'{NAME}.{suffix}', start, seconds)
  assert lead_in(path, seconds) > start % 5
  with pytest.raises(cut.WrongLength, match=r'ffmpeg -c copy begins at the key frame before'):
    read(path, start)


def test_that_of_an_avi_too(tmp_path):
  whole = clips.write(
    tmp_path / 'whole.avi',
    clips.counter(125, (48, 64), 2),
    np.arange(125) / 5,
    clips.tone(8000, 25),
    8000,
    codecs=('mpeg4', 'pcm_s16le'),
    clock=5,
    gop=25,
  )
  path = clips.copy(whole, tmp_path / f'{NAME}.avi', 12, 10)
  with pytest.raises(cut.WrongLength, match=r'lasts 11\.\d+ s.*ffmpeg -c copy'):
    read_llp(path, 12)


@pytest.mark.parametrize('data', READ)
@pytest.mark.parametrize('suffix', ['mkv', 'flv', 'ts'])
def test_a_clip_that_is_copied_with_all_before_it_is_the_video(tmp_path, video, suffix, data):
  read, seconds = READ[data]
  record = read(clips.copy(video, tmp_path / f'{NAME}.{suffix}', 2, seconds), 2)
  expected = list(range(2, 2 + seconds))
  assert seen(record['frames']) == heard(record['wave'], seconds) == expected


@pytest.mark.parametrize('data', READ)
@pytest.mark.parametrize('suffix', ['mp4', 'mov'])
def test_an_edit_list_hides_the_lead_in(tmp_path, video, suffix, data):
  read, seconds = READ[data]
  record = read(clips.copy(video, tmp_path / f'{NAME}.{suffix}', 12, seconds), 12)
  expected = list(range(12, 12 + seconds))
  assert seen(record['frames']) == heard(record['wave'], seconds) == expected


def test_a_file_with_the_name_of_a_clip_is_not_the_video(tmp_path, video):
  path = tmp_path / f'{NAME}_2_12.mp4'
  path.symlink_to(video)
  with pytest.raises(
    cut.WrongLength, match='lasts 25.00 s: too long or short to be the clip of 10 s.$'
  ):
    read_llp(path, 2)
