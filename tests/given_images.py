"""Images that are given as a tensor, and a judge that sees the pixels themselves: distances by hand."""

from collections.abc import Iterator

import torch
from torch import Tensor


class Given:
    """Images [N, 3, resolution, resolution] that are given, in batches of 5."""

    sha256, provenance = "", {"name": "given"}

    def __init__(self, pixels: Tensor, name: str = "given") -> None:
        self.pixels = pixels
        self.resolution = pixels.shape[-1]
        self.name = name

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        indices = indices or range(len(self))
        yield from self.pixels[indices.start : indices.stop].split(5)


class PixelExtractor(torch.nn.Module):
    """A feature extractor that returns the pixels."""

    dim, name, sha256, resolution = 48, "lite2", "cd" * 32, 4

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).float()


def noise(count: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
