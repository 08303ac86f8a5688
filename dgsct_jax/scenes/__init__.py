"""Composed clips: drawn or photographed objects, their sounds, and every label known."""
