"""A page about a training run: its configuration, curves and pictures, its figures, what its model copies."""
