"""TPAVI at the first stage of S4: the n×n matrix in PyTorch beside associativity here.

python -m benchmarks.tpavi [--side=56] [--repeats=5]

One clip of five seconds, side × side pixels of 256 channels, float32, evaluation, forward pass
alone: at side 56 the matrix has 15680² numbers, 0.98 GB. The two run in turn; the median of each,
their ratio and the largest difference of the results are printed. Run it while nothing else does.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from absl import app, flags

from dgsct_jax.models.heads.avs import TPAVI

SIDE = flags.DEFINE_integer('side', 56, 'Rows and columns of the map.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Of each, in turn.')


def by_matrix(x: torch.Tensor, audio: torch.Tensor, p: dict[str, Any]) -> torch.Tensor:
  """The formula as it is written, x [b t h w d]: y = (θφᵀ/n) g, W_z with batch norm, layer norm."""
  dense = lambda name, x: x @ p[name]['kernel'] + p[name]['bias']
  heard = dense('align', audio)[:, :, None, None].expand(x.shape)
  theta, phi, g = (
    dense(name, x).flatten(1, 3) for name, x in (('theta', x), ('phi', heard), ('g', x))
  )
  weights = theta @ phi.transpose(1, 2) / theta.shape[1]
  z = dense('out', weights @ g).view(x.shape)
  z = (z - p['bn']['mean']) / torch.sqrt(p['bn']['var'] + 1e-5) * p['bn']['scale'] + p['bn']['bias']
  norm = p['norm']
  return torch.nn.functional.layer_norm(z + x, x.shape[-1:], norm['scale'], norm['bias'], 1e-5)


def main(argv: list[str]) -> None:
  """Times both, and compares what they give."""
  del argv
  rng, side = np.random.default_rng(0), SIDE.value
  x = rng.normal(size=(1, 5, side, side, 256)).astype(np.float32)
  audio = rng.normal(size=(1, 5, 128)).astype(np.float32)
  model = TPAVI()
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, audio, False))
  draw = lambda leaf: np.abs(rng.normal(0, 0.1, leaf.shape)).astype(np.float32)
  variables = jax.tree.map(draw, shapes)
  ours = jax.jit(lambda x, audio: model.apply(variables, x, audio, False)[0])
  params = jax.tree.map(torch.tensor, variables['params'])
  params['bn'] |= jax.tree.map(torch.tensor, variables['batch_stats']['bn'])
  runs = {
    'matrix': lambda: by_matrix(torch.tensor(x), torch.tensor(audio), params).numpy(),
    'associativity': lambda: np.asarray(ours(x, audio)),
  }
  with torch.inference_mode():
    difference = np.abs(runs['matrix']() - runs['associativity']()).max()  # warms up both
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS.value):
      for name, run in runs.items():
        times[name].append(seconds(run))
  median = {name: statistics.median(found) for name, found in times.items()}
  for name, found in median.items():
    print(f'{name}: {found:.4f} s, median of {REPEATS.value}, {5 * side**2} pixels')
  print(
    f'ratio {median["matrix"] / median["associativity"]:.0f}, differ by at most {difference:.1e}'
  )


def seconds(run: Callable[[], Any]) -> float:
  """How long a call takes."""
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


if __name__ == '__main__':
  app.run(main)
