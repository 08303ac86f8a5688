"""Adapters for frozen image and audio encoders, in JAX."""

from dgsct_jax import starting

starting.prepare()
