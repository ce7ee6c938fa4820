"""Evaluation: two kinds of pictures, looked at once, and the figures that named protocols make of them."""
