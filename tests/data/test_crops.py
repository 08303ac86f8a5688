"""Whole pictures and random parts of them as squares."""

import io

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data.crops import RandomPart, Whole, part
from dgsct_jax.data.transforms import DecodeFrames

WIDE = np.add.outer(np.arange(30), np.arange(50))[..., None] * np.ones(3)


def png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(file, 'PNG')
  return file.getvalue()


def test_the_whole_picture_is_stretched_as_pillow_does_it():
  (found,) = Whole(16).map({'frames': [png(WIDE)]})['frames']
  image = Image.fromarray(WIDE.astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(found, image)


def test_what_is_decoded_is_only_normalised():
  example = Whole(16).map({'frames': [png(WIDE)]})
  video = DecodeFrames(16, (0.5,) * 3, (0.5,) * 3).map(example)['video']
  np.testing.assert_allclose(video[0], example['frames'][0] / 127.5 - 1, atol=1e-6)


def test_parts_lie_within_the_picture_and_are_of_all_sizes():
  rng = np.random.default_rng(0)
  boxes = np.array([part(50, 30, rng) for _ in range(2000)])
  left, top, right, bottom = boxes.T
  assert (left >= 0).all() and (top >= 0).all() and (right <= 50).all() and (bottom <= 30).all()
  area = (right - left) * (bottom - top) / 1500
  assert area.min() < 0.12 and area.max() > 0.75
  ratio = (right - left) / (bottom - top)
  assert 0.6 < ratio.min() < 0.9 and 1.1 < ratio.max() < 1.6


def test_of_a_very_flat_picture_the_middle_is_left():
  assert part(1000, 3, np.random.default_rng(0)) == (498, 0, 502, 3)


def test_every_second_part_is_mirrored():
  slope = png(np.broadcast_to(5 * np.arange(50)[:, None], (30, 50, 3)))
  rng, transform = np.random.default_rng(0), RandomPart(8)
  found = [transform.random_map({'frames': [slope]}, rng)['frames'][0] for _ in range(300)]
  assert all(x.shape == (8, 8, 3) for x in found)
  rising = np.mean([int(x[0, -1, 0]) > int(x[0, 0, 0]) for x in found])
  assert rising == pytest.approx(0.5, abs=0.08)


def test_a_picture_that_cannot_be_read_is_named():
  for transform in (Whole(8).map, lambda x: RandomPart(8).random_map(x, np.random.default_rng(0))):
    with pytest.raises(ValueError, match="record 'a': frame 1 is not a readable picture"):
      transform({'id': 'a', 'frames': [png(WIDE), b'no']})
