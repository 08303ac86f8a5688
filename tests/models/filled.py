"""Variables of a model from its shapes: drawing initial values compiles, these do not."""

import math
import zlib
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.models import lazy


def variables(model: nn.Module, *args: Any, gates: float | None = None, **kwargs: Any) -> tree.Tree:
  """Random values of the right size for every variable, a function of its path and shape alone.

  gates: the value of the adapters' `gate` and `tokens_gate`, at random if None.
  """
  leaves = tree.flatten(lazy.shapes(model, *args, **kwargs))
  values = {path: value(path, leaf.shape, gates) for path, leaf in leaves.items()}
  return tree.unflatten(jax.device_put(values))  # `jnp.asarray` compiles, too


def value(path: str, shape: tuple[int, ...], gates: float | None) -> np.ndarray:
  name = path.split('/')[-1]
  if gates is not None and name in ('gate', 'tokens_gate'):
    return np.full(shape, gates, np.float32)
  x = np.random.default_rng(zlib.crc32(f'{path} {shape}'.encode())).normal(size=shape)
  if name in ('scale', 'var'):
    x = np.exp(0.1 * x)
  elif name == 'logit_scale':
    x = 2.3 + 0.1 * x
  elif name in ('gate', 'tokens_gate'):
    x = 0.5 + 0.1 * x
  elif name == 'mel_basis':
    x = np.abs(x) / shape[0]
  elif 'kernel' in name or name.startswith('stft'):
    fan_in = shape[-2] if 'down' in path or 'up' in path else math.prod(shape[:-1])
    x = x / math.sqrt(fan_in)
  elif name == 'tokens':
    x = np.abs(x)
  else:
    x = 0.1 * x
  return x.astype(np.float32)
