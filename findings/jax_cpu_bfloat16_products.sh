#!/bin/bash
# jax 0.10.2 on a CPU: a product of bfloat16 arrays is computed in float32, unless its result is asked for in float32.
#
# Expected: `x @ y` of bfloat16 arrays takes the processor's instructions for them (AMX, AVX-512 BF16), as it did with
#   jaxlib 0.4.21, by oneDNN, and as PyTorch does.
# Real: XLA converts both arrays to float32, multiplies these, and rounds the result. With
#   `preferred_element_type='float32'` it hands the arrays to its library for products as they are, and the result
#   has only to be rounded. Where a processor has such instructions, the detour of asking for more is several times
#   as fast; elsewhere it saves two conversions. The gradient of a product that was asked for so is one of a float32
#   and a bfloat16 array, and that is converted again. jax 0.12.0.1 multiplies bfloat16 in the plain product, too, at
#   two thirds of the rate of the one that was asked for; the gradient is as here.
# Source: openxla/xla, issue 10556, closed, says that jaxlib 0.4.21 uses AMX for bfloat16; that the way by oneDNN is
#   gone, and what replaced it, was not found in the documentation.
# Who is hurt: whoever trains or runs a model in bfloat16 on a CPU to save time. It takes longer than in float32.
# Exit 0: as described (of the compiled programs, the first and the gradient of the second multiply float32 arrays, the
#   second bfloat16 arrays; the rates are printed, as they depend on the processor). 1: something else was seen. Needs
#   Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > products.py <<'PYTHON'
import re
import statistics
import time

import jax
import jax.numpy as jnp

SIZE = 1024
plain = lambda x, y: x @ y
asked = lambda x, y: jnp.matmul(x, y, preferred_element_type='float32').astype('bfloat16')
back = lambda product: lambda x, y: jax.grad(lambda x: product(x, y).astype('float32').sum())(x)


def factors(function):
  """The types of what the compiled program multiplies, and its rate."""
  x = jnp.ones((SIZE, SIZE), 'bfloat16')
  compiled = jax.jit(function).lower(x, x).compile()
  text = compiled.as_text()
  types = dict(re.findall(r'%?([\w.\-]+) = (\w+)\[', text))
  found = {types[name] for pair in re.findall(r' dot\(([^)]*)\)', text) for name in re.findall(r'%([\w.\-]+)', pair)}
  seconds = []
  for _ in range(9):
    start = time.perf_counter()
    compiled(x, x).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return found, 2 * SIZE**3 / statistics.median(seconds) / 1e9


seen = {}
for name, function in {'plain': plain, 'asked': asked, 'gradient of asked': back(asked)}.items():
  seen[name], rate = factors(function)
  print(f'{name}: multiplies {", ".join(sorted(seen[name]))} at {rate:.0f} GFLOP/s')
raise SystemExit(seen != {'plain': {'f32'}, 'asked': {'bf16'}, 'gradient of asked': {'f32'}})
PYTHON
JAX_PLATFORMS=cpu venv/bin/python products.py
