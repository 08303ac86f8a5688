"""What a clip is to be matched with: the labels of a record as `target`, a row over the classes."""

import dataclasses

import grain
import numpy as np

from dgsct_jax.data.transforms import Example


@dataclasses.dataclass(frozen=True)
class OfSeconds(grain.transforms.Map):
  """`label` [t], where `classes` is background -> `target` [t c], the class of each second.

  background: it is a class of its own, the last of `target`; otherwise its rows are zeros.
  """

  classes: int
  background: bool

  def map(self, example: Example) -> Example:
    """Adds the target."""
    rows = np.eye(self.classes + 1, dtype=np.float32)[example['label']]
    return example | {'target': rows if self.background else rows[:, : self.classes]}


@dataclasses.dataclass(frozen=True)
class OfClip(grain.transforms.Map):
  """`label` [t], where `classes` is background -> `target` [c], the class of the clip.

  It is that of the first second that is not background; zeros where all are, as released.
  """

  classes: int

  def map(self, example: Example) -> Example:
    """Adds the target."""
    target = np.zeros(self.classes, np.float32)
    events = example['label'][example['label'] < self.classes]
    target[events[:1]] = 1
    return example | {'target': target}


@dataclasses.dataclass(frozen=True)
class OfSet(grain.transforms.Map):
  """`label` [c], 1 for each class of the clip -> `target`, the same."""

  def map(self, example: Example) -> Example:
    """Adds the target."""
    return example | {'target': np.asarray(example['label'], np.float32)}
