"""What a data set provides for building, training, evaluation and prediction on other files."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import grain

from dgsct_jax.data import records
from dgsct_jax.data.clips import Window
from dgsct_jax.data.questions import Asked

Fields = Any  # `config.data`
Totals = list[tuple[str, int, int]]  # (what, listed, usable)


def load(fields: Fields, split: str) -> records.Records:
  """One split of a built data set. Raises ValueError if there is none."""
  return records.load(fields.dir, fields.name, split)


def of_splits(recipe: records.Recipe, usable: Mapping[str, Collection[str]]) -> Totals:
  """The totals of the clips of each split."""
  return [(split, len(clips), len(usable[split])) for split, clips in recipe.splits.items()]


@dataclasses.dataclass(frozen=True)
class Kind:
  """One data set, or one way of composing clips.

  classes: names of its classes; the label after the last one stands for no class.
  windows: the length of a file in seconds -> windows of it, cut as the data set is cut.
  recipe: from a folder of files to what `prepare` builds; keyword arguments are rules of cutting.
  published: the numbers of clips that should be there, by the names of `totals`.
  load: reads one split. side: the maximum of the shorter side of stored frames.
  parsing, masks: transforms that make of a record the labels of audio-visual parsing (`label` [c],
    `audio` and `visual` [t c]) or of segmentation (`masks` [t h w]; may differ between splits).
  vocabulary: words and answers. questions: those of a split, each with its clip.
  """

  classes: Callable[[Fields], tuple[str, ...]]
  windows: Callable[[Fields, float], list[Window]]
  recipe: Callable[..., records.Recipe] | None = None
  published: Mapping[str, int] = dataclasses.field(default_factory=dict)
  totals: Callable[[records.Recipe, Mapping[str, Collection[str]]], Totals] = of_splits
  load: Callable[[Fields, str], records.Records] = load
  side: Callable[[Fields], int] = lambda fields: 256
  parsing: tuple[grain.transforms.Map, ...] | None = None
  masks: Callable[[str], tuple[grain.transforms.Map, ...]] | None = None
  vocabulary: Callable[[Fields], tuple[list[str], list[str]]] | None = None
  questions: Callable[[Fields, str], Asked] | None = None
