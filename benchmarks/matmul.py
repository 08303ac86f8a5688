"""The rate of a large matrix product on one device, the most that a model can reach on it.

python -m benchmarks.matmul [--dtype=bfloat16] [--size=8192] [--repeats=20] [--json=FILE]
"""

import json
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import step_time

DTYPE = flags.DEFINE_string('dtype', 'bfloat16', 'Of both factors and the product.')
SIZE = flags.DEFINE_integer('size', 8192, 'Rows and columns of the factors.', lower_bound=1)


def main(argv: list[str]) -> None:
  """Prints FLOP/s, the median of the runs."""
  del argv
  n = SIZE.value
  x = jax.random.normal(jax.random.key(0), (n, n), DTYPE.value)
  product = jax.jit(jnp.dot)
  step_time.seconds_of(lambda: product(x, x))
  repeats = range(step_time.REPEATS.value)
  seconds = statistics.median(step_time.seconds_of(lambda: product(x, x)) for _ in repeats)
  device = jax.devices()[0].device_kind
  rate = 2 * n**3 / seconds
  print(f'{device}: {rate / 1e12:.2f} TFLOP/s, {DTYPE.value}, {n} × {n} × {n}')
  if step_time.JSON.value:
    Path(step_time.JSON.value).write_text(json.dumps({'flops_per_second': rate, 'device': device}))


if __name__ == '__main__':
  app.run(main)
