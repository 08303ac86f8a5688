#!/bin/bash
# jax 0.10.2 on a CPU: a depthwise convolution takes several times as long as the same sum written out.
#
# Expected: `lax.conv_general_dilated` with feature_group_count equal to the channels is the operation for
#   depthwise convolutions (`nn.Conv(feature_group_count=...)` of Flax calls it), so it is at least as fast as
#   adding up k·k shifted products, which gives the same numbers.
# Real: compiled by jit, the sum of shifted products takes 3 to 25 times less processor time, for the
#   shapes of EfficientNet-Lite and of MobileNet; most for filters of 5 x 5.
# Source: none that says so was found; seen in a profile of EfficientNet-Lite0, whose depthwise layers have a tenth
#   of the products and took most of the time.
# Who is hurt: who runs convolutional encoders for pictures or spectrograms (EfficientNet, MobileNet, YAMNet,
#   ConvNeXt) with JAX on CPUs. What works: the sum; XLA makes one loop of it.
# Exit 0: as described (the convolution takes at least twice as long in each case, as a ratio in one process).
#   1: something else was seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > compare.py <<'PYTHON'
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np


def convolution(x, filters):
  layout = ('NHWC', 'HWIO', 'NHWC')
  channels = x.shape[-1]
  return jax.lax.conv_general_dilated(
    x, filters, (1, 1), 'SAME', dimension_numbers=layout, feature_group_count=channels
  )


def written_out(x, filters):
  size, (height, width) = len(filters), x.shape[1:3]
  edge = size // 2
  x = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
  return sum(
    x[:, i : i + height, j : j + width] * filters[i, j, 0] for i in range(size) for j in range(size)
  )


def seconds(function, *given):
  function = jax.jit(function)
  result = function(*given).block_until_ready()
  times = []
  for _ in range(7):
    start = time.process_time()
    function(*given).block_until_ready()
    times.append(time.process_time() - start)
  return result, statistics.median(times)


print(f'jax {jax.__version__}, processor time, median of 7')
rng = np.random.default_rng(0)
slower = []
for side, channels, size in ((112, 32, 3), (28, 240, 5), (14, 672, 5)):
  x = jnp.asarray(rng.normal(size=(10, side, side, channels)), jnp.float32)
  filters = jnp.asarray(rng.normal(size=(size, size, 1, channels)), jnp.float32)
  one, long = seconds(convolution, x, filters)
  other, short = seconds(written_out, x, filters)
  apart = float(jnp.abs(one - other).max())
  slower.append(long > 2 * short and apart < 1e-4)
  print(
    f'10 x {side} x {side} x {channels}, filters of {size} x {size}: convolution {1e3 * long:.0f} ms,'
    f' written out {1e3 * short:.0f} ms ({long / short:.1f} times), largest difference {apart:.1e}'
  )
raise SystemExit(0 if all(slower) else 1)
PYTHON
venv/bin/python compare.py 2>/dev/null
