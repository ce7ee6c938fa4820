"""Randomness by seed: each purpose has a generator of its own, so no draw ever shifts another."""

import hashlib

import torch

MAX_SEED = 2**32 - 1


def generator_for(*key: int | str) -> torch.Generator:
    """Return a CPU generator determined by `key` alone, e.g. `generator_for(seed, "augment", step)`."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
