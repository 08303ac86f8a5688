"""Maps at another size, as torch resizes them: one matrix for the rows and one for the columns."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from dgsct_jax.cubic import cubic_matrix


def resize(
  x: Float[Array, '*b h w c'], rows: Float32[np.ndarray, 'y h'], columns: Float32[np.ndarray, 'x w']
) -> Float[Array, '*b y x c']:
  """The map whose rows and columns are these mixtures of the old ones."""
  matrices = (jnp.asarray(matrix, x.dtype) for matrix in (rows, columns))
  return jnp.einsum('yh,xw,...hwc->...yxc', *matrices, x, precision='highest')


def bicubic(x: Float[Array, '*b h w c'], size: tuple[int, int]) -> Float[Array, '*b y x c']:
  """Pixel centres, a = −0.75, no antialiasing."""
  h, w = x.shape[-3:-1]
  return resize(x, cubic_matrix(h, size[0]), cubic_matrix(w, size[1]))


def bilinear(
  x: Float[Array, '*b h w c'], size: tuple[int, int], align_corners: bool = False
) -> Float[Array, '*b y x c']:
  """Corner pixels stay at the corners with `align_corners`, else pixels are areas."""
  h, w = x.shape[-3:-1]
  return resize(
    x, linear_matrix(h, size[0], align_corners), linear_matrix(w, size[1], align_corners)
  )


def average(x: Float[Array, '*b h w c'], size: tuple[int, int]) -> Float[Array, '*b y x c']:
  """Means over blocks; those of sizes that do not divide overlap (adaptive average pooling)."""
  h, w = x.shape[-3:-1]
  return resize(x, mean_matrix(h, size[0]), mean_matrix(w, size[1]))


def linear_matrix(
  size: int, out: int, align_corners: bool = False
) -> Float32[np.ndarray, 'out size']:
  """Weights that resample `size` points to `out` linearly; coordinates are float32 like torch's."""
  to = np.arange(out, dtype=np.float32)
  if align_corners:
    at = to * np.float32((size - 1) / max(out - 1, 1))
  else:
    at = (to + np.float32(0.5)) * np.float32(size / out) - np.float32(0.5)
  at = np.clip(at, 0, size - 1)
  return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)))


def mean_matrix(size: int, out: int) -> Float32[np.ndarray, 'out size']:
  """Weights that average the points between ⌊i·size/out⌋ and ⌈(i + 1)·size/out⌉."""
  first, at = np.arange(out)[:, None], np.arange(size)
  inside = (at >= first * size // out) & (at < -(-(first + 1) * size // out))
  return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
