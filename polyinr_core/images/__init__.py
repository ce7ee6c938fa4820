"""Image files, grids, animations and quantization."""
