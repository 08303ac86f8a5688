import collections
import dataclasses
import json

import numpy as np
import pytest

from dgsct_jax.data import questions
from dgsct_jax.scenes import labels
from dgsct_jax.scenes import questions as scene_questions
from dgsct_jax.scenes.compose import compose
from dgsct_jax.scenes.questions import KINDS, TEMPLATES, Facts, Thing
from dgsct_jax.scenes.shapes import Shapes

NAMES = ('tuba', 'flute', 'drum', 'pipa')


def thing(name, x, seconds, level=0.0):
  on = np.zeros(8, bool)
  on[list(seconds)] = True
  return Thing(name, x, on, level)


# From the left: a flute that plays in seconds 2 and 3, a loud tuba in 0, 4 and 6, a silent drum;
# a pipa is heard in 3 and 4 and never seen.
KNOWN = Facts(
  NAMES,
  (thing('tuba', 0.5, (0, 4, 6), -1.0), thing('flute', 0.1, (2, 3), -6.0), thing('drum', 0.9, ())),
  (thing('pipa', np.nan, (3, 4), -3.5),),
)
TWINS = Facts(
  NAMES, (thing('tuba', 0.1, (1, 2)), thing('tuba', 0.9, (1, 5)), thing('drum', 0.5, (4,))), ()
)


def answers(text, known=KNOWN):
  found = [make for *_, given, make in TEMPLATES if given == text]
  assert len(found) == 1
  return dict(found[0](known))


EXPECTED = {
  'How many musical instruments were heard throughout the video?': {(): 'three'},
  'Is the <Object> louder than the <Object>?': {
    ('tuba', 'flute'): 'yes',
    ('flute', 'tuba'): 'no',
    ('tuba', 'pipa'): 'yes',
    ('pipa', 'tuba'): 'no',
    ('pipa', 'flute'): 'yes',
    ('flute', 'pipa'): 'no',
  },
  'Is the <Object> more rhythmic than the <Object>?': {
    ('tuba', 'flute'): 'yes',
    ('flute', 'tuba'): 'no',
    ('tuba', 'pipa'): 'yes',
    ('pipa', 'tuba'): 'no',
  },
  'Is the <Object> playing longer than the <Object>?': {
    ('tuba', 'flute'): 'yes',
    ('flute', 'tuba'): 'no',
    ('tuba', 'pipa'): 'yes',
    ('pipa', 'tuba'): 'no',
  },
  'Is there a <Object> sound?': {
    ('tuba',): 'yes',
    ('flute',): 'yes',
    ('drum',): 'no',
    ('pipa',): 'yes',
  },
  'Is there a <Object> in the entire video?': {
    ('tuba',): 'yes',
    ('flute',): 'yes',
    ('drum',): 'yes',
    ('pipa',): 'no',
  },
  'How many types of musical instruments appeared in the entire video?': {(): 'three'},
  'How many <Object> are in the entire video?': {
    ('tuba',): 'one',
    ('flute',): 'one',
    ('drum',): 'one',
    ('pipa',): 'zero',
  },
  'What kind of musical instrument is it?': {},
  'What kind of instrument is the <LRer> instrument?': {
    ('leftest',): 'flute',
    ('rightest',): 'drum',
  },
  'What is the instrument on the <LR> of <Object>?': {
    ('left', 'tuba'): 'flute',
    ('right', 'tuba'): 'drum',
  },
  'Is this sound from the instrument in the video?': {(): 'no'},
  'Is there a voiceover?': {(): 'yes'},
  'Is the <Object> in the video always playing?': {
    ('tuba',): 'no',
    ('flute',): 'no',
    ('drum',): 'no',
  },
  'How many instruments are sounding in the video?': {(): 'two'},
  'How many types of musical instruments sound in the video?': {(): 'two'},
  'How many instruments in the video did not sound from beginning to end?': {(): 'one'},
  'How many sounding <Object> in the video？': {
    ('tuba',): 'one',
    ('flute',): 'one',
    ('drum',): 'zero',
  },
  'Where is the <LL> instrument?': {('loudest',): 'middle', ('lowest',): 'left'},
  'Is the <FL> sound coming from the <LR> instrument?': {
    ('first', 'left'): 'no',
    ('first', 'middle'): 'yes',
    ('first', 'right'): 'no',
    ('last', 'left'): 'no',
    ('last', 'middle'): 'no',
    ('last', 'right'): 'no',
  },
  'What is the <LR> instrument of the <FL> sounding instrument?': {
    ('left', 'first'): 'flute',
    ('right', 'first'): 'drum',
  },
  'Which is the musical instrument that sounds at the same time as the <Object>?': {
    ('tuba',): 'pipa',
    ('flute',): 'pipa',
  },
  'Is the <Object> on the <LR> louder than the <Object> on the <LR>?': {
    ('tuba', 'middle', 'flute', 'left'): 'yes',
    ('flute', 'left', 'tuba', 'middle'): 'no',
  },
  'Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?': {
    ('tuba', 'middle', 'flute', 'left'): 'yes',
    ('flute', 'left', 'tuba', 'middle'): 'no',
  },
  'Is the instrument on the <LR> louder than the instrument on the <LR>?': {
    ('middle', 'left'): 'yes',
    ('left', 'middle'): 'no',
  },
  'Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?': {
    ('middle', 'left'): 'yes',
    ('left', 'middle'): 'no',
  },
  'Where is the <FL> sounding instrument?': {('first',): 'middle', ('last',): 'left'},
  'What is the <TH> instrument that comes in?': {
    ('first',): 'tuba',
    ('second',): 'flute',
    ('third',): 'pipa',
  },
  'Which instrument makes sounds <BA> the <Object>?': {
    ('before', 'flute'): 'tuba',
    ('after', 'tuba'): 'flute',
    ('before', 'pipa'): 'flute',
    ('after', 'flute'): 'pipa',
  },
  'Which <Object> makes the sound <FL>?': {},
}


@pytest.mark.parametrize('text', EXPECTED)
def test_answers_are_those_that_one_sees_and_hears(text):
  assert answers(text) == EXPECTED[text]


def test_two_classes_sound_or_are_seen_if_both_do():
  heard = answers('Are there <Object> and <Object> sound?')
  seen = answers('Are there <Object> and <Object> instruments in the video?')
  assert len(heard) == len(seen) == 12
  assert {pair for pair, answer in heard.items() if answer == 'yes'} == {
    (a, b) for a in ('tuba', 'flute', 'pipa') for b in ('tuba', 'flute', 'pipa') if a != b
  }
  assert {pair for pair, answer in seen.items() if answer == 'yes'} == {
    (a, b) for a in ('tuba', 'flute', 'drum') for b in ('tuba', 'flute', 'drum') if a != b
  }


def test_every_template_has_an_expectation():
  assert {text for *_, text, _ in TEMPLATES} - EXPECTED.keys() == {
    'Are there <Object> and <Object> sound?',
    'Are there <Object> and <Object> instruments in the video?',
  }


def test_objects_of_one_class_are_told_by_their_place():
  assert answers('Which <Object> makes the sound <FL>?', TWINS) == {
    ('tuba', 'first'): 'simultaneously',
    ('tuba', 'last'): 'simultaneously',
  }
  later = TWINS._replace(objects=(thing('tuba', 0.1, (2,)), *TWINS.objects[1:]))
  assert answers('Which <Object> makes the sound <FL>?', later) == {
    ('tuba', 'first'): 'right',
    ('tuba', 'last'): 'left',
  }
  assert answers('How many sounding <Object> in the video？', TWINS)[('tuba',)] == 'two'


def test_nothing_ambiguous_is_asked():
  assert not answers('What is the <TH> instrument that comes in?', TWINS)
  assert not answers('Which instrument makes sounds <BA> the <Object>?', TWINS)
  assert ('first',) not in answers('Where is the <FL> sounding instrument?', TWINS)
  assert not answers('Is the <Object> louder than the <Object>?', TWINS)
  near = KNOWN._replace(objects=(thing('tuba', 0.34, (0,)), *KNOWN.objects[1:]))
  assert not answers('Is the instrument on the <LR> louder than the instrument on the <LR>?', near)
  close = Facts(NAMES, (thing('tuba', 0.5, (0,)), thing('flute', 0.51, (1,))), ())
  assert not answers('What kind of instrument is the <LRer> instrument?', close)
  assert not answers('What is the instrument on the <LR> of <Object>?', close)


def test_one_object_is_what_it_is():
  single = Facts(NAMES, (thing('drum', 0.5, (1,)),), ())
  assert answers('What kind of musical instrument is it?', single) == {(): 'drum'}
  assert answers('Is this sound from the instrument in the video?', single) == {(): 'yes'}


def test_composed_clips_are_asked_all_nine_types_in_the_released_form():
  knobs = dataclasses.replace(labels.MUSIC, sample_rate=1000, size=32)
  words, possible = scene_questions.vocabulary(Shapes().classes)
  kinds, given, texts = collections.Counter(), set(), set()
  for i in range(60):
    record = compose(Shapes(), knobs, 0, 'train', i)._asdict()
    ask = lambda: scene_questions.about(
      record, Shapes().classes, 32, f'{i:03d}', np.random.default_rng(i)
    )
    asked = ask()
    assert asked == ask()
    for question in asked:
      assert list(question) == [
        'video_id',
        'question_id',
        'type',
        'question_content',
        'templ_values',
        'question_deleted',
        'anser',
      ]
      questions.encode(question, words)
      assert question['anser'] in possible
      kinds[tuple(json.loads(question['type']))] += 1
      given.add(question['anser'])
      texts.add(question['question_content'])
  assert set(kinds) == set(KINDS) and min(kinds.values()) > 5
  assert given >= {'yes', 'no', 'zero', 'one', 'two', 'left', 'middle', 'right', 'disc'}
  assert len(texts) > 25


def test_several_questions_of_a_type_are_different_ones():
  record = compose(
    Shapes(), dataclasses.replace(labels.MUSIC, sample_rate=1000, size=32), 0, 'train', 1
  )._asdict()
  ask = lambda each: scene_questions.about(
    record, Shapes().classes, 32, 'a', np.random.default_rng(0), each
  )
  asked = ask(5)
  assert (
    len({(q['type'], q['question_content'], q['templ_values']) for q in asked})
    == len(asked)
    > len(ask(1))
  )
  assert 1 < max(collections.Counter(q['type'] for q in asked).values()) <= 5


def test_facts_are_read_from_a_record():
  record = {
    'sources': np.array([1, -1, 3]),
    'level': np.float32([-2, 0, -5]),
    'sounding': np.array([[1, 0, 0], [0, 0, 1]], bool),
    'boxes': np.float32([[[8, 0, 16, 8], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]),
  }
  known = scene_questions.facts(record, NAMES, 36)
  (flute,), (pipa,) = known.objects, known.offscreen
  assert (flute.name, flute.level, flute.start, flute.runs) == ('flute', -2, 0, 1)
  assert flute.x == pytest.approx(1 / 3) and flute.place == ''
  assert (pipa.name, pipa.place, pipa.start) == ('pipa', '', 1)
