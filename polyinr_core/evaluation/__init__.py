"""Evaluation of a model or of images by named protocols, and comparison of results."""
