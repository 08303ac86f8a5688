"""What XLA compiles in tests, here and in the processes that they start, is cheap and kept."""

import os


def pytest_addoption(parser):
  parser.addoption('--seed', type=int, default=0, help='of the inputs of fuzz tests')


def pytest_configure(config):
  # Most of the time of the suite goes into compiling programs that run for milliseconds, almost
  # half of it into LLVM's optimisations. A flag that the user sets comes last and counts.
  ours = '--xla_backend_optimization_level=0'
  if 'not slow' in config.option.markexpr:
    os.environ['XLA_FLAGS'] = f'{ours} {os.environ.get("XLA_FLAGS", "")}'.strip()
  if cache := getattr(config, 'cache', None):
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache.mkdir('xla')))
    # Most of the kernels of small models compile faster than the default lets the cache take.
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
