"""Batches that mean nothing, for measurements."""

from collections.abc import Mapping

import jax
import numpy as np


def random_batch(
  spec: Mapping[str, jax.ShapeDtypeStruct], clips: int, seed: int = 0
) -> dict[str, np.ndarray]:
  """A batch of the fields of some clips: noise where they are floating, else zeros."""
  rng = np.random.default_rng(seed)
  batch = {'index': np.arange(clips, dtype=np.int32), 'valid': np.ones(clips, np.float32)}
  for name, leaf in spec.items():
    if np.issubdtype(leaf.dtype, np.floating):
      batch[name] = (0.1 * rng.standard_normal((clips, *leaf.shape))).astype(leaf.dtype)
    else:
      batch[name] = np.zeros((clips, *leaf.shape), leaf.dtype)
  return batch
