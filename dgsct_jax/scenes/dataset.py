"""Composed clips as a data set: frames, sound, labels, boxes and masks of `compose.py`."""

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from dgsct_jax.data import clips, kind, readers, records
from dgsct_jax.data.questions import Asked, Question
from dgsct_jax.scenes import compose, labels, questions, shapes, stamps
from dgsct_jax.scenes.compose import Knobs, Source

EACH = 200  # clips of ten seconds that take as long to compose as a process takes to start
VERSION = '1.0.0'  # must change when `compose` makes other clips from the same seed
SOURCES: dict[str, Callable[[str], Source]] = {
  'shapes': lambda media: shapes.Shapes(),
  'stamps': stamps.Stamps,
}
CLASSES = {'shapes': shapes.Shapes().classes, 'stamps': tuple(stamps.CLASSES)}


@dataclasses.dataclass(frozen=True)
class Scene:
  """One clip before it is composed."""

  id: str
  split: str
  index: int


@dataclasses.dataclass(frozen=True)
class Read:
  """Composes and encodes a clip."""

  source: Source
  knobs: Knobs
  seed: int

  def __call__(self, scene: Scene) -> records.Record:
    """The record of a clip."""
    clip = compose.compose(self.source, self.knobs, self.seed, scene.split, scene.index)
    return clip._asdict() | {
      'id': scene.id,
      'frames': [_encode(frame, 'JPEG', quality=92, subsampling=0) for frame in clip.frames],
      'masks': [_encode(mask, 'PNG') for mask in clip.masks],
      'wave': (clip.wave * 32768).round().astype(np.int16),
    }


def features(knobs: Knobs, classes: int) -> dict[str, tfds.features.FeatureConnector]:
  """The fields of a record; names and axes are those of `compose.Composed`."""
  array = lambda dtype, *shape: tfds.features.Tensor(shape=shape, dtype=dtype)
  t, k = knobs.segments, knobs.objects
  return {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,  # JPEG
    'masks': records.IMAGES,  # PNG of one channel
    'boxes': array(np.float32, t * knobs.frames_per_second, k, 4),
    'wave': records.wave(t * knobs.sample_rate),
    'sources': array(np.int32, k + 1),
    'visible': array(np.bool_, t, k),
    'sounding': array(np.bool_, t, k + 1),
    'level': array(np.float32, k + 1),
    'seen': array(np.bool_, t, classes),
    'heard': array(np.bool_, t, classes),
    'label': array(np.int32, t),
  }


def recipe(
  source: Source, knobs: Knobs, clips: dict[str, int], *, seed: int = 0, name: str = 'scenes'
) -> records.Recipe:
  """The data set of the first `clips[split]` clips of each split; `name` is its folder's."""
  return records.Recipe(
    name=name,
    version=VERSION,
    features=features(knobs, len(source.classes)),
    splits={
      split: [Scene(f'{split}_{i:06d}', split, i) for i in range(count)]
      for split, count in clips.items()
    },
    read=Read(source, knobs, seed),
  )


def prepare(
  directory: str | os.PathLike,
  source: Source,
  knobs: Knobs | None = None,
  *,
  clips: dict[str, int],
  seed: int = 0,
  name: str = 'scenes',
  workers: int = 0,
) -> Path:
  """Builds `directory/name` unless it is there; `records.load(directory, name, split)` reads it.

  Raises:
    ValueError: the folder holds clips of another source, other knobs, counts or another seed.
  """
  made = recipe(source, knobs or Knobs(), clips, seed=seed, name=name)
  return records.write(made, directory, workers=workers)


def load(fields: Any, split: str) -> records.Records:
  """One split; all splits are composed first unless they exist.

  Args:
    fields: `source`, 'shapes' or 'stamps', whose unpacked packages lie in the folder `media`;
      `knobs`, see `compose.Knobs`; `clips` per split; `seed`; `dir` and `name`.
  """
  classes(fields)  # for its error message
  source, knobs = SOURCES[fields.source](fields.media), Knobs(**fields.knobs)
  counts = dict(fields.clips)
  workers = readers.worthwhile(sum(counts.values()), each=EACH)
  prepare(
    fields.dir, source, knobs, clips=counts, seed=fields.seed, name=fields.name, workers=workers
  )
  return records.load(fields.dir, fields.name, split)


def classes(fields: Any) -> tuple[str, ...]:
  """The names of the classes of a source."""
  if fields.source not in CLASSES:
    raise ValueError(
      f'config.data.source is {fields.source!r}; choose one of {", ".join(CLASSES)}.'
    )
  return CLASSES[fields.source]


def load_questions(fields: Any, split: str) -> Asked:
  """`fields.each[split]` questions of every type about each clip, written unless they exist.

  They are stored beside the clips in the format of MUSIC-AVQA; the name of the file has the
  settings.
  """
  clips, each, seed = load(fields, split), fields.each[split], fields.seed
  path = clips.folder / f'questions-{split}-each{each}-seed{seed}.json'
  names = classes(fields)
  if not path.exists():
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(json.dumps(write_questions(clips, names, split, fields.knobs.size, seed, each)))
    part.rename(path)
  asked = json.loads(path.read_text())
  place = {clip: i for i, clip in enumerate(clips.ids)}
  unknown = sorted({question['video_id'] for question in asked} - place.keys())
  if unknown:
    raise ValueError(
      f'{path} asks about {len(unknown)} clips that {fields.name!r} does not have, first'
      f' {unknown[0]!r}: it belongs to other clips. Remove it.'
    )
  return Asked(
    clips, asked, [place[question['video_id']] for question in asked], *vocabulary(fields)
  )


def write_questions(
  clips: records.Records,
  names: tuple[str, ...],
  split: str,
  width: int,
  seed: int = 0,
  each: int = 1,
) -> list[Question]:
  """Questions about all clips; a `video_id` is the id of a record.

  Args:
    names: of the classes.
    width: of the pictures, in pixels.
    each: the most questions of each type about a clip; some clips permit fewer.
  """
  asked: list[Question] = []
  for i in range(len(clips)):
    rng = np.random.default_rng((seed, compose.SPLITS.index(split), i))
    clip = clips[i]
    for question in questions.about(clip, names, width, clip['id'], rng, each):
      asked.append(question | {'question_id': len(asked)})
  return asked


def vocabulary(fields: Any) -> tuple[list[str], list[str]]:
  """All words and answers that questions about a source may have."""
  return questions.vocabulary(classes(fields))


def windows(fields: Any, length: float) -> list[clips.Window]:
  """Consecutive windows of as many seconds as a composed clip, pictures from their middles."""
  return clips.consecutive(length, clips.middles(fields.knobs.segments))


def _encode(image: UInt8[np.ndarray, 'h w *c'], form: str, **options: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, form, **options)
  return file.getvalue()


KIND = kind.Kind(
  classes=classes,
  windows=windows,
  load=load,
  side=lambda fields: fields.knobs.size,
  parsing=(labels.Parsing(),),
  masks=lambda split: (labels.SoundingMasks(),),
  vocabulary=vocabulary,
  questions=load_questions,
)
# A question is about a whole file, so the model gets seconds that are spread over it.
QUESTIONS = dataclasses.replace(
  KIND, windows=lambda fields, length: [clips.spread(length, fields.knobs.segments)]
)
