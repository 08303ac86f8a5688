"""Backbones and adapters that compile in seconds, what they compute, and how it is compared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dgsct_jax.models.htsat import HTSAT
from dgsct_jax.models.layers import BatchNorm, Dense
from dgsct_jax.models.swin_v2 import SwinV2


def swin(**fields: Any) -> SwinV2:
  """A stage of 8×8 tokens in four windows, in its second block shifted, and one of 4×4."""
  tiny = dict(
    image=32, width=8, depths=(2, 1), heads=(2, 2), window=4, mlp_ratio=2.0, drop_path=0.0
  )
  return SwinV2(**tiny | fields)


def htsat(**fields: Any) -> HTSAT:
  """The same grids as `swin` from 512 samples; still in training."""
  front = dict(sample_rate=4000, n_fft=64, hop=32, mel_bins=16, fmax=2000.0, size=32)
  body = dict(width=8, depths=(2, 1), heads=(2, 2), window=4, mlp_ratio=2.0, classes=3)
  still = dict(drop_path=0.0, batch_stats=False, spec_augment=False)
  return HTSAT(**front | body | still | fields)


class Small(nn.Module):
  """An adapter with statistics that compiles fast."""

  @nn.compact
  def __call__(self, x, y, train):
    x = BatchNorm()(jnp.tanh(Dense(x.shape[-1])(x + y.mean(1, keepdims=True))), train)
    return x, jax.nn.softmax(x[:, None, :, 0])


def apart(x: jax.Array, y: jax.Array) -> float:
  """The rms of the difference over that of the second."""
  x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
  return float(np.sqrt(np.square(x - y).mean() / np.square(y).mean()))


def steps(model: nn.Module, x: jax.Array, train: bool = False) -> dict[str, Any]:
  """Tokens after the stem, every half of a block, every patch merging and the norm."""
  x = model.stem(x, train)
  seen = {'stem': x}
  for i, stage in enumerate(model.stages):
    for j, block in enumerate(stage.blocks):
      x = seen[f'attend_{i}_{j}'] = block.attend(x, train)
      x = seen[f'feed_forward_{i}_{j}'] = block.feed_forward(x, train)
    x = seen[f'downsample_{i}'] = stage.downsample(x)
  seen['norm'] = model.norm(x)
  return seen
