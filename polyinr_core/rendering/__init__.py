"""Rendering: the synthesis network evaluated on a grid of coordinates, at any size."""
