#!/bin/bash
# jax 0.10.2, flax 0.12.8 on a CPU: the gradient of a linear layer's weights takes several times as long for an array
# [clips tokens channels] as for the same numbers as [rows channels].
#
# Expected: both are the same sum over all tokens of all clips, and take the same time.
# Real: with more than one axis of rows XLA first writes the gradient that comes from above anew, with its channels
#   first, be it the wider of the two arrays and the layer's input narrow. Of rows alone it multiplies both as they lie.
#   A layer from 24 to 192 channels is several times slower so (8 times on one processor, 5 on another).
# Source: the program that XLA makes of `jax.vjp` of flax.linen.Dense, whose documentation has any number of leading axes.
# Who is hurt: whoever trains layers from few to many channels on CPUs, such as the upward half of an adapter or of LoRA.
#   Reshape to rows before the layer, or give the product a gradient of its own.
# Exit 0: as described. 1: something else was seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 numpy==2.4.6
cd "$folder"
cat > gradients.py <<'PYTHON'
import re
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

CLIPS, TOKENS, NARROW, WIDE = 10, 2304, 24, 192
layer = nn.Dense(WIDE, use_bias=False)
x = jax.random.normal(jax.random.key(0), (CLIPS, TOKENS, NARROW))
g = jax.random.normal(jax.random.key(1), (CLIPS, TOKENS, WIDE))
weights = layer.init(jax.random.key(2), x)


def gradient(x, g):
  return jax.vjp(lambda weights: layer.apply(weights, x), weights)[1](2 * g)[0]


def seconds(f):
  times = []
  for _ in range(30):
    since = time.perf_counter()
    jax.block_until_ready(f())
    times.append(time.perf_counter() - since)
  return statistics.median(times)


found = {}
for name, shape in {'[clips tokens channels]': (CLIPS, TOKENS), '[rows channels]': (CLIPS * TOKENS,)}.items():
  given = x.reshape(*shape, NARROW), g.reshape(*shape, WIDE)
  compiled = jax.jit(gradient).lower(*given).compile()
  again = re.findall(rf'f32\[{WIDE},(?:{CLIPS * TOKENS}|{CLIPS},{TOKENS})\]\S* (?:copy|transpose)\(', compiled.as_text())
  found[name] = bool(again)
  print(f'{name}: {1e3 * seconds(lambda: compiled(*given)):.1f} ms;'
        f' the gradient is{"" if again else " not"} written anew, channels first')
raise SystemExit(list(found.values()) != [True, False])
PYTHON
JAX_PLATFORMS=cpu venv/bin/python gradients.py
