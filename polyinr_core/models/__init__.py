"""The Poly-INR generator: mapping, affine and synthesis networks, and coordinates."""
