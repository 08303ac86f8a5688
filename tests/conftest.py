"""Keeps what XLA compiles between runs, here and in the processes that tests start."""

import os


def pytest_addoption(parser):
  parser.addoption('--seed', type=int, default=0, help='of the inputs of fuzz tests')


def pytest_configure(config):
  if cache := getattr(config, 'cache', None):
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache.mkdir('xla')))
    # Most of the kernels of small models compile faster than the default lets the cache take.
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
