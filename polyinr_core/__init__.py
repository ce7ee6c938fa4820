"""Poly-INR: the model, its discriminator, its training. Never prints, never exits, knows no command line."""
