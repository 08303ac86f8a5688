"""The question format of MUSIC-AVQA: JSON templates with slots, and questions as word indices."""

import collections
import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

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

# What a question must have, by field: its types in JSON, and how to say that.
FORMS: dict[str, tuple[tuple[type, ...], str]] = {
  'video_id': ((str, int), 'the name or number of a video'),
  'question_id': ((str, int), 'a number'),
  'type': ((str,), 'a JSON list written as text'),
  'question_content': ((str,), 'a text'),
  'templ_values': ((str,), 'a JSON list written as text'),
  'anser': ((str,), 'a text'),
}


class Question(TypedDict):
  """One entry of `avqa-{train,val,test}.json`."""

  video_id: str
  question_id: int
  type: str  # a JSON list of two words
  question_content: str  # with slots like <Object>
  templ_values: str  # a JSON list: the values of the slots, in order
  question_deleted: int  # always 0
  anser: str  # as released


def read(
  text: str, name: str, words_known: Sequence[str], answers: Sequence[str]
) -> list[Question]:
  """The questions of a label file.

  Args:
    text: the contents of the file, in JSON.
    name: of the file, for the message.
    words_known, answers: the vocabulary.

  Raises:
    ValueError: it is not a list of questions; or some have faults, such as unknown words, answers
      or types. Up to ten are listed.
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
  """The name of a video; if a program has converted it to a number, its zeros are restored."""
  return f'{video_id:08d}' if isinstance(video_id, int) else video_id


def _fault(question: Any, words_known: Sequence[str], answers: Sequence[str]) -> str:
  """What is wrong with an entry; '' if nothing is."""
  if missing := [name for name in FORMS if name not in question]:
    renamed = ' (it has answer)' if 'anser' in missing and 'answer' in question else ''
    return f'it lacks {", ".join(missing)}{renamed}'
  for name, (kinds, words) in FORMS.items():
    if not isinstance(question[name], kinds) or isinstance(question[name], bool):
      return f'{name} is {question[name]!r}, not {words}'
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
  """The words of a question with its slots filled, without the final '?' or wide '？'.

  Raises:
    ValueError: there are more or fewer slots than values.
  """
  filled = question['question_content'].strip().split(' ')
  filled[-1] = filled[-1][:-1]
  values = json.loads(question['templ_values'])
  slots = [i for i, word in enumerate(filled) if '<' in word]
  if len(slots) != len(values):
    raise ValueError(
      f'question {question["question_id"]}: {len(slots)} slots in '
      f'{question["question_content"]!r}, but {len(values)} values {values}.'
    )
  for i, value in zip(slots, values):
    filled[i] = value
  return filled


def encode(question: Question, vocabulary: Sequence[str]) -> Int32[np.ndarray, '14']:
  """The indices of the words in the vocabulary, padded at the end with 0.

  Raises:
    ValueError: a word is not in the vocabulary, or the question is too long.
  """
  asked = words(question)
  unknown = [word for word in asked if word not in vocabulary]
  if unknown or len(asked) > LENGTH:
    raise ValueError(
      f'question {question["question_id"]} has {len(asked)} words, of {LENGTH}, and '
      f'the words {unknown} that are not in the vocabulary: {" ".join(asked)!r}.'
    )
  return _indices(asked, vocabulary)


def _indices(question: Sequence[str], vocabulary: Sequence[str]) -> Int32[np.ndarray, '14']:
  indices = [vocabulary.index(word) for word in question]
  return np.array(indices + [0] * (LENGTH - len(indices)), np.int32)


def type_in(text: str, vocabulary: Sequence[str]) -> Int32[np.ndarray, '14']:
  """The indices of the words of a question as a user types it, in upper or lower case.

  Raises:
    ValueError: it has no words, too many or unknown ones, for which similar known ones are named.
  """
  typed = text.strip().rstrip('?？').split()
  known = {word.lower(): word for word in reversed(vocabulary[1:])}
  unknown = [word for word in typed if word.lower() not in known]
  if unknown:
    near = (
      '{!r} (near to it: {})'.format(
        word,
        ', '.join(known[name] for name in difflib.get_close_matches(word.lower(), known, 3, 0)),
      )
      for word in unknown
    )
    raise ValueError(f'The model does not know {"; ".join(near)} in {text!r}.')
  if not 0 < len(typed) <= LENGTH:
    raise ValueError(f'{text!r} has {len(typed)} words; a question has 1 to {LENGTH}.')
  spelled = [word if word in vocabulary[1:] else known[word.lower()] for word in typed]
  return _indices(spelled, vocabulary)


def vocabulary(questions: Iterable[Question]) -> tuple[list[str], list[str]]:
  """(words, answers) in the order of their first appearance; the first word is the padding."""
  known, answers = [PAD], []
  for question in questions:
    known += words(question)
    answers.append(question['anser'])
  return list(dict.fromkeys(known)), list(dict.fromkeys(answers))


@dataclasses.dataclass(frozen=True)
class Asked:
  """Records of clips with their questions.

  A record has the fields of its clip, and `question` [q 14], the indices of the words, `answer` [q]
  and `kind` [q], the index in `KINDS`.
  """

  clips: Source
  questions: list[Question]
  places: list[int]  # the index of the clip of each question
  words: list[str]
  answers: list[str]
  at_once: int = 1  # questions in a record

  @functools.cached_property
  def groups(self) -> list[list[int]]:
    """The indices of the questions of each record, `at_once` many, all about one clip.

    If a clip has too few questions for its last record, some are repeated.
    """
    about = collections.defaultdict(list)
    for number, place in enumerate(self.places):
      about[place].append(number)
    groups: list[list[int]] = []
    for numbers in about.values():
      records_of_clip = -(-len(numbers) // self.at_once)
      groups += [
        np.resize(numbers[i::records_of_clip], self.at_once).tolist()
        for i in range(records_of_clip)
      ]
    return sorted(groups)

  def __len__(self) -> int:
    return len(self.groups)

  def clip_of(self, index: int) -> int:
    """The index of the clip of a record."""
    return self.places[self.groups[index][0]]

  def __getitem__(self, index: int) -> records.Record:
    asked = [self.questions[number] for number in self.groups[index]]
    answers = [self.answers.index(question['anser']) for question in asked]
    kinds = [KINDS.index(tuple(json.loads(question['type']))) for question in asked]
    return self.clips[self.clip_of(index)] | {
      'question': np.stack([encode(question, self.words) for question in asked]),
      'answer': np.array(answers, np.int32),
      'kind': np.array(kinds, np.int32),
    }
