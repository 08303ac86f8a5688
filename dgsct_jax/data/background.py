"""Pairs of pictures and sounds that do not belong together (MA-AVT's foreground mining)."""

import dataclasses

import grain
import numpy as np
from jaxtyping import Int

from dgsct_jax.data.pipeline import Source
from dgsct_jax.data.transforms import Example

MODES = ('mismatch', 'label_only')
TRIES = 1000


@dataclasses.dataclass(frozen=True)
class Mismatch(grain.transforms.RandomMap):
  """Now and then gives a record's sound the pictures of another class, and the label background.

  Before frames are decoded; `label` is an integer or one per segment.

  classes: their number, which is the label of background. probability: as released, 0.2.
  mode: 'label_only', as released, leaves the pictures and changes the label alone. A classifier can
    then learn no more than how often that happens, and the pairs are lost to the others.
  """

  records: Source
  classes: int
  probability: float = 0.2
  mode: str = 'mismatch'

  def __post_init__(self):
    if self.mode not in MODES:
      raise ValueError(f'bg_mode is {self.mode!r}; set one of {", ".join(MODES)}.')

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    """Keeps the example with probability 1 − `probability`. Raises ValueError; see `other`."""
    if rng.random() >= self.probability:
      return example
    label = np.asarray(example['label'])
    background = example | {'label': np.full_like(label, self.classes)}
    if self.mode == 'label_only':
      return background
    return background | {'frames': self.other(label, rng)['frames']}

  def other(self, label: Int[np.ndarray, '*t'], rng: np.random.Generator) -> Example:
    """A record, uniform over those that have no class in common with a label.

    Raises:
      ValueError: none is found.
    """
    own = set(label.ravel().tolist()) - {self.classes}
    for _ in range(TRIES):
      record = self.records[int(rng.integers(len(self.records)))]
      if own.isdisjoint(np.ravel(record['label']).tolist()):
        return record
    raise ValueError(
      f"bg_mode='mismatch' found none of another class than {sorted(own)} among {TRIES} of"
      f" {len(self.records)} records; set 'label_only' or give data of several classes."
    )
