"""Poly-INR: the model, its critic, its training. Never prints, never exits, knows no command line."""
