"""MUSIC-AVQA from both layouts; every question of the real label files."""

import collections
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import pipeline, prepare, questions, records, transforms
from dgsct_jax.data.datasets import music_avqa
from tests import annotations, clips

RATE = 800  # Hz, of all sound here


def question(video, number, text='Is there a voiceover?', answer='yes', values=()):
  return {
    'video_id': video,
    'question_id': number,
    'type': '["Audio-Visual", "Existential"]',
    'question_content': text,
    'templ_values': json.dumps(values),
    'question_deleted': 0,
    'anser': answer,
  }


VAL = [
  question('00000001', 1),
  question('vv00000002', 2, 'Where is the <LL> instrument？ ', 'left', ['loudest']),
  question('00000001', 3, answer='no'),
]
TEST = [question('00000003', 4), question('00000001', 5)]


def label_files(root, original='json', update='json_update'):
  for folder in (original, update):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / 'avqa-val.json').write_text(json.dumps(VAL))
    (root / folder / 'avqa-test.json').write_text(json.dumps(TEST[folder == update :]))
  (root / original / 'avqa-train.json').touch()  # empty, as in some copies
  return root


def released(root):
  label_files(root)
  for video in ('00000001', 'vv00000002', '00000003'):
    folder = root / 'frames' / video
    folder.mkdir(parents=True)
    for i in range(1, 61):
      Image.fromarray(np.full((20, 30, 3), 4 * i, np.uint8)).save(folder / f'{i:08d}.jpg')
    (root / 'audio_wave').mkdir(exist_ok=True)
    np.save(root / 'audio_wave' / f'{video}.npy', np.full((10, RATE), 0.25, np.float32))
  return root


@pytest.fixture(scope='session')
def minute(tmp_path_factory):
  """A minute: the grey of a picture is its second times 4, the pitch 5 Hz more each second."""
  path = tmp_path_factory.mktemp('video') / 'a.mkv'
  sound = np.concatenate([clips.tone(4000, 1, 50 + 5 * i) for i in range(60)], 1)
  return clips.write(path, clips.counter(60, size=(30, 40), step=4), np.arange(60), sound, 4000)


def raw(root, minute):
  label_files(root, '.', 'update')
  (root / 'MUSIC-AVQA-videos-Real').mkdir()
  (root / 'MUSIC-AVQA-videos-Synthetic').mkdir()
  shutil.copy(minute, root / 'MUSIC-AVQA-videos-Real/00000001.mkv')
  shutil.copy(minute, root / 'MUSIC-AVQA-videos-Real/00000003.mkv')
  shutil.copy(minute, root / 'MUSIC-AVQA-videos-Synthetic/vv00000002.mkv')
  return root


def build(source, out, **options):
  return records.write(music_avqa.recipe(source, rate=RATE), out, **options)


def test_videos_are_stored_once_and_asked_in_the_order_of_the_file(tmp_path):
  root = released(tmp_path / 'data/AVQA')
  build(tmp_path, tmp_path / 'out')
  val = music_avqa.load(tmp_path / 'out', 'val')
  assert len(val) == 3 and len(val.clips) == 2 and val.places == [0, 1, 0]
  assert [val[i]['id'] for i in range(3)] == ['00000001', 'vv00000002', '00000001']
  assert val.clips.ids == ['00000001', 'vv00000002']
  record = val[1]
  assert [val.words[i] for i in record['question'][0]] == (
    'Where is the loudest instrument'.split() + ['<pad>'] * 9
  )
  assert music_avqa.ANSWERS[record['answer'][0]] == 'left'
  assert questions.KINDS[record['kind'][0]] == ('Audio-Visual', 'Existential')
  numbers = [1, 7, 14, 20, 27, 33, 40, 46, 53, 60]
  files = [root / 'frames/vv00000002' / f'{i:08d}.jpg' for i in numbers]
  assert record['frames'] == [file.read_bytes() for file in files]
  assert record['wave'].tolist() == [8192] * 10 * RATE
  for version, count in (('original', 2), ('update', 1)):
    assert len(music_avqa.load(tmp_path / 'out', 'test', annotations=version)) == count


def test_real_and_synthetic_videos_can_be_asked_about_alone(tmp_path):
  released(tmp_path / 'AVQA')
  build(tmp_path, tmp_path / 'out')
  sizes = {
    subset: len(music_avqa.load(tmp_path / 'out', 'val', subset=subset))
    for subset in music_avqa.SUBSETS
  }
  assert sizes == {'all': 3, 'real': 2, 'synthetic': 1}
  for options in ({'subset': 'fake'}, {'annotations': 'new'}, {}):
    with pytest.raises(ValueError, match='There are no .*questions.*original-test.*original-val'):
      music_avqa.load(tmp_path / 'out', 'train', **options)


def test_a_minute_is_cut_to_ten_seconds_with_their_frames(tmp_path, minute):
  raw(tmp_path / 'in', minute)
  build(tmp_path / 'in', tmp_path / 'out')
  record = music_avqa.load(tmp_path / 'out', 'val')[1]
  starts = [0, 6, 13, 19, 26, 32, 39, 45, 52, 59]
  greys = [np.asarray(Image.open(io.BytesIO(frame))).mean() for frame in record['frames']]
  assert [round(grey / 4) for grey in greys] == starts
  pitches = np.abs(np.fft.rfft(record['wave'].reshape(10, RATE), axis=1)).argmax(1)  # Hz
  assert pitches.tolist() == [50 + 5 * start for start in starts]


def test_videos_of_any_length_are_spread_over():
  assert music_avqa.seconds(60.14) == (0, 6, 13, 19, 26, 32, 39, 45, 52, 59)
  assert music_avqa.seconds(10) == tuple(range(10))
  assert music_avqa.seconds(3.9) == (0, 0, 0, 0, 0, 1, 1, 1, 1, 2)
  assert music_avqa.seconds(0.5) == (0,) * 10


def test_all_bad_videos_are_listed_and_their_questions_left_out_on_request(tmp_path, minute):
  root = raw(tmp_path / 'in', minute)
  (root / 'MUSIC-AVQA-videos-Real/00000003.mkv').unlink()
  short = root / 'MUSIC-AVQA-videos-Synthetic/vv00000002.mkv'
  clips.write(short, clips.counter(3), [0, 1, 2], clips.tone(4000, 3), 4000)
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)2 clips of music_avqa.*vv00000002: .*lasts 3.0\d s; more than 9 s are.*'
      r'00000003: .*No such file'
    ),
  ):
    build(root, tmp_path / 'out')
  build(root, tmp_path / 'out', skip_bad=True)
  val = music_avqa.load(tmp_path / 'out', 'val')
  assert [val[i]['id'] for i in range(len(val))] == ['00000001', '00000001']


def test_questions_come_in_batches(tmp_path):
  released(tmp_path / 'AVQA')
  build(tmp_path, tmp_path / 'out')
  fields = ('video', 'wave', 'question', 'answer', 'kind')
  decode = (transforms.DecodeFrames(16), transforms.DecodeWave(10, RATE), transforms.Keep(fields))
  dataset = pipeline.Dataset(music_avqa.load(tmp_path / 'out', 'val'), decode)
  with pipeline.evaluate(dataset, batch=2, workers=1) as batches:
    first = next(batches)
  assert first['question'].shape == (2, 1, 14) and first['video'].shape == (2, 10, 16, 16, 3)


def test_other_words_in_the_training_file_are_refused(tmp_path):
  root = released(tmp_path / 'AVQA')
  (root / 'json/avqa-train.json').write_text(json.dumps(VAL))
  with pytest.raises(ValueError, match='not the known 93 and 42 in their order'):
    music_avqa.recipe(root)


def test_what_is_missing_is_said(tmp_path, capsys):
  arguments = ['music_avqa', f'--source={tmp_path}', f'--out={tmp_path}']
  assert prepare.main(arguments) == 1
  assert 'no json/avqa-test.json or avqa-test.json in' in capsys.readouterr().err
  label_files(tmp_path)
  with pytest.raises(ValueError, match='neither the folders frames and audio_wave, nor videos'):
    music_avqa.recipe(tmp_path)


def test_the_shipped_lists_are_the_released_ones():
  root = annotations.folder('music_avqa')
  words = (root / 'ques_vocab.txt').read_text().splitlines()
  assert words == list(music_avqa.WORDS) * 2  # the file has them twice
  assert (root / 'ans_vocab.txt').read_text().splitlines() == list(music_avqa.ANSWERS)
  assert len(music_avqa.WORDS) == 93 and len(music_avqa.ANSWERS) == 42


def test_the_real_label_files_have_the_published_counts_and_no_unknown_word():
  files = music_avqa.label_files(annotations.folder('music_avqa'))
  counts = {
    'original-val.json': (4595, 3815),
    'original-test.json': (9185, 6399),
    'update-val.json': (4568, 3815),
    'update-test.json': (9129, 6399),
  }
  assert files.keys() == counts.keys()
  by_kind = {}
  for name, text in files.items():
    asked = json.loads(text)
    assert (len(asked), len({q['video_id'] for q in asked})) == counts[name]
    numbers = np.stack([questions.encode(q, music_avqa.WORDS) for q in asked])
    assert (numbers > 0).sum(1).max() == 14
    assert {q['anser'] for q in asked} <= set(music_avqa.ANSWERS)
    kinds = collections.Counter(tuple(json.loads(q['type'])) for q in asked)
    by_kind[name] = [kinds[kind] for kind in questions.KINDS]
  assert by_kind == {
    'original-val.json': [515, 299, 600, 614, 499, 635, 462, 557, 414],
    'original-test.json': [1022, 601, 1199, 1228, 995, 1274, 927, 1115, 824],
    'update-val.json': [511, 295, 600, 613, 495, 633, 461, 549, 411],
    'update-test.json': [1017, 594, 1197, 1225, 988, 1265, 920, 1101, 822],
  }


def test_the_real_test_file_has_the_published_share_of_synthetic_videos():
  files = music_avqa.label_files(annotations.folder('music_avqa'))
  for name, (real, synthetic) in {
    'original-val.json': (3698, 897),
    'original-test.json': (7402, 1783),
  }.items():
    is_real = [q['video_id'].isdigit() for q in json.loads(files[name])]
    assert (is_real.count(True), is_real.count(False)) == (real, synthetic)
