"""Latents z, w and affine: made from seeds, mixed, interpolated, edited, stored."""
