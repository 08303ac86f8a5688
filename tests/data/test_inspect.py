"""The page shows what is stored: frames, masks, sound, labels by name, questions."""

import base64
import html.parser
import io
import re
import wave

import numpy as np
from PIL import Image

from dgsct_jax.data import inspect, prepare, records
from tests import clips
from tests.data.datasets import test_ave, test_avsbench, test_llp, test_music_avqa


def write(name, source, tmp_path, split='test', count=12):
  """Builds a data set and writes its page; returns the text."""
  build = [name, f'--source={source}', f'--out={tmp_path / "out"}', '--rate=800', '--workers=0']
  assert prepare.main(build) == 0
  out = tmp_path / 'page.html'
  arguments = [
    name,
    f'--dir={tmp_path / "out"}',
    f'--split={split}',
    f'--out={out}',
    '--rate=800',
    f'--count={count}',
  ]
  assert inspect.main(arguments) == 0
  return out.read_text(encoding='utf-8')


def embedded(text, kind):
  return [base64.b64decode(data) for data in re.findall(rf'data:{kind};base64,([^"]*)"', text)]


def test_a_page_of_ave_holds_frames_sound_and_labels(tmp_path, capsys):
  test_ave.released(tmp_path / 'AVE')
  text = write('ave', tmp_path, tmp_path, split='train')
  assert '2 clips' in capsys.readouterr().out
  strip, level = (Image.open(io.BytesIO(file)) for file in embedded(text, 'image/jpeg')[:2])
  assert strip.size == (960, 64) and level.size == (960, 128)
  with wave.open(io.BytesIO(embedded(text, 'audio/wav')[0])) as file:
    assert (file.getframerate(), file.getnframes()) == (800, 8000)
  assert text.count('Mandolin&nbsp;') == 1 + 7 and text.count('background&nbsp;') == 3
  assert 'http' not in text
  html.parser.HTMLParser().feed(text)


def test_the_strip_has_the_frames_from_left_to_right_and_masks_in_red(tmp_path):
  test_avsbench.s4(tmp_path)
  write('avsbench_s4', tmp_path, tmp_path)
  record = records.load(tmp_path / 'out', 'avsbench_s4', 'test')[0]
  strip = inspect.strip(record)
  assert strip.shape == (192, 960, 3)
  for i in range(5):  # the picture has the grey 40 (i + 1); its upper left quarter sounds
    left = 192 * i
    assert strip[150, left + 150].tolist() == [40 * (i + 1)] * 3
    assert strip[40, left + 40].tolist() == [20 * (i + 1) + 127, 20 * (i + 1), 20 * (i + 1)]


def test_the_spectrogram_is_bright_at_the_pitch():
  sound = (clips.tone(8000, 2, 1000.0)[0] * 32767).astype(np.int16)
  level = inspect.spectrogram(sound).astype(int)
  assert level.shape == (128, 960)
  assert 127 - level[:, 480].argmax() == 31  # bins of 8000 / 256 Hz, the first is number 1
  assert level[:, 480].max() > 230 and np.median(level[:, 480]) < 60


def test_events_of_llp_are_named_for_each_second(tmp_path):
  test_llp.released(tmp_path)
  text = write('llp', tmp_path, tmp_path)
  assert '<th>label</th><td>Car</td>' in text
  assert 'visual: Car' in text and 'audio: Car' not in text
  cells = text[text.index('visual: Car') :]
  assert cells[: cells.index('</table>')].count('class=on') == 2


def test_questions_and_answers_are_shown(tmp_path):
  test_music_avqa.released(tmp_path / 'AVQA')
  text = write('music_avqa', tmp_path, tmp_path, split='videos')
  assert 'original-val: Where is the loudest instrument? left.' in text
  assert text.count('Is there a voiceover? yes.') == 3


def test_a_few_clips_are_spread_over_the_split(tmp_path):
  test_llp.released(tmp_path)
  text = write('llp', tmp_path, tmp_path, split='train', count=1)
  assert text.count('<section>') == 1


def test_a_missing_data_set_is_an_error_without_a_traceback(tmp_path, capsys):
  assert inspect.main(['ave', f'--dir={tmp_path}', f'--out={tmp_path / "page"}']) == 1
  assert "no data set 'ave'" in capsys.readouterr().err
  assert not (tmp_path / 'page').exists()
