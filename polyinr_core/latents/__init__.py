"""The three spaces z, w and affine: drawn by seed, truncated, kept in files."""
