"""Windows of a token grid: partition, shift masks and relative positions, computed from shapes."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int

Size = tuple[int, int]
Shift = tuple[int | Int[Array, ''], int | Int[Array, '']]  # may be traced (models/repeat.py)


def clamp(grid: Size, window: int, shift: int | Int[Array, '']) -> tuple[Size, Shift]:
  """Window and shift that fit a grid.

  An axis no longer than the window is one window and does not shift. Raises ValueError where the
  windows do not tile the grid.
  """
  for axis in grid:
    if axis > window and axis % window:
      raise ValueError(
        f'A grid of {grid[0]}×{grid[1]} tokens does not divide into windows of {window}; '
        f'choose an input size whose every stage is a multiple of {window} tokens or at most that.'
      )
  rows, columns = ((min(axis, window), shift if axis > window else 0) for axis in grid)
  return (rows[0], columns[0]), (rows[1], columns[1])


def attend(
  attention: Callable[..., Array], x: Float[Array, 'b n d'], grid: Size, window: Size, shift: Shift
) -> Float[Array, 'b n d']:
  """Applies `attention(windows [b w n d], mask [w n n] or None)` to a grid's shifted windows."""
  if window == grid:
    return attention(x[:, None], None)[:, 0]
  (h, w), (p, q) = grid, window
  shifted = any(isinstance(by, Array) or by for by in shift)
  x = rearrange(x, 'b (h w) d -> b h w d', h=h, w=w)
  if shifted:
    x = jnp.roll(jnp.roll(x, -shift[0], 1), -shift[1], 2)
  x = rearrange(x, 'b (i p) (j q) d -> b (i j) (p q) d', p=p, q=q)
  x = attention(x, jnp.asarray(shift_mask(grid, window, shift)) if shifted else None)
  x = rearrange(x, 'b (i j) (p q) d -> b (i p) (j q) d', i=h // p, p=p, q=q)
  if shifted:
    x = jnp.roll(jnp.roll(x, shift[0], 1), shift[1], 2)
  return rearrange(x, 'b h w d -> b (h w) d')


def shift_mask(
  grid: Size, window: Size, shift: Shift
) -> Float32[np.ndarray, 'w n n'] | Float32[Array, 'w n n']:
  """−100 between tokens that only the cyclic shift made neighbours, 0 elsewhere."""

  def regions(size, window, shift):
    position = np.arange(size)
    return (position >= size - window).astype(np.int32) + (position >= size - shift)

  rows, columns = (regions(*axis) for axis in zip(grid, window, shift))
  ids = rearrange(
    3 * rows[:, None] + columns, '(i p) (j q) -> (i j) (p q)', p=window[0], q=window[1]
  )
  return (ids[:, :, None] != ids[:, None]) * np.float32(-100)


def relative_index(window: Size) -> Int[np.ndarray, 'n n']:
  """Row of the relative-position table for every query and key of a window."""
  p, q = window
  rows, columns = (axis.reshape(-1) for axis in np.mgrid[:p, :q])
  rows = rows[:, None] - rows + p - 1
  columns = columns[:, None] - columns + q - 1
  return rows * (2 * q - 1) + columns


def log_offsets(window: Size, pretrained: int = 0) -> Float32[np.ndarray, 'offsets 2']:
  """Swin V2's log-spaced (row, column) offsets, in the row order of `relative_index`.

  Offsets are scaled by `pretrained`, the window with which the weights were trained, or by this
  window where that is 0.
  """
  axes = []
  for size in window:
    offset = np.arange(1 - size, size, dtype=np.float32)
    offset *= np.float32(8) / max((pretrained or size) - 1, 1)
    axes.append(np.sign(offset) * np.log2(np.abs(offset) + 1) / np.float32(3))
  return np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 2).astype(np.float32)
