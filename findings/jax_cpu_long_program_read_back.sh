#!/bin/bash
# jax 0.10.2 on a CPU: the time to read a long program back from the compilation cache grows with more than
# the square of its length.
#
# Expected: an entry of the persistent compilation cache is loaded in a time that grows with its size, seconds
#   for some thousand operations; that is what the cache is for.
# Real: a program of 2000 layers (a product and a tanh each, 8 x 16 values) takes six to ten times as long to
#   load as one of 1000, some 15 s on one core for an entry of a few hundred kB. A profile shows the time in the
#   graph of which operation waits for which (ExecutionGraph, its transitive reduction), which is made anew at
#   every load. jax 0.12.0.1 behaves alike.
# Source: none that says so was found; seen where full-size audio-visual models were read back in minutes.
# Who is hurt: who restarts long unrolled models (deep networks with their backward pass) on CPUs and relies on
#   JAX_COMPILATION_CACHE_DIR, and test suites. What works: `jax.lax.scan` over equal layers, which is one short
#   program.
# Exit 0: as described (twice the layers take more than four times as long to load). 1: something else was
#   seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > load.py <<'PYTHON'
import sys
import time

import jax
import jax.numpy as jnp

layers, scanned = int(sys.argv[1]), sys.argv[2] == 'scan'
jax.config.update('jax_compilation_cache_dir', 'cache')
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def layer(x, weight):
  return jnp.tanh(x @ weight), None


def model(x, weights):
  if scanned:
    return jax.lax.scan(layer, x, weights)[0]
  for i in range(layers):
    x, _ = layer(x, weights[i])
  return x


hits = []
jax.monitoring.register_event_listener(
  lambda event, **_: hits.append(event) if event == '/jax/compilation_cache/cache_hits' else None
)
lowered = jax.jit(model).lower(jnp.ones((8, 16)), jnp.ones((layers, 16, 16)))
before = len(hits)
start = time.process_time()
lowered.compile()
print(len(hits) - before, time.process_time() - start)
PYTHON
load() {  # layers, how: seconds of the second process
  rm -rf cache
  venv/bin/python load.py "$1" "$2" 2>/dev/null >/dev/null
  venv/bin/python load.py "$1" "$2" 2>/dev/null | { read -r hit seconds; [ "$hit" = 1 ]; echo "$seconds"; }
}
half=$(load 1000 unrolled)
whole=$(load 2000 unrolled)
scan=$(load 2000 scan)
echo "processor time to load from the cache: 1000 layers $half s, 2000 layers $whole s, 2000 in a scan $scan s"
venv/bin/python -c "raise SystemExit(0 if $whole > 4 * $half and $scan < $half else 1)"
