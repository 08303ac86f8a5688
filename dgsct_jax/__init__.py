"""Adapters for frozen image and audio encoders, in JAX."""

from dgsct_jax import collector, large_pages

large_pages.start_again()
collector.start()
