"""Tasks: what each benchmark adds to training and evaluation; registry.py has them by name."""
