"""Tensor to pixels to files: rounding, sheets, formats with their embedded notes, sizes and windows."""
