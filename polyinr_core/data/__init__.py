"""Datasets: preparation, zip and tar datasets, labels, sampling and loading."""
