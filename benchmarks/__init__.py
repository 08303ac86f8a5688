"""Measurements: `python -m benchmarks.NAME`, which start as the commands do."""

from dgsct_jax import starting

starting.prepare()
