#!/bin/bash
# flax 0.12.8 with jax 0.10.2: a module whose gradient is its own (nn.custom_vjp) and that reads a collection
#   other than its parameters, such as running statistics, has no gradient within jax.lax.scan.
#
# Expected: `Module.apply` is a pure function, so `jax.lax.scan` may run it over stacked variables, and the gradient is
#   that of the same steps one after another, as it is for a module without nn.custom_vjp.
# Real: jax.grad of the scan raises UnexpectedTracerError. The steps one after another are differentiated, and the
#   same module without nn.custom_vjp within the scan, too.
# Source: flax/core/lift.py, custom_vjp: variables that are not in `grad_vars` ('params' by default) and random keys
#   are captured by the function that is differentiated instead of being arguments of it; a scan differentiates
#   its body when the body's trace is over.
# Who is hurt: who scans over equal layers by hand (parameters kept apart by name, as checkpoints have them) and has a
#   layer with nn.custom_vjp and batch normalisation, such as reversible or rematerialised blocks. What works:
#   jax.custom_vjp of a function that gets all variables of the module as an argument.
# Seen with flax 0.12.12 and jax 0.12.0.1, too.
# Exit 0: as described. 1: something else was seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 flax==0.12.8
cd "$folder"
cat > scan.py <<'PYTHON'
import flax
import jax
import jax.numpy as jnp
from flax import linen as nn


class Layer(nn.Module):
  def setup(self):
    self.dense = nn.Dense(4)
    self.mean = self.variable('statistics', 'mean', jnp.zeros, (4,))

  def run(self, x):
    return jnp.tanh(self.dense(x) - self.mean.value)


class Plain(Layer):
  def __call__(self, x):
    return self.run(x)


class OwnGradient(Layer):
  def __call__(self, x):
    run = lambda module, x: module.run(x)
    forward = lambda module, x: nn.vjp(run, module, x)
    return nn.custom_vjp(run, forward_fn=forward, backward_fn=lambda pull, y: pull(y))(self, x)


def gradient(layer, scanned):
  x = jnp.ones((3, 4))
  three = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), layer.init(jax.random.key(0), x))

  def loss(params):
    variables = {**three, 'params': params}
    step = lambda x, one: (layer.apply(one, x), None)
    if scanned:
      return jnp.sum(jax.lax.scan(step, x, variables)[0])
    y = x
    for i in range(3):
      y, _ = step(y, jax.tree.map(lambda leaf: leaf[i], variables))
    return jnp.sum(y)

  try:
    return f'{jnp.abs(jax.grad(loss)(three["params"])["dense"]["kernel"]).sum():.4f}'
  except jax.errors.UnexpectedTracerError as error:
    return type(error).__name__


print(f'jax {jax.__version__}, flax {flax.__version__}; the sum of the gradient of three kernels')
found = {}
for layer in (Plain(), OwnGradient()):
  for scanned in (False, True):
    how = 'within jax.lax.scan' if scanned else 'one after another'
    found[type(layer).__name__, scanned] = gradient(layer, scanned)
    print(f'{type(layer).__name__:12} {how:20} {found[type(layer).__name__, scanned]}')
alike = len({value for case, value in found.items() if case != ('OwnGradient', True)}) == 1
raise SystemExit(0 if alike and found['OwnGradient', True] == 'UnexpectedTracerError' else 1)
PYTHON
venv/bin/python scan.py
