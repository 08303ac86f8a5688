"""Data sets: what a config's `data` names, opened."""

import os
from typing import Any

from dgsct_jax.data import records, shapes, stamps
from dgsct_jax.data.datasets import ave, scenes
from dgsct_jax.data.scenes import Knobs, Source

SOURCES = {'shapes': lambda media: shapes.Shapes(), 'stamps': stamps.Stamps}


def load(split: str, name: str, dir: str | os.PathLike, **recipe: Any) -> records.Records:
  """One split of the data set `name` under `dir`; with a `recipe`, scenes are composed there first.

  Args:
    recipe: `source`, 'shapes' or 'stamps', whose unpacked packages lie in the folder `media`;
      `knobs`, see `scenes.Knobs`; `clips` per split; `seed`.

  Raises:
    ValueError: it is not there; the message says how to build it.
  """
  if recipe:
    compose(name, dir, **recipe)
  return records.load(dir, name, split)


def compose(
  name: str,
  dir: str | os.PathLike,
  source: str,
  knobs: dict[str, Any],
  clips: dict[str, int],
  seed: int = 0,
  media: str = '',
) -> None:
  """Composes scenes unless they are there."""
  scenes.prepare(
    dir, scene_source(source, media), Knobs(**knobs), clips=clips, seed=seed, name=name
  )


def scene_source(source: str, media: str = '') -> Source:
  """The source of scenes of this name; it knows the names of its classes."""
  if source not in SOURCES:
    raise ValueError(f'There is no source of scenes {source!r}; choose from {tuple(SOURCES)}.')
  return SOURCES[source](media)


def class_names(name: str, source: str = '') -> tuple[str, ...]:
  """What the classes of a data set, or of scenes of a source, are called. One more is none of them."""
  known = {'ave': ave.CLASSES, 'shapes': shapes.Shapes().classes, 'stamps': tuple(stamps.CLASSES)}
  if (source or name) not in known:
    raise ValueError(
      f'The classes of the data set {source or name!r} have no names; known are '
      f'those of {tuple(known)}.'
    )
  return known[source or name]
