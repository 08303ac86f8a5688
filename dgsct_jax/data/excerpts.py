"""A part of a record that is longer than the model's input, in segments of several seconds."""

import dataclasses

import grain
import numpy as np

from dgsct_jax.data.records import Records, Selection
from dgsct_jax.data.transforms import Example

PICTURES = ('middle', 'first', 'any')
PLACE = 0.6  # as released: of ten seconds, five are heard from the third on


@dataclasses.dataclass(frozen=True)
class Excerpt(grain.transforms.Map):
  """Cuts `wave` and `frames`, one per second, to segments with one picture each, undecoded.

  A label of the whole clip becomes that of each segment. A record that is as long as the segments,
  with one second each, stays as it is.

  segments, seconds: how many segments of how many whole seconds. rate: of the sound.
  picture: of a segment, that in its 'middle'; or the 'first' of the record; or 'any' of the record,
    in training, and otherwise that in the middle.
  """

  segments: int
  seconds: int
  rate: int
  picture: str = 'middle'

  def __post_init__(self):
    if self.picture not in PICTURES:
      raise ValueError(
        f'config.data.picture is {self.picture!r}; choose one of {", ".join(PICTURES)}.'
      )

  def map(self, example: Example) -> Example:
    """The excerpt from a fixed place."""
    return self.cut(example, int(PLACE * self.room(example)))

  def room(self, example: Example) -> int:
    """At how many samples after the first the excerpt may start."""
    return max(0, len(example['wave']) - self.segments * self.seconds * self.rate)

  def cut(self, example: Example, start: int, rng: np.random.Generator | None = None) -> Example:
    """The excerpt from a sample on; `rng` chooses 'any' picture."""
    wave, frames = example['wave'], example['frames']
    if self.picture == 'middle' or self.picture == 'any' and rng is None:
      # As released: of the whole seconds, that in which the middle of the segment lies.
      middles = start / self.rate + self.seconds * (np.arange(self.segments) + 0.5)
      chosen = np.minimum(middles.astype(int), len(frames) - 1).tolist()
    elif self.picture == 'any' and rng is not None:
      chosen = rng.integers(len(frames), size=self.segments).tolist()
    else:
      chosen = [0] * self.segments
    found = {
      'wave': wave[start : start + self.segments * self.seconds * self.rate],
      'frames': [frames[i] for i in chosen],
    }
    if 'label' in example and np.ndim(example['label']) == 0:
      found['label'] = np.full(self.segments, example['label'], np.int32)
    return example | found


@dataclasses.dataclass(frozen=True)
class RandomExcerpt(grain.transforms.RandomMap):
  """The same from a random sample on, for training."""

  excerpt: Excerpt

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    """The excerpt from where it may start, uniformly."""
    return self.excerpt.cut(example, int(rng.integers(self.excerpt.room(example) + 1)), rng)


def hold_out(train: Records, every: int, split: str) -> Selection:
  """Of the training records every n-th as 'val', the others as 'train'. Raises ValueError."""
  if not 2 <= every <= len(train):
    raise ValueError(
      f'config.data.hold_out is {every}; to take every n-th of {len(train)} training clips for'
      ' validation, set it to 2 or more, and not above their number.'
    )
  held = split == 'val'
  return Selection(train, tuple(i for i in range(len(train)) if (i % every == 0) == held))
