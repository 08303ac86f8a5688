"""Composed clips with a question each, in the form and of the nine types of MUSIC-AVQA."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dgsct_jax.data import records, scene_questions
from dgsct_jax.data.questions import Asked


def write(
  directory: str | os.PathLike,
  name: str,
  split: str,
  classes: Sequence[str],
  width: int,
  seed: int = 0,
  each: int = 1,
) -> Path:
  """Asks about every clip of `datasets/scenes.py`; writes `directory/name/avqa-<split>.json`.

  The file has the released form; a `video_id` is the id of a record. One that is there already is
  kept: remove it together with the data set.

  Args:
    classes: names, those of the source of the clips.
    width: of their pictures.
    each: questions of each type about a clip, as many as it allows.
  """
  path = Path(directory, name, f'avqa-{split}.json')
  if path.exists():
    return path
  clips, questions = records.load(directory, name, split), []
  for i in range(len(clips)):
    rng = np.random.default_rng((seed, i))
    clip = clips[i]
    for question in scene_questions.about(clip, classes, width, clip['id'], rng, each):
      questions.append(question | {'question_id': len(questions)})
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  part.write_text(json.dumps(questions))
  part.rename(path)
  return path


def load(
  directory: str | os.PathLike,
  name: str,
  split: str,
  classes: Sequence[str],
  width: int,
  seed: int = 0,
  each: int = 1,
) -> Asked:
  """Random access to the questions of a split, each with its clip; asks them if nobody has yet."""
  path = write(directory, name, split, classes, width, seed, each)
  questions = json.loads(path.read_text())
  clips = records.load(directory, name, split)
  place = {clip: i for i, clip in enumerate(clips.ids)}
  unknown = sorted({question['video_id'] for question in questions} - place.keys())
  if unknown:
    raise ValueError(
      f'{path} asks about {len(unknown)} clips that {name!r} does not have, first '
      f'{unknown[0]!r}: it belongs to other clips. Remove it.'
    )
  return Asked(
    clips,
    questions,
    [place[question['video_id']] for question in questions],
    *scene_questions.vocabulary(classes),
  )
