"""Measurements: `python -m benchmarks.NAME`, which have their memory as the commands have it."""

from dgsct_jax import collector, large_pages

large_pages.start_again()
collector.start()
