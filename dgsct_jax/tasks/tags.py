"""Tags: what is seen and what is heard in each second, by classifiers that are trained already."""

import ast
import csv
import functools
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float

from dgsct_jax import hub, models
from dgsct_jax.data import datasets, files
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads.tags import Tags
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual
from dgsct_jax.tasks.task import Task, View
from dgsct_jax.tracks import Bars, Frames, Spectrum

MOST = 3  # tags of a second that are told


def build(config: ml_collections.ConfigDict) -> Task:
  """The classifiers of `config.model.visual` and `.audio`.

  `config.data.seen`, `config.data.heard`: the files with the names of their classes, see `names`.
  `config.data.least`: the probability from which a tag is told.
  """
  visual, audio = models.build_visual(config.model), models.build_audio(config.model)
  for stream, backbone in (('visual', visual), ('audio', audio)):
    if not hasattr(backbone, 'classify'):
      raise ValueError(
        f'config.model.{stream}.kind is {config.model[stream].kind!r}, which has no classifier;'
        " choose 'efficientnet_lite' and 'yamnet'."
      )
  called = {
    'seen': functools.cache(lambda: names(config.data.seen, visual.classes)),
    'heard': functools.cache(lambda: names(config.data.heard, audio.classes)),
  }
  return Task(
    model=Tags(visual, audio),
    loss=_untrained,
    metrics=_untrained,
    data=lambda split: Dataset(datasets.of(config.data).load(config.data, split)),
    primary='accuracy',
    inputs=audio_visual(config, DualEncoder(visual, audio)),
    show=lambda clip, outputs: show(
      clip, outputs, {stream: get() for stream, get in called.items()}, config.data.least
    ),
  )


def _untrained(*given: Any) -> Any:
  raise ValueError('Tags are neither trained nor scored; give files to `dgsct_jax.predict`.')


def names(given: str, classes: int) -> tuple[str, ...]:
  """The names of classes in a file, as `hub.fetch` takes it.

  A .csv has them in its column `display_name`; a .py assigns them to IMAGENET_CLASSNAMES, and is
  read, not run; any other file has one in each line.

  Raises:
    ValueError: the file has no such names, or another number of them.
  """
  path = hub.fetch(given)
  if path.suffix == '.csv':
    rows = csv.DictReader(files.read_text(path).splitlines())
    found = tuple(row['display_name'] for row in rows if row.get('display_name'))
  elif path.suffix == '.py':
    found = _assigned(path, 'IMAGENET_CLASSNAMES')
  else:
    found = tuple(name for _, name in files.lines(path))
  if len(found) != classes:
    raise ValueError(f'{path} has {len(found)} names; the classifier has {classes} classes.')
  return found


def _assigned(path: Path, name: str) -> tuple[str, ...]:
  """A literal of strings that a Python file assigns to a name."""
  try:
    for node in ast.parse(files.read_text(path)).body:
      if isinstance(node, ast.Assign) and any(ast.unparse(x) == name for x in node.targets):
        return tuple(map(str, ast.literal_eval(node.value)))
  except (SyntaxError, ValueError) as error:
    raise ValueError(f'{path} cannot be read ({error}).') from error
  return ()


def show(
  clip: Clip, outputs: dict[str, np.ndarray], called: dict[str, tuple[str, ...]], least: float
) -> View:
  """The likeliest tags of each second. A black picture and a silent second have none."""
  probability = {
    'seen': views.softmax(clip.join(outputs['seen'])),
    'heard': views.sigmoid(clip.join(outputs['heard'])),
  }
  there = views.present(clip)
  rows = [
    {'second': second}
    | {
      stream: best(probability[stream][i], called[stream], least) if here else []
      for stream, here in zip(called, there[i])
    }
    for i, second in enumerate(clip.seconds)
  ]
  lines = tuple(line(row) for row in rows)
  assert clip.frames is not None and clip.wave is not None
  return View(
    name='tags',
    title=' · '.join([clip.title, *clip.notes]),
    record={'timeline': rows},
    lines=lines,
    tracks=(
      Frames('frames', clip.frames),
      bars('seen', rows),
      Spectrum('sound', clip.wave),
      bars('heard', rows),
    ),
    captions=lines,
  )


def best(p: Float[np.ndarray, 'c'], called: tuple[str, ...], least: float) -> list[dict[str, Any]]:
  """The likeliest tags from a probability on, the likeliest first."""
  order = [int(i) for i in np.argsort(-p)[:MOST] if p[i] >= least]
  return [{'tag': called[i], 'probability': round(float(p[i]), 4)} for i in order]


def bars(stream: str, rows: list[dict[str, Any]]) -> Bars:
  """The first tag of every second."""
  first = [row[stream][0]['tag'] if row[stream] else None for row in rows]
  used = tuple(dict.fromkeys(tag for tag in first if tag))
  return Bars(stream, np.array([used.index(tag) if tag else len(used) for tag in first]), used)


def line(row: dict[str, Any]) -> str:
  """A second as text: '1:07  seen zebra 0.98 · heard Speech 0.91, Music 0.40'."""
  told = lambda tags: ', '.join(f'{tag["tag"]} {tag["probability"]:.2f}' for tag in tags) or '–'
  return f'{views.clock(row["second"])}  seen {told(row["seen"])} · heard {told(row["heard"])}'
