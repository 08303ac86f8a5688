"""What XLA compiles in tests, here and in the processes that they start, is cheap and kept."""

import os
from importlib import metadata

from dgsct_jax import collector


def pytest_addoption(parser):
  parser.addoption('--seed', type=int, default=0, help='of the inputs of fuzz tests')
  parser.addoption('--inputs', type=int, default=0, help='of each fuzz test; 0: as many as it has')


def pytest_configure(config):
  collector.relax()
  # Threads of OpenMP, as torch and scikit-learn have them, wait for each other by spinning, and so
  # take the core of the other worker: a test of one second took half a minute beside another.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  # Most of the time of the suite goes into compiling programs that run for milliseconds. Without
  # LLVM's optimisations and the newer way of making kernels, which jaxlib 0.12 cannot do without,
  # that takes a third of the time. A flag that the user sets comes last and counts.
  if 'not slow' in config.option.markexpr:
    flags = [
      '--xla_backend_optimization_level=0',
      '--xla_llvm_disable_expensive_passes=true',
      '--xla_cpu_parallel_codegen_split_count=1',  # the other core has a worker of its own
      os.environ.get('XLA_FLAGS', ''),
    ]
    if metadata.version('jaxlib').startswith('0.10.'):
      flags.insert(0, '--xla_cpu_use_fusion_emitters=false')
    os.environ['XLA_FLAGS'] = ' '.join(filter(None, flags))
  if cache := getattr(config, 'cache', None):
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache.mkdir('xla')))
    # Most of the kernels of small models compile faster than the default lets the cache take.
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
