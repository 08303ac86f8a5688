"""Cubic interpolation as torch has it, in numpy: its kernel, and resampling as a matrix."""

import numpy as np
from jaxtyping import Float32

A = -0.75  # Keys' parameter as torch has it; Pillow and jax.image use -0.5.


def cubic_matrix(
  size: int, out: int, align_corners: bool = False
) -> Float32[np.ndarray, 'out size']:
  """Weights that resample `size` points to `out` as torch's bicubic does, without antialiasing.

  Borders are clamped. `align_corners=True` maps the end points onto each other (HTS-AT's stretch of
  the time axis); otherwise points are pixel centres (torchvision's resize of a float tensor).
  Coordinates are float32 like torch's.
  """
  if align_corners:
    at = np.arange(out, dtype=np.float32) * np.float32((size - 1) / max(out - 1, 1))
  else:
    half = np.float32(0.5)
    at = (np.arange(out, dtype=np.float32) + half) * np.float32(size / out) - half
  left = np.floor(at)
  matrix = np.zeros((out, size), np.float32)
  for tap in (-1, 0, 1, 2):
    weight = _kernel(np.abs(at - left - tap))
    index = np.clip(left.astype(int) + tap, 0, size - 1)
    np.add.at(matrix, (np.arange(out), index), weight)
  return matrix


def _kernel(distance: Float32[np.ndarray, '*n']) -> Float32[np.ndarray, '*n']:
  """The weight of a point at a distance of 0 to 2 points."""
  near = ((A + 2) * distance - (A + 3)) * distance**2 + 1
  far = ((A * distance - 5 * A) * distance + 8 * A) * distance - 4 * A
  return np.where(distance <= 1, near, far)
