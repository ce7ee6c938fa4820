"""Checkpoints: our own files, the authors' pickles, deltas."""
