"""Tasks: what each benchmark adds to the loop. registry.py finds them by name."""
