"""Questions about any file get answers as in training, and words that are not known are named."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs import avqa as config_file
from dgsct_jax import answer, predict, train
from dgsct_jax.data import questions, transforms
from dgsct_jax.data.datasets import music_avqa
from tests import clips

RATE = 4000
WORDS = list(music_avqa.WORDS)


@pytest.fixture()
def run(tmp_path):
  """Stands for a model: it answers by the number of the question's second word."""
  config = config_file.get_config()
  config.model.visual.image, config.model.audio.sample_rate = 32, RATE
  seen = []

  def perceive(video, wave):
    seen.append((video, wave))
    looks = np.full((1, 10, 16), 0.05, np.float32)
    looks[:, :, 6] = 0.25  # second row, third column
    return {'looks': looks, 'audio_map': np.ones((1, 10, 64), np.float32)}

  def reply(clip, question):
    logits = 3 * np.eye(42, dtype=np.float32)[question[:, :, 1]]
    shares = np.zeros((1, question.shape[1], 10), np.float32)
    shares[..., 0] = 1
    return {'logits': logits, 'visual_seconds': shares, 'audio_seconds': shares[..., ::-1]}

  audio = SimpleNamespace(size=32, mel_bins=16, tile=1, hop=64)
  return answer.Run(config, tmp_path, 7, music_avqa.ANSWERS, audio, perceive, reply), seen


def test_a_question_is_read_as_the_data_set_would_have_it():
  asked = {
    'question_id': 0,
    'question_content': 'How many sounding <Object> in the video？',
    'templ_values': '["violin"]',
  }
  expected = questions.encode(asked, WORDS)
  for text in ('How many sounding violin in the video?', ' how many sounding Violin in the video '):
    np.testing.assert_array_equal(answer.encode(text, WORDS), expected)
  with_case = answer.encode('Is there a voiceover?', WORDS)
  assert [WORDS[i] for i in with_case if i] == ['Is', 'there', 'a', 'voiceover']


def test_unknown_words_are_named_with_known_ones_like_them():
  named = r"does not know 'violins' \(near to it: violin.*'guitar' .*acoustic_guitar"
  with pytest.raises(ValueError, match=named):
    answer.encode('How many violins and guitar are there?', WORDS)
  with pytest.raises(ValueError, match="'[?]' has 0 words"):
    answer.encode('?', WORDS)
  with pytest.raises(ValueError, match='15 words; a question has 1 to 14'):
    answer.encode('the ' * 15, WORDS)
  with pytest.raises(ValueError, match="does not know '<pad>'"):
    answer.encode('Is <pad>?', WORDS)


def test_the_model_gets_the_seconds_that_the_data_set_would_take(run, tmp_path):
  run, seen = run
  path = clips.write(
    tmp_path / 'a.mkv',
    clips.counter(120, step=2),
    np.arange(120) / 5,
    clips.tone(32000, 24, 300) * np.linspace(0, 1, 32000 * 24, dtype=np.float32),
  )
  record = music_avqa.Read(RATE, 256, 0.5)(music_avqa.Clip('a', str(path)))
  expected = transforms.DecodeWave(10, RATE).map(transforms.DecodeFrames(32).map(record))
  answer.answer(run, [('Is it?', answer.encode('Is it?', WORDS))], path, tmp_path / 'out')
  ((video, wave),) = seen
  np.testing.assert_array_equal(video[0], expected['video'])
  np.testing.assert_allclose(wave[0], expected['wave'], atol=2 / 32768)


def test_many_questions_take_one_look(run, tmp_path):
  run, seen = run
  path = clips.write(
    tmp_path / 'a.mp4', clips.counter(60, step=2), np.arange(60) / 10, clips.tone(32000, 6)
  )
  file = tmp_path / 'questions.txt'
  file.write_text('How many?\n\nHow are they?\n', encoding='utf-8')
  texts = answer.read_questions(file)
  asked = [(text, answer.encode(text, WORDS)) for text in ('How many?', 'How are it?')]
  answer.answer(run, asked, path, tmp_path / 'out')
  assert len(seen) == 1 and texts == ['How many?', 'How are they?']
  told = json.loads((tmp_path / 'out/answers.json').read_text())
  for question, word in zip(told['questions'], ('many', 'are')):
    best = question['answers']
    assert best[0]['answer'] == music_avqa.ANSWERS[WORDS.index(word)]
    assert len(best) == 5 and best[0]['confidence'] > best[1]['confidence']
    assert question['seconds'][0] == {'second': 0, 'seen': 1.0, 'heard': 0.0}
  assert told['looks'][0]['region'] == [0.5, 0.25, 0.75, 0.5]
  for name in ('question_1.png', 'question_2.png'):
    assert Image.open(tmp_path / 'out' / name).size[0] > 500
  assert (tmp_path / 'out/film.mp4').exists()


def test_a_trained_run_is_asked_from_the_command_line(tmp_path, capsys):
  config = config_file.get_config('tiny')
  config.data.dir, config.optim.epochs = str(tmp_path / 'data'), 1
  train.train(config, tmp_path / 'run')
  path = clips.write(
    tmp_path / 'a.mp4', clips.counter(40, step=2), np.arange(40) / 10, clips.tone(32000, 4)
  )
  ask = lambda text: predict.main([str(path), f'--workdir={tmp_path / "run"}', '--question', text])
  assert ask('How many disc are in the entire video?') == 0
  assert 'How many disc' in capsys.readouterr().out
  told = json.loads((tmp_path / 'run/predictions/a.mp4/answers.json').read_text())
  assert len(told['questions'][0]['answers']) == 5 and len(told['looks']) == 3
  with pytest.raises(SystemExit):
    ask('How many violin?')
  assert "does not know 'violin'" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    predict.main([str(path), f'--workdir={tmp_path / "run"}'])
  assert "task 'avqa'" in capsys.readouterr().err
