"""Where pretrained weights come from: a pip package, a hub cache, a file; never the network unasked."""

from .pretrained import NAMES, load_pretrained

__all__ = ["NAMES", "load_pretrained"]
