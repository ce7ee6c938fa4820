"""Models of random weights, for a checkout in which nothing has been trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from polyinr_core.model import Generator, GeneratorConfig, RegularGrid
from polyinr_core.snapshots.snapshot import Snapshot, save_snapshot

EMOJI = GeneratorConfig(channels=128, w_dim=128)
SIDE = 48  # pixels of the picture that features are scaled by


@torch.no_grad()
def random_generator(config: GeneratorConfig) -> Generator:
    """Return a generator whose features neither fade nor grow from level to level.

    Each level is scaled to features of root mean square 1, colours to a standard deviation of 0.5; PyTorch's
    start values would draw nearly one colour.
    """
    torch.manual_seed(0)
    generator = Generator(config).eval()
    synthesis = generator.synthesis
    affine = generator.affine(generator.w(torch.randn(1, config.z_dim)))
    points = RegularGrid(SIDE, SIDE).points(0, SIDE**2, dtype=torch.float32, device=torch.device("cpu"))
    for level, product in enumerate(synthesis.products):
        for index, features in enumerate(synthesis.features(affine, points)):
            if index == level:
                scale = 1 / features.square().mean().sqrt()
                break
        product.weight.mul_(scale)  # type: ignore[operator]
        product.bias.mul_(scale)  # type: ignore[operator]
    colours = synthesis(affine, points)
    scale = 0.5 / colours.std(dim=1).mean()
    synthesis.to_rgb.weight.mul_(scale)
    synthesis.to_rgb.bias.copy_(synthesis.to_rgb.bias - colours.mean(dim=(0, 1))).mul_(scale)
    return generator


def save_fresh(path: Path, config: GeneratorConfig = EMOJI, *, resolution: int = 32) -> Path:
    """Write a model file of random weights."""
    generator = random_generator(config)
    save_snapshot(path, Snapshot(generator, class_names=(), resolution=resolution, kimg=0.0, data_sha256=""))
    return path


@contextmanager
def given_or_fresh(model: Path | None) -> Iterator[Path]:
    """Give the model file, or for as long as the block runs one of random weights."""
    with TemporaryDirectory() as folder:
        yield model or save_fresh(Path(folder) / "fresh.safetensors")
