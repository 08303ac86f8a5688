"""The question format of MUSIC-AVQA: templates with slots, in JSON, to word numbers and back."""

import collections
import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Int32

from dgsct_jax.data import records
from dgsct_jax.data.pipeline import Source

LENGTH = 14  # words; no question of the validation and test files is longer
PAD = '<pad>'
KINDS = (
  ('Audio', 'Counting'),
  ('Audio', 'Comparative'),
  ('Visual', 'Counting'),
  ('Visual', 'Location'),
  ('Audio-Visual', 'Existential'),
  ('Audio-Visual', 'Counting'),
  ('Audio-Visual', 'Location'),
  ('Audio-Visual', 'Comparative'),
  ('Audio-Visual', 'Temporal'),
)


class Question(TypedDict):
  """One entry of `avqa-{train,val,test}.json`."""

  video_id: str
  question_id: int
  type: str  # a JSON list of two words
  question_content: str  # with slots like <Object>
  templ_values: str  # a JSON list: what stands in the slots, in order
  question_deleted: int  # always 0
  anser: str  # as released


def read(
  text: str, name: str, words_known: Sequence[str], answers: Sequence[str]
) -> list[Question]:
  """The questions of a label file, whose faults are all named.

  Args:
    text: JSON. name: of the file, for the message.

  Raises:
    ValueError: it is no list of questions; or words, answers or types are unknown.
  """
  try:
    asked = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{name}, line {error.lineno}: no JSON ({error.msg}).') from error
  if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
    raise ValueError(f'{name} holds {type(asked).__name__}, not a list of questions.')
  faults = []
  for place, question in enumerate(asked):
    if fault := _fault(question, words_known, answers):
      faults.append(f'question {question.get("question_id", f"in place {place}")}: {fault}')
    else:
      question['video_id'] = video_name(question['video_id'])
  if faults:
    more = [f'and {len(faults) - 10} more'] if len(faults) > 10 else []
    raise ValueError('\n  '.join([f'{name}: {len(faults)} faulty questions', *faults[:10], *more]))
  return asked


def video_name(video_id: str | int) -> str:
  """The name of a video; where a program has made a number of it, with its zeros again."""
  return f'{video_id:08d}' if isinstance(video_id, int) else video_id


def _fault(question: dict, words_known: Sequence[str], answers: Sequence[str]) -> str:
  """What is wrong with an entry; '' if nothing is."""
  fields = [name for name in Question.__annotations__ if name != 'question_deleted']
  if missing := [name for name in fields if name not in question]:
    renamed = ' (it has answer)' if 'anser' in missing and 'answer' in question else ''
    return f'it lacks {", ".join(missing)}{renamed}'
  for name in ('type', 'templ_values'):
    if not isinstance(question[name], str):
      return f'{name} is {question[name]!r}, not a JSON list written as text'
  try:
    kind = tuple(json.loads(question['type']))
    encode(question, words_known)
  except (ValueError, TypeError) as error:
    return str(error)
  if kind not in KINDS:
    return f'its type {question["type"]} is none of the nine'
  if question['anser'] not in answers:
    near = difflib.get_close_matches(str(question['anser']), answers, 3, 0.5)
    return f'its answer {question["anser"]!r} is unknown (near to it: {", ".join(near) or "none"})'
  if question['question_content'].strip()[-1:] not in ('?', '？'):
    return f'{question["question_content"]!r} does not end in a question mark'
  return ''


def words(question: Question) -> list[str]:
  """The words of a question, slots filled, without the mark at its end ('?' or the wide '？').

  Raises:
    ValueError: there are more slots than values, or fewer.
  """
  found = question['question_content'].strip().split(' ')
  found[-1] = found[-1][:-1]
  values = json.loads(question['templ_values'])
  slots = [i for i, word in enumerate(found) if '<' in word]
  if len(slots) != len(values):
    raise ValueError(
      f'question {question["question_id"]}: {len(slots)} slots in '
      f'{question["question_content"]!r}, but {len(values)} values {values}.'
    )
  for i, value in zip(slots, values):
    found[i] = value
  return found


def encode(question: Question, vocabulary: Sequence[str]) -> Int32[np.ndarray, '14']:
  """The numbers of the words, padded at the end with 0.

  Raises:
    ValueError: a word is not in the vocabulary, or the question is too long.
  """
  found = words(question)
  unknown = [word for word in found if word not in vocabulary]
  if unknown or len(found) > LENGTH:
    raise ValueError(
      f'question {question["question_id"]} has {len(found)} words, of {LENGTH}, and '
      f'the words {unknown} that are not in the vocabulary: {" ".join(found)!r}.'
    )
  ids = [vocabulary.index(word) for word in found]
  return np.int32(ids + [0] * (LENGTH - len(ids)))


def type_in(text: str, vocabulary: Sequence[str]) -> Int32[np.ndarray, '14']:
  """The numbers of the words of a question as someone types it, in any case.

  Raises:
    ValueError: there are none or too many, or some are unknown; known ones like them are named.
  """
  typed = text.strip().rstrip('?？').split()
  known = {word.lower(): word for word in reversed(vocabulary[1:])}
  found = [word if word in vocabulary[1:] else known.get(word.lower()) for word in typed]
  unknown = [word for word, place in zip(typed, found) if place is None]
  if unknown:
    near = (
      '{!r} (near to it: {})'.format(
        word,
        ', '.join(known[name] for name in difflib.get_close_matches(word.lower(), known, 3, 0)),
      )
      for word in unknown
    )
    raise ValueError(f'The model does not know {"; ".join(near)} in {text!r}.')
  if not 0 < len(found) <= LENGTH:
    raise ValueError(f'{text!r} has {len(found)} words; a question has 1 to {LENGTH}.')
  return np.int32([vocabulary.index(w) for w in found] + [0] * (LENGTH - len(found)))


def vocabulary(questions: Iterable[Question]) -> tuple[list[str], list[str]]:
  """(words, answers) in the order in which they first appear; words begin with the padding."""
  found, answers = {PAD: None}, {}
  for question in questions:
    found |= dict.fromkeys(words(question))
    answers[question['anser']] = None
  return list(found), list(answers)


@dataclasses.dataclass(frozen=True)
class Asked:
  """Records of clips with `question` [q 14] (word numbers), `answer` [q], `kind` [q] (of nine)."""

  clips: Source
  questions: list[Question]
  places: list[int]  # of their clips
  words: list[str]
  answers: list[str]
  at_once: int = 1  # questions in a record

  @functools.cached_property
  def groups(self) -> list[list[int]]:
    """The questions of each record, all about one clip, evenly many. Where they are too few some are repeated."""
    about = collections.defaultdict(list)
    for number, place in enumerate(self.places):
      about[place].append(number)
    found = []
    for numbers in about.values():
      records_of_clip = -(-len(numbers) // self.at_once)
      found += [
        np.resize(numbers[i::records_of_clip], self.at_once).tolist()
        for i in range(records_of_clip)
      ]
    return sorted(found)

  def __len__(self) -> int:
    return len(self.groups)

  def clip_of(self, index: int) -> int:
    """The number of the clip that a record is about."""
    return self.places[self.groups[index][0]]

  def __getitem__(self, index: int) -> records.Record:
    asked = [self.questions[number] for number in self.groups[index]]
    return self.clips[self.clip_of(index)] | {
      'question': np.stack([encode(question, self.words) for question in asked]),
      'answer': np.int32([self.answers.index(question['anser']) for question in asked]),
      'kind': np.int32([KINDS.index(tuple(json.loads(question['type']))) for question in asked]),
    }
