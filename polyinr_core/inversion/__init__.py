"""Inversion: find the latents of a photo, and tune the generator around them."""
