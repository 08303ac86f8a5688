"""The page shows what is stored: frames, masks, sound, labels by name, questions."""

import base64
import html.parser
import io
import re
import wave

import numpy as np
from PIL import Image

from dgsct_jax.data import inspect, media, prepare, records
from dgsct_jax.data.datasets import ave, llp
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


def stored(name, tmp_path, split='test'):
  return records.load(tmp_path / 'out', name, split)[0]


def test_a_page_of_ave_holds_frames_sound_and_labels(tmp_path, capsys):
  test_ave.released(tmp_path / 'AVE')
  text = write('ave', tmp_path, tmp_path, split='train')
  assert '2 clips' in capsys.readouterr().out
  drawn = embedded(text, 'image/png')
  assert len(drawn) == 2 and Image.open(io.BytesIO(drawn[0])).size[0] > 960
  with wave.open(io.BytesIO(embedded(text, 'audio/wav')[0])) as file:
    assert (file.getframerate(), file.getnframes()) == (800, 8000)
  assert text.count('<th>event</th><td>Mandolin</td>') == 1
  frames, sound, bars = inspect.tracks(stored('ave', tmp_path, 'train'), ave.CLASSES, 800)
  assert frames.frames.shape == (10, 20, 30, 3) and sound.wave.shape == (10, 800)
  names = [[*bars.names, 'background'][i] for i in bars.labels]
  assert names.count('Mandolin') == 7 and names.count('background') == 3
  assert 'http' not in text
  html.parser.HTMLParser().feed(text)


def test_masks_stand_over_their_frames(tmp_path):
  test_avsbench.s4(tmp_path)
  write('avsbench_s4', tmp_path, tmp_path)
  frames, masks, _ = inspect.tracks(stored('avsbench_s4', tmp_path), (), 800)
  assert masks.over is frames and masks.probability.shape == frames.frames.shape[:3]
  for i in range(5):  # the picture has the grey 40 (i + 1); its upper left quarter sounds
    high, wide = (side // 8 for side in masks.probability[i].shape)
    assert frames.frames[i, 6 * high, 6 * wide].tolist() == [40 * (i + 1)] * 3
    assert masks.probability[i, high, wide] == 1
    assert masks.probability[i, 6 * high, 6 * wide] == 0


def test_frames_without_masks_are_shown_as_they_are(tmp_path):
  test_avsbench.s4(tmp_path)
  write('avsbench_s4', tmp_path, tmp_path, split='train')
  _, masks, _ = inspect.tracks(stored('avsbench_s4', tmp_path, 'train'), (), 800)
  assert masks.probability[0].any() and not masks.probability[1:].any()


def test_other_numbers_of_frames_than_seconds_are_spread(tmp_path):
  record = {'id': 'a', 'frames': [jpeg(i) for i in range(6)], 'wave': np.zeros(300, np.int16)}
  shown = lambda record: inspect.tracks(record, (), 100)[0].frames[:, 0, 0, 0] // 40
  assert shown(record).tolist() == [0, 2, 4]
  assert shown(record | {'frames': record['frames'][:2]}).tolist() == [0, 0, 1]


def jpeg(i):
  return media.jpeg(np.full((8, 8, 3), 40 * i + 10, np.uint8), 8)


def test_events_of_llp_are_named_for_each_second(tmp_path):
  test_llp.released(tmp_path)
  text = write('llp', tmp_path, tmp_path)
  assert '<th>label</th><td>Car</td>' in text
  *_, bars = inspect.tracks(stored('llp', tmp_path), llp.CLASSES, 800)
  assert bars.name == 'visual' and [bars.names[i] for i in bars.labels if i < 25] == ['Car'] * 2


def test_a_wrong_rate_is_an_error(tmp_path, capsys):
  test_llp.released(tmp_path)
  write('llp', tmp_path, tmp_path)
  given = ['llp', f'--dir={tmp_path / "out"}', f'--out={tmp_path / "b.html"}', '--rate=32000']
  assert inspect.main(given) == 1
  assert 'has 8000 samples, which is no whole number of seconds' in capsys.readouterr().err


def test_questions_and_answers_are_shown(tmp_path):
  test_music_avqa.released(tmp_path / 'AVQA')
  text = write('music_avqa', tmp_path, tmp_path, split='videos')
  assert 'original-val: Where is the loudest instrument? left.' in text
  assert text.count('Is there a voiceover? yes.') == 3


def test_a_few_clips_are_spread_over_the_split(tmp_path):
  test_llp.released(tmp_path)
  text = write('llp', tmp_path, tmp_path, split='train', count=1)
  assert text.count('<h2>') == 1


def test_a_missing_data_set_is_an_error_without_a_traceback(tmp_path, capsys):
  assert inspect.main(['ave', f'--dir={tmp_path}', f'--out={tmp_path / "page"}']) == 1
  assert "no data set 'ave'" in capsys.readouterr().err
  assert not (tmp_path / 'page').exists()
