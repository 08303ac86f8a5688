import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from dgsct_jax.data import questions
from dgsct_jax.data.datasets import music_avqa
from dgsct_jax.data.questions import KINDS
from dgsct_jax.scenes.questions import TEMPLATES

WORDS = list(music_avqa.WORDS)
REAL = Path(__file__).parents[3] / 'shared/annotations/music_avqa'


def question(text, *values):
  return {'question_id': 7, 'question_content': text, 'templ_values': json.dumps(values)}


def test_slots_are_filled_in_order_and_the_mark_is_dropped():
  asked = question('Is the <Object> on the <LR> louder? ', 'tuba', 'left')
  assert questions.words(asked) == 'Is the tuba on the left louder'.split()
  assert questions.words(question('How many <Object> in the video？', 'pipa'))[-1] == 'video'


def test_a_wrong_number_of_values_is_named():
  with pytest.raises(ValueError, match='question 7: 1 slots.*2 values'):
    questions.words(question('Where is the <LL> instrument?', 'loudest', 'left'))


def test_numbers_are_padded_and_unknown_words_named():
  vocabulary = ['<pad>', 'Where', 'is', 'it']
  assert questions.encode(question('Where is it?'), vocabulary).tolist() == [1, 2, 3] + [0] * 11
  with pytest.raises(ValueError, match="'tuba'"):
    questions.encode(question('Where is tuba?'), vocabulary)
  with pytest.raises(ValueError, match='15 words, of 14'):
    questions.encode(question('is ' * 14 + 'it?'), vocabulary)


def test_words_and_answers_are_numbered_as_they_first_appear():
  asked = [
    question('Where is it?') | {'anser': 'left'},
    question('is there?') | {'anser': 'yes'},
    question('Where is it?') | {'anser': 'left'},
  ]
  assert questions.vocabulary(asked) == (['<pad>', 'Where', 'is', 'it', 'there'], ['left', 'yes'])


@pytest.fixture
def asked():
  """Seven questions about two of three clips, in no order."""
  numbered = [question('Is it?') | {'type': json.dumps(KINDS[i]), 'anser': 'yes'} for i in range(7)]
  clips = [{'id': str(i)} for i in range(3)]
  return questions.Asked(
    clips, numbered, [2, 0, 0, 2, 0, 0, 0], ['<pad>', 'Is', 'it'], ['no', 'yes']
  )


def test_questions_come_one_by_one_in_their_order(asked):
  assert len(asked) == 7 and asked.groups == [[i] for i in range(7)]
  record = asked[3]
  assert record['id'] == '2' and record['question'].shape == (1, questions.LENGTH)
  assert (record['answer'], record['kind']) == ([1], [3])


def test_several_at_once_are_all_about_one_clip_and_leave_none_out(asked):
  asked = dataclasses.replace(asked, at_once=3)
  assert asked.groups == [[0, 3, 0], [1, 4, 6], [2, 5, 2]]
  assert [asked[i]['id'] for i in range(len(asked))] == ['2', '0', '0']
  assert asked[0]['kind'].tolist() == [0, 3, 0] and asked[0]['question'].shape == (
    3,
    questions.LENGTH,
  )


def test_a_typed_question_is_read_as_the_data_set_would_have_it():
  text = 'How many sounding <Object> in the video？'
  expected = questions.encode(question(text, 'violin'), WORDS)
  for typed in (
    'How many sounding violin in the video?',
    ' how many sounding Violin in the video ',
  ):
    np.testing.assert_array_equal(questions.type_in(typed, WORDS), expected)
  with_case = questions.type_in('Is there a voiceover?', WORDS)
  assert [WORDS[i] for i in with_case if i] == ['Is', 'there', 'a', 'voiceover']


def test_unknown_words_are_named_with_known_ones_like_them():
  named = r"does not know 'violins' \(near to it: violin.*'guitar' .*acoustic_guitar"
  with pytest.raises(ValueError, match=named):
    questions.type_in('How many violins and guitar are there?', WORDS)
  with pytest.raises(ValueError, match="'[?]' has 0 words"):
    questions.type_in('?', WORDS)
  with pytest.raises(ValueError, match='15 words; a question has 1 to 14'):
    questions.type_in('the ' * 15, WORDS)
  with pytest.raises(ValueError, match="does not know '<pad>'"):
    questions.type_in('Is <pad>?', WORDS)


@pytest.mark.skipif(not REAL.exists(), reason=f'no annotations of MUSIC-AVQA in {REAL}')
@pytest.mark.parametrize('file', ['avqa-val.json', 'avqa-test.json', 'update/avqa-test.json'])
def test_every_real_question_is_encoded(file):
  words = (REAL / 'ques_vocab.txt').read_text().split()
  words = words[: len(words) // 2]  # the file has its lines twice
  assert len(words) == 93 and words[0] == '<pad>'
  lengths = []
  for asked in json.loads((REAL / file).read_text()):
    lengths.append(np.count_nonzero(questions.encode(asked, words)))
  assert max(lengths) == 14


@pytest.mark.skipif(not REAL.exists(), reason=f'no annotations of MUSIC-AVQA in {REAL}')
def test_templates_of_scenes_are_the_real_ones():
  real = {
    (*json.loads(asked['type']), asked['question_content'].strip())
    for asked in json.loads((REAL / 'avqa-test.json').read_text())
  }
  ours = {template[:3] for template in TEMPLATES}
  assert ours < real and {text for *_, text in real - ours} == {'Where is the performance?'}
