"""Windows: tiling, cyclic shifts and relative positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import windows


def pixels(h: int, w: int, d: int = 2) -> np.ndarray:
  return np.random.default_rng(0).normal(size=(3, h * w, d)).astype(np.float32)


@pytest.mark.parametrize(
  'grid, window, shift',
  [
    ((8, 8), (4, 4), (0, 0)),
    ((8, 8), (4, 4), (2, 2)),
    ((8, 12), (4, 4), (2, 2)),
    ((4, 8), (4, 4), (0, 2)),
    ((6, 4), (2, 4), (1, 0)),
    ((5, 7), (5, 7), (0, 0)),
  ],
)
def test_tokens_return_to_their_places(grid, window, shift):
  x = pixels(*grid)
  y = windows.attend(lambda x, mask: x, jnp.asarray(x), grid, window, shift)
  np.testing.assert_array_equal(y, x)


def test_windows_are_cut_row_by_row_from_the_rolled_grid():
  seen = []

  def attention(x, mask):
    seen.append((np.asarray(x), np.asarray(mask)))
    return x

  x = jnp.arange(24.0)[None, :, None]
  windows.attend(attention, x, (4, 6), (2, 3), (1, 2))
  ((x, mask),) = seen
  rolled = np.roll(np.arange(24).reshape(4, 6), (-1, -2), (0, 1))
  expected = [rolled[i : i + 2, j : j + 3].reshape(-1) for i in (0, 2) for j in (0, 3)]
  np.testing.assert_array_equal(x[0, :, :, 0], expected)
  assert mask.shape == (4, 6, 6)


def test_only_shifted_windows_have_a_mask():
  masks = []
  attention = lambda x, mask: masks.append(mask) or x
  windows.attend(attention, jnp.ones((1, 16, 1)), (4, 4), (2, 2), (0, 0))
  windows.attend(attention, jnp.ones((1, 16, 1)), (4, 4), (4, 4), (0, 0))
  assert masks == [None, None]


@pytest.mark.parametrize(
  'grid, window, shift, counts',
  [
    ((48, 48), 12, 6, {3: 10368, 7: 10368, 11: 10368, 12: 10368, 13: 10368, 14: 10368, 15: 15552}),
    ((24, 24), 12, 6, {1: 10368, 2: 10368, 3: 15552}),
  ],
)
def test_shift_masks_of_swin_hide_as_many_pairs_as_the_release(grid, window, shift, counts):
  mask = windows.shift_mask(grid, (window, window), (shift, shift))
  assert mask.shape == (grid[0] * grid[1] // window**2, window**2, window**2)
  assert set(np.unique(mask)) == {-100, 0}
  hidden = (mask == -100).sum((1, 2))
  assert {i: int(n) for i, n in enumerate(hidden) if n} == counts


@pytest.mark.parametrize('side, hidden', [(64, 64), (32, 16), (16, 4)])
def test_shift_masks_of_htsat_have_the_shapes_of_the_release(side, hidden):
  mask = windows.shift_mask((side, side), (8, 8), (4, 4))
  assert mask.shape == (hidden, 64, 64)
  per_side = side // 8
  border = {i for i in range(per_side**2) if per_side - 1 in divmod(i, per_side)}
  assert {i for i in range(hidden) if mask[i].any()} == border


@pytest.mark.parametrize(
  'grid, window, shift',
  [((6, 9), (3, 3), (1, 1)), ((4, 8), (4, 4), (0, 2)), ((8, 4), (2, 4), (1, 0))],
)
def test_a_shifted_window_sees_only_what_was_together_before_the_roll(grid, window, shift):
  # Two tokens of a window may meet where they are as far apart on the grid as within the window.
  position = np.stack(np.mgrid[: grid[0], : grid[1]], -1)
  rolled = np.roll(position, (-shift[0], -shift[1]), (0, 1))
  p, q = window
  cut = lambda x: x.reshape(grid[0] // p, p, -1, q, 2).swapaxes(1, 2).reshape(-1, p * q, 2)
  before, inside = cut(rolled), cut(position)
  apart = lambda x: x[:, :, None] - x[:, None]
  together = (apart(before) == apart(inside)).all(-1)
  np.testing.assert_array_equal(windows.shift_mask(grid, window, shift) == 0, together)


@pytest.mark.parametrize(
  'side, expected',
  [
    (12, {(0, 0): 264, (0, 1): 263, (1, 0): 265, (0, 143): 0, (143, 0): 528, (0, 12): 241}),
    (8, {(0, 0): 112, (0, 1): 111, (1, 0): 113, (0, 63): 0, (63, 0): 224}),
  ],
)
def test_relative_positions_have_the_released_rows(side, expected):
  index = windows.relative_index((side, side))
  assert {at: int(index[at]) for at in expected} == expected


@pytest.mark.parametrize('window', [(3, 3), (2, 5)])
def test_relative_positions_number_the_offsets_in_order(window):
  p, q = window
  index = windows.relative_index(window)
  offsets = [(i, j) for i in range(1 - p, p) for j in range(1 - q, q)]
  for a in range(p * q):
    for b in range(p * q):
      assert offsets[index[a, b]] == (a // q - b // q, a % q - b % q)


LOG_12 = [
  0,
  0.262832,
  0.431819,
  0.556617,
  0.655611,
  0.737665,
  0.807737,
  0.868886,
  0.923129,
  0.971869,
  1.016121,
  1.056642,
]
LOG_6 = [0, 0.459504, 0.690130, 0.845351, 0.962508, 1.056642]


@pytest.mark.parametrize('side, values', [(12, LOG_12), (6, LOG_6)])
def test_log_offsets_have_the_released_values(side, values):
  table = windows.log_offsets((side, side)).reshape(2 * side - 1, 2 * side - 1, 2)
  np.testing.assert_allclose(table[side - 1 :, 0, 0], values, atol=1e-6)
  np.testing.assert_allclose(table[0, side - 1 :, 1], values, atol=1e-6)
  np.testing.assert_array_equal(table, -table[::-1, ::-1])


def test_log_offsets_follow_the_order_of_relative_positions():
  window = (3, 4)
  index = windows.relative_index(window)
  table = windows.log_offsets(window, pretrained=3)
  row, column = (axis.reshape(-1) for axis in np.mgrid[:3, :4])
  scaled = lambda x: np.sign(x) * np.log2(1 + 4 * np.abs(x)) / 3
  apart = lambda x: x[:, None] - x
  expected = scaled(np.stack([apart(row), apart(column)], -1))
  np.testing.assert_allclose(table[index], expected, rtol=1e-6, atol=1e-6)


def test_offsets_beyond_the_pretrained_window_exceed_those_within():
  own, wider = windows.log_offsets((24, 24)), windows.log_offsets((24, 24), pretrained=12)
  assert np.abs(own).max() == pytest.approx(1.056642, abs=1e-6)
  assert np.abs(wider).max() == pytest.approx(np.log2(8 * 23 / 11 + 1) / 3, abs=1e-6)


@pytest.mark.parametrize(
  'grid, window, shift, expected',
  [
    ((48, 48), 12, 6, ((12, 12), (6, 6))),
    ((12, 12), 12, 6, ((12, 12), (0, 0))),
    ((6, 6), 12, 6, ((6, 6), (0, 0))),
    ((24, 12), 12, 6, ((12, 12), (6, 0))),
    ((7, 24), 12, 6, ((7, 12), (0, 6))),
    ((24, 24), 12, 0, ((12, 12), (0, 0))),
  ],
)
def test_axes_no_longer_than_the_window_do_not_shift(grid, window, shift, expected):
  assert windows.clamp(grid, window, shift) == expected


@pytest.mark.parametrize('grid', [(13, 12), (12, 20), (18, 18)])
def test_grids_that_windows_do_not_tile_are_refused(grid):
  with pytest.raises(ValueError, match=f'{grid[0]}×{grid[1]} tokens does not divide .* 12; choose'):
    windows.clamp(grid, 12, 6)
