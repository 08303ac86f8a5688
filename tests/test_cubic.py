"""Cubic interpolation against torch and the specification."""

import numpy as np
import pytest

from dgsct_jax.cubic import cubic_matrix


@pytest.mark.parametrize(
  'size, out', [(5, 5), (8, 6), (6, 8), (4, 3), (7, 20), (160, 192), (501, 1024), (1, 4)]
)
@pytest.mark.parametrize('align_corners', [False, True])
def test_the_matrix_is_torchs_bicubic_along_one_axis(size, out, align_corners):
  torch = pytest.importorskip('torch')
  x = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32)
  resize = torch.nn.functional.interpolate
  image = torch.tensor(x)[None, None]
  expected = resize(image, (out, 3), mode='bicubic', align_corners=align_corners)
  found = cubic_matrix(size, out, align_corners) @ x
  np.testing.assert_allclose(found, expected[0, 0], atol=2e-6)


def test_every_row_sums_to_one():
  for size, out, align in ((3, 9, False), (9, 3, True), (501, 1024, True)):
    np.testing.assert_allclose(cubic_matrix(size, out, align).sum(1), 1, atol=1e-6)


def test_equal_sizes_give_the_identity():
  for align in (False, True):
    np.testing.assert_array_equal(cubic_matrix(7, 7, align), np.eye(7))


def test_a_ramp_shrinks_without_antialiasing():
  matrix = cubic_matrix(4, 3)
  ramp = matrix @ np.arange(16, dtype=np.float32).reshape(4, 4) @ matrix.T
  np.testing.assert_allclose(ramp[0], [0.63079, 2.00463, 3.37847], atol=1e-5)


def test_aligned_corners_keep_the_ends():
  matrix = cubic_matrix(10, 23, align_corners=True)
  np.testing.assert_allclose(matrix[[0, -1]], np.eye(10)[[0, -1]], atol=1e-5)


def test_values_are_not_clamped():
  step = cubic_matrix(4, 8) @ np.float32([0, 0, 1, 1])
  assert step.min() < 0 and step.max() > 1
