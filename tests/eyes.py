"""What the tests of evaluation share: a small judge, folders of noise, figures by name."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.evaluation.image_sources import open_images
from polyinr_core.evaluation.set_metrics import Settings, evaluate
from polyinr_core.metrics.frechet import FeatureStatistics
from polyinr_core.metrics.registry import metrics_named

CPU = torch.device("cpu")
NAMES = ("fd-lite2", "kd-lite2", "pr-lite2", "dc-lite2")


class Eyes(torch.nn.Module):
    """A judge of 6 features; `seen` counts the images that it was shown."""

    dim, name, sha256, side = 6, "lite2", "cd" * 32, 8

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0)).double()
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 4)
        return ((small.flatten(1) / 255) @ self.matrix).float()


def write_images(folder: Path, count: int, *, side: int = 8, seed: int = 0, backwards: bool = False) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{count - i if backwards else i:03d}.png")
    return folder


def values(reals: Path, fakes: Path, names: tuple[str, ...] = NAMES, **settings: object) -> dict[str, float]:
    metrics = metrics_named(names)
    result = evaluate(
        open_images(reals),
        open_images(fakes),
        metrics,
        {"lite2": Eyes()},
        device=CPU,
        settings=Settings(**settings),
    )
    return {name: row["value"] for name, row in result["figures"].items()}


def features_of(path: Path, network: torch.nn.Module | None = None) -> Tensor:
    return (network or Eyes())(torch.cat(list(open_images(path).passes())))


def statistics_of(features: Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1])
    statistics.add(features)
    return statistics
