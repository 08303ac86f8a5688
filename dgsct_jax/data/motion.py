"""Features of motion that go into a model beside frames and sound."""

import dataclasses

import grain
import numpy as np

from dgsct_jax.data.transforms import Example, name

WIDTH = 512  # of R(2+1)D-18


@dataclasses.dataclass(frozen=True)
class Motion(grain.transforms.Map):
  """`motion`, R(2+1)D features -> float32 [t 512]. Raises ValueError where a clip has none."""

  segments: int

  def map(self, example: Example) -> Example:
    """Checks one clip."""
    remedy = (
      'write LLP_dataset/feats/r2plus1d_18/<id>.npy for every clip (docs/avvp.md) and build the'
      " data set again, or set config.model.head.motion='none'"
    )
    if 'motion' not in example:
      raise ValueError(f'{name(example)} has no motion features; {remedy}.')
    motion = np.asarray(example['motion'], np.float32)
    if motion.shape != (self.segments, WIDTH) or not np.isfinite(motion).all():
      raise ValueError(
        f'{name(example)}: the motion features have the shape {motion.shape}, or are not finite;'
        f' {(self.segments, WIDTH)} numbers are needed: {remedy}.'
      )
    return example | {'motion': motion}
