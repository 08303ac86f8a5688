"""Resized maps against torch and the check values of the specification (F12)."""

import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import resize

SQUARES = np.float32([0, 1, 4, 9, 16, 25])


def row(x):
  return jnp.asarray(x, jnp.float32)[None, :, None]


@pytest.mark.parametrize(
  'found, expected',
  [
    (
      resize.bicubic(row(SQUARES), (1, 7)),
      [-0.04619169, 0.51211735, 2.48578717, 6.125, 11.38520408, 18.40661443, 25.41572522],
    ),
    (
      resize.bicubic(row([*SQUARES, 36]), (1, 6)),
      [0.05309606, 1.609375, 5.82002315, 12.57696759, 22.046875, 35.30135996],
    ),
    (
      resize.bilinear(row(SQUARES), (1, 12), align_corners=True),
      [0, 5 / 11, 10 / 11, 23 / 11, 38 / 11, 59 / 11, 84 / 11, 113 / 11, 148 / 11, 185 / 11]
      + [230 / 11, 25],
    ),
    (
      resize.bilinear(row(SQUARES), (1, 12)),
      [0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 10.75, 14.25, 18.25, 22.75, 25],
    ),
  ],
)
def test_a_row_of_squares_becomes_the_stated_numbers(found, expected):
  np.testing.assert_allclose(np.ravel(found), expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize('size', [(5, 7), (10, 14), (3, 4), (9, 1), (20, 11)])
@pytest.mark.parametrize(
  'ours, theirs',
  [
    (resize.bicubic, dict(mode='bicubic', align_corners=False)),
    (resize.bilinear, dict(mode='bilinear', align_corners=False)),
    (
      lambda x, size: resize.bilinear(x, size, align_corners=True),
      dict(mode='bilinear', align_corners=True),
    ),
    (resize.average, dict()),
  ],
)
def test_maps_of_any_size_are_resized_as_by_torch(size, ours, theirs):
  torch = pytest.importorskip('torch')
  F = torch.nn.functional
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
  image = torch.tensor(x).movedim(-1, 1)
  wanted = F.interpolate(image, size, **theirs) if theirs else F.adaptive_avg_pool2d(image, size)
  np.testing.assert_allclose(ours(jnp.asarray(x), size), wanted.movedim(1, -1), atol=1e-5)


def test_leading_axes_stay():
  x = jnp.arange(48, dtype=jnp.float32).reshape(2, 3, 2, 4, 1)
  assert resize.bicubic(x, (4, 6)).shape == (2, 3, 4, 6, 1)
  np.testing.assert_array_equal(resize.bicubic(x, (2, 4)), x)


def test_blocks_that_divide_are_plain_means():
  x = jnp.arange(16, dtype=jnp.float32).reshape(4, 4, 1)
  np.testing.assert_array_equal(resize.average(x, (2, 2))[..., 0], [[2.5, 4.5], [10.5, 12.5]])
