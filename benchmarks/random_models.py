"""Models of random weights, for a checkout without a trained model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator

SMALL = GeneratorConfig(channels=128, w_dim=128)
SIDE = 48  # pixels of the image that features are scaled by


@torch.no_grad()
def random_generator(config: GeneratorConfig) -> Generator:
    """Return a generator whose features neither fade nor grow from level to level.

    Each level is scaled to features of root mean square 1, colors to a standard deviation of 0.5; PyTorch's
    start values would render nearly one color.
    """
    torch.manual_seed(0)
    generator = Generator(config).eval()
    synthesis = generator.synthesis
    affine = generator.affine(generator.w(torch.randn(1, config.z_dim)))
    coordinates = RegularGrid(SIDE, SIDE).coordinates()
    for level, product in enumerate(synthesis.products):
        for index, features in enumerate(synthesis.features(affine, coordinates)):
            if index == level:
                scale = 1 / features.square().mean().sqrt()
                break
        product.weight.mul_(scale)  # type: ignore[operator]
        product.bias.mul_(scale)  # type: ignore[operator]
    colors = synthesis(affine, coordinates)
    scale = 0.5 / colors.std(dim=1).mean()
    synthesis.to_rgb.weight.mul_(scale)
    synthesis.to_rgb.bias.copy_(synthesis.to_rgb.bias - colors.mean(dim=(0, 1))).mul_(scale)
    return generator


def save_random_model(path: Path, config: GeneratorConfig = SMALL, *, resolution: int = 32) -> Path:
    """Save a checkpoint of random weights."""
    generator = random_generator(config)
    save_checkpoint(path, Checkpoint(generator, class_names=(), resolution=resolution, kimg=0.0, data_sha256=""))
    return path


@contextmanager
def given_or_random(model: Path | None) -> Iterator[Path]:
    """Yield the model file, or one of random weights that is removed afterwards."""
    with TemporaryDirectory() as folder:
        yield model or save_random_model(Path(folder) / "fresh.safetensors")
