"""Pictures of one size from pictures of any: as a whole, or a random part for training."""

import dataclasses
import math
from collections.abc import Callable

import grain
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dgsct_jax.data.transforms import Example, decode_image, name

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a part: its share of the picture, width over height
TRIES = 10
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class Whole(grain.transforms.Map):
  """Stretches `frames` to squares, before `DecodeFrames`; bilinear, antialiased."""

  size: int

  def map(self, example: Example) -> Example:
    """Raises ValueError for a picture that cannot be decoded."""
    return _resized(example, self.size, lambda width, height: (0, 0, width, height))


@dataclasses.dataclass(frozen=True)
class RandomPart(grain.transforms.RandomMap):
  """Stretches a random part of each of the `frames` to a square; every second one is mirrored.

  Its area, its ratio of sides, then its place are drawn, as torchvision's RandomResizedCrop does
  by default.
  """

  size: int

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    """Raises ValueError for a picture that cannot be decoded."""
    cut = _resized(example, self.size, lambda width, height: part(width, height, rng))
    frames = [x[:, ::-1] if rng.random() < 0.5 else x for x in cut['frames']]
    return cut | {'frames': frames}


def part(width: int, height: int, rng: np.random.Generator) -> Box:
  """A random part of a picture; the largest in its middle where none that is drawn fits."""
  for _ in range(TRIES):
    area = width * height * rng.uniform(*AREA)
    ratio = math.exp(rng.uniform(*np.log(RATIO)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
      return left, top, left + w, top + h
  w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
  left, top = (width - w) // 2, (height - h) // 2
  return left, top, left + w, top + h


def _resized(example: Example, size: int, box: Callable[[int, int], Box]) -> Example:
  frames: list[UInt8[np.ndarray, 'h w 3']] = []
  for i, encoded in enumerate(example['frames']):
    try:
      image = Image.fromarray(decode_image(encoded))
    except ValueError as error:
      raise ValueError(f'{name(example)}: frame {i} {error}.') from error
    place = box(image.width, image.height)
    frames.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, place)))
  return example | {'frames': frames}
