#!/bin/bash
# jax 0.10.2 on a CPU: the random mask of one dropout is longer to compile than several layers of a network.
#
# Expected: `jax.random.bernoulli` of a folded key, which is what a dropout is, adds a few operations to a
#   program, as it does on GPUs and TPUs, or a call of one routine that all draws share.
# Real: each draw puts two loops of its own into the program (threefry, for the key and for the bits), some 300
#   instructions; nothing is shared between draws of one shape. Forty layers of a product, a tanh and a dropout
#   take three to five times as long to compile as with masks that are given. The generators `rbg` and
#   `unsafe_rbg`, which are faster elsewhere, need more instructions. jax 0.12.0.1 behaves alike.
# Source: jax's documentation of random numbers compares the generators by the time to run on TPUs; nothing was
#   found on the time to compile for CPUs. Seen where 28 dropouts of a small audio-visual head were a third of the
#   time to compile its training step.
# Who is hurt: whoever trains models with many dropouts on CPUs, and test suites that compile small ones. What
#   works: one draw for all masks, or a mask from a hash of place and key.
# Exit 0: as described (a draw adds more than 200 instructions with each generator, and drawn masks make
#   compiling more than twice as long). 1: something else was seen. Needs Python 3.11 or newer with venv, and
#   packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > masks.py <<'PYTHON'
import time

import jax
import jax.numpy as jnp

LAYERS = 40


def model(key, x, masks, drawn):
  for i in range(LAYERS):
    kept = jax.random.bernoulli(jax.random.fold_in(key, i), 0.9, x.shape) if drawn else masks[i]
    x = jnp.tanh(jnp.where(kept, x / 0.9, 0) @ x)
  return x


def compiled(generator, drawn):
  inputs = jax.random.key(0, impl=generator), jnp.ones((64, 64)), jnp.ones((LAYERS, 64, 64), bool)
  lowered = jax.jit(model, static_argnums=3).lower(*inputs, drawn)
  start = time.process_time()
  text = lowered.compile().as_text()
  return text.count(' = '), text.count(' while('), time.process_time() - start


compiled('rbg', False)  # the first one also starts the compiler
given, _, seconds = compiled('threefry2x32', False)
print(f'masks are given: {given} instructions, {seconds:.2f} processor seconds to compile')
as_described = True
for generator in ('threefry2x32', 'rbg', 'unsafe_rbg'):
  length, loops, longer = compiled(generator, True)
  each = (length - given) / LAYERS
  print(f'{generator}: {each:.0f} instructions a mask, {loops} loops, {longer:.2f} s, {longer / seconds:.1f} times')
  as_described &= each > 200
  if generator == 'threefry2x32':
    as_described &= loops == 2 * LAYERS and longer > 2 * seconds
raise SystemExit(not as_described)
PYTHON
JAX_PLATFORMS=cpu venv/bin/python masks.py
