"""From a picture to its latents, and the generator tuned around them."""
