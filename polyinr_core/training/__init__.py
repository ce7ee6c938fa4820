"""Training: configuration, one step, EMA, state on disk, the run."""
