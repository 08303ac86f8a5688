"""Measurements: `python -m benchmarks.NAME`, which have their memory as the commands have it."""

from dgsct_jax import starting

starting.prepare()
