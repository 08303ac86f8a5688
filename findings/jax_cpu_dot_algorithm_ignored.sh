#!/bin/bash
# jax 0.10.2 on a CPU: a product with the algorithm BF16_BF16_F32 compiles without a word and multiplies float32 numbers.
#
# Expected: `jax.lax.dot(x, y, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32)` of float32 arrays rounds both to
#   bfloat16, multiplies these and adds up in float32, or says that this device cannot.
# Real: neither array is rounded. The result is that of float32 to the last bit, and takes the time of float32 where the
#   processor has instructions for bfloat16. `jax.default_matmul_precision('bfloat16')` is without effect likewise. Of
#   arrays that were converted before, the product is as expected.
# Source: docs.jax.dev, "Matmul precision": a dot algorithm names the computation exactly, and the first two types of its
#   name are what both sides are rounded to. XLA's own description of the algorithms (PrecisionConfig.Algorithm) says
#   that a backend which does not support one raises an error.
# Who is hurt: whoever tries on a CPU what the rounding of a TPU or GPU will do to a model, and sees none; and whoever
#   asks for it to save time.
# Exit 0: as described. 1: something else was seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > algorithm.py <<'PYTHON'
import jax
import jax.numpy as jnp

# 1 + 2⁻¹⁰, which bfloat16 rounds to 1: 256 of them, times 1, add up to 256.25 or to 256.
x, y = jnp.full((256, 256), 1 + 2**-10), jnp.ones((256, 256))


def by_algorithm(x, y):
  return jax.lax.dot(x, y, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32)


def by_setting(x, y):
  with jax.default_matmul_precision('bfloat16'):
    return x @ y


def converted(x, y):
  return jax.lax.dot(x.astype('bfloat16'), y.astype('bfloat16'), preferred_element_type='float32')


seen = {f.__name__: float(jax.jit(f)(x, y)[0, 0]) for f in (by_algorithm, by_setting, converted)}
for name, value in seen.items():
  print(f'{name}: {value}, so the factors were{"" if value == 256 else " not"} rounded')
raise SystemExit(seen != {'by_algorithm': 256.25, 'by_setting': 256.25, 'converted': 256.0})
PYTHON
JAX_PLATFORMS=cpu venv/bin/python algorithm.py
