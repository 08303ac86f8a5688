#!/bin/bash
# jax 0.10.2 on a CPU: a product of bfloat16 arrays that adds up in float32 compiles and then fails, by the order of its axes.
#
# Expected: `jnp.einsum('bme,mn->bne', x, y, preferred_element_type='float32')` of bfloat16 arrays gives float32, as
#   it does with the axes in another order ('bem,mn->ben').
# Real: the program compiles. Each time it is run, it ends in JaxRuntimeError: unsupported element type for a dot, BF16
#   x BF16 = F32. XLA lets the arrays stay as they are, since its library can multiply them so, later swaps them to
#   save a transposition of the result, and then the library does not take them. A grouped product, 'agi,gio->ago',
#   fails likewise. jax 0.12.0.1 behaves alike.
# Source: the documentation of jax.lax.dot_general says of preferred_element_type that the product adds up in that type
#   and names no order of axes that is left out. Nothing was found in openxla/xla's issues.
# Who is hurt: whoever asks for float32 sums, to be accurate or fast, and runs the model or its tests on a CPU. What
#   works: axes as in a matrix product, with the summed one last in the first array and the result not transposed;
#   or float32 arrays.
# Exit 0: as described (two orders fail as they are run, the other two are right). 1: something else was seen. Needs
#   Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > orders.py <<'PYTHON'
import jax
import jax.numpy as jnp

FAIL = {'bme,mn->bne': True, 'bem,mn->ben': False, 'agi,gio->ago': True, 'gai,gio->gao': False}
as_described = True
for subscripts, expected in FAIL.items():
  inputs, result = subscripts.split('->')
  size = dict.fromkeys('abemnio', 16) | {'g': 2}
  x, y = (jnp.ones([size[axis] for axis in axes], 'bfloat16') for axes in inputs.split(','))
  product = jax.jit(lambda x, y: jnp.einsum(subscripts, x, y, preferred_element_type='float32').astype('bfloat16'))
  compiled = product.lower(x, y).compile()
  try:
    right = bool((compiled(x, y) == 16).all())
    print(f'{subscripts}: {"right" if right else "wrong"}')
    as_described &= right and not expected
  except jax.errors.JaxRuntimeError as error:
    print(f'{subscripts}: {error}')
    as_described &= expected and 'Unsupported element type' in str(error)
raise SystemExit(not as_described)
PYTHON
JAX_PLATFORMS=cpu venv/bin/python orders.py
