"""Composed clips: drawn or photographed objects and their sounds, with exact labels."""
