"""Inputs of the evaluation tests: a small feature extractor, folders of noise, metrics by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.evaluation.evaluate import evaluate
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.metrics.frechet import RunningMoments

CPU = torch.device("cpu")
NAMES = ("fd-lite2", "kd-lite2", "pr-lite2", "dc-lite2")


class LinearExtractor(torch.nn.Module):
    """A linear feature extractor of dimension 6; `seen` counts its images."""

    dim, name, sha256, resolution = 6, "lite2", "cd" * 32, 8

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0)).double()
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 4)
        return ((small.flatten(1) / 255) @ self.matrix).float()


def write_images(folder: Path, count: int, *, resolution: int = 8, seed: int = 0, backwards: bool = False) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{count - i if backwards else i:03d}.png")
    return folder


def values(reals: Path, fakes: Path, names: tuple[str, ...] = NAMES, **settings: object) -> dict[str, float]:
    return {name: row["value"] for name, row in evaluated(reals, fakes, names, **settings)["metrics"].items()}


def evaluated(
    reals: Any, fakes: Any, names: Sequence[str] = NAMES, *, extractor: Any = None, networks: Any = None, **options: Any
) -> dict[str, Any]:
    """The result of `evaluate` with lite2 replaced by `extractor`."""
    extractors = {"lite2": extractor or LinearExtractor(), **(networks or {})}
    return evaluate(fakes, reals, metrics=names, extractors=extractors, device=CPU, **options)


def make_backbone(path: Path, network: torch.nn.Module | None = None) -> Tensor:
    return (network or LinearExtractor())(torch.cat(list(DatasetImages(path).batches())))


def moments_from_tensors(features: Tensor) -> RunningMoments:
    statistics = RunningMoments(features.shape[1])
    statistics.add(features)
    return statistics
