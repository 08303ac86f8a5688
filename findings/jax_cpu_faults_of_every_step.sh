#!/bin/bash
# jax 0.10.2 on a CPU under Linux: each run of a compiled program takes its memory from the kernel anew, page by page.
#
# Expected: the second and every further run of one compiled program finds the memory of its intermediate values
#   where the first one left it; they have the same size each time.
# Real: they are allocated and freed in every run, by a thread for which glibc gives large blocks back to the
#   kernel. The kernel hands them out again in pages of 4 kB, zeroed, with a fault for each: 160 MB of intermediate
#   values are 40,000 faults in every run. With MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_ alone it stays so.
#   With GLIBC_TUNABLES=glibc.malloc.hugetlb=1 the pages have 2 MB, where the kernel gives these to whom asks
#   (/sys/kernel/mm/transparent_hugepage/enabled is madvise, as on Ubuntu and in many containers). jax 0.12.0.1
#   behaves alike.
# Source: the manual of glibc describes the tunable, the kernel's that of transparent huge pages; jax's and XLA's
#   documents do not mention what it is worth. Seen where a small training step took 0.204 s, and 0.141 s with the
#   tunable; of a full-size one it was a twentieth.
# Who is hurt: whoever trains on CPUs in steps of a second or less; comparisons with frameworks that keep their
#   memory; and profiles, which show the faults as slow operations.
# Exit 0: as described (more than half of the pages of the intermediate values are faults in every run, and less
#   than a tenth with the tunable). 1: something else was seen. 2: this kernel gives large pages always or never.
#   Needs Linux with glibc 2.35 or newer, Python 3.11 or newer with venv, and packages from an index.
set -eu
if ! grep -qs '\[madvise\]' /sys/kernel/mm/transparent_hugepage/enabled; then
  echo 'this kernel gives large pages always or never: nothing can be seen here'
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
cat > faults.py <<'PYTHON'
import resource
import statistics
import time

import jax
import jax.numpy as jnp

LAYERS, RUNS = 40, 20


def loss(x, kernels):
  for i in range(LAYERS):
    x = jnp.tanh(x @ kernels[i])
  return x.sum()


x, kernels = jnp.ones((8192, 128)), jnp.ones((LAYERS, 128, 128)) / 128
step = jax.jit(jax.grad(loss, 1)).lower(x, kernels).compile()
pages = step.memory_analysis().temp_size_in_bytes / 4096
for _ in range(3):
  step(x, kernels).block_until_ready()
before, times = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
for _ in range(RUNS):
  since = time.perf_counter()
  step(x, kernels).block_until_ready()
  times.append(time.perf_counter() - since)
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / RUNS
print(f'{pages:.0f} {faults:.0f} {statistics.median(times):.4f}')
PYTHON
export JAX_PLATFORMS=cpu
unset GLIBC_TUNABLES
read -r pages faults seconds <<< "$(venv/bin/python faults.py)"
read -r _ fewer faster <<< "$(GLIBC_TUNABLES=glibc.malloc.hugetlb=1 venv/bin/python faults.py)"
echo "intermediate values of $pages pages: $faults faults and $seconds s in every run"
echo "with glibc.malloc.hugetlb=1: $fewer faults and $faster s"
((faults * 2 > pages && fewer * 10 < pages))
