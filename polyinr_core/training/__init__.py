"""Training: configuration, loop, step, state, logging."""
