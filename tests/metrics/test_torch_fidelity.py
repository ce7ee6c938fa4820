"""Metrics against torch-fidelity's: its loop, its metrics, a random network registered with it."""

import numpy as np
import pytest
import torch
from fidelity_extractor import register, torch_fidelity
from torch import Tensor, nn
from torch.utils.data import Dataset

from polyinr_core.metrics.frechet import RunningMoments, frechet_distance
from polyinr_core.metrics.inception import InceptionScore
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.metrics.prdc import compute_prdc, manifold

WIDTH, CLASSES, COUNT = 48, 10, 300


class ImageSource(Dataset[Tensor]):
    """Random gradients, uint8 [3, 12, 12], so much darker than others."""

    def __init__(self, seed: int, *, darker: float = 0.0) -> None:
        rng = torch.Generator().manual_seed(seed)
        corners = torch.rand(COUNT, 3, 2, 2, generator=rng) * (1 - darker)
        smooth = nn.functional.interpolate(corners, size=(12, 12), mode="bilinear", align_corners=True)
        self.pixels = (smooth * 255).to(torch.uint8)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> Tensor:
        return self.pixels[place]


class RandomNetwork(nn.Module):
    """uint8 [N, 3, H, W] to features and logits, both random."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.filters = torch.randn(WIDTH, 3, 5, 5, generator=rng) / 8
        self.head = torch.randn(CLASSES, WIDTH, generator=rng) * 3

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.conv2d(pixels.float() / 127.5 - 1, self.filters, stride=2).relu()
        features = x.mean(dim=(2, 3))
        return features, features @ self.head.T


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSource, ImageSource]:
    """Fakes, reals."""
    return ImageSource(1, darker=0.2), ImageSource(2)


@pytest.fixture(scope="module")
def theirs(sets: tuple[ImageSource, ImageSource]) -> dict[str, float]:
    register("random", RandomNetwork())
    return torch_fidelity.calculate_metrics(
        input1=sets[0],
        input2=sets[1],
        feature_extractor="random",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=100,
        samples_shuffle=False,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=64,
        save_cpu_ram=True,
    )


@pytest.fixture(scope="module")
def features(sets: tuple[ImageSource, ImageSource]) -> tuple[Tensor, Tensor]:
    return tuple(RandomNetwork()(images.pixels)[0] for images in sets)


def test_fid(theirs: dict[str, float], features: tuple[Tensor, Tensor]) -> None:
    """1e-5: their features come in batches, and their means are summed in float32."""
    fakes, reals = (RunningMoments(WIDTH) for _ in features)
    for statistics, part in zip((fakes, reals), features, strict=True):
        statistics.add(part)
    ours = frechet_distance(fakes.gaussian(), reals.gaussian())
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_kid(theirs: dict[str, float], features: tuple[Tensor, Tensor]) -> None:
    """The same subsets, as both draw them from NumPy's frozen generator. 1e-3: theirs cancels in float32."""
    fakes, reals = features
    ours = KernelReference(reals, len(fakes), max_size=100, seed=2020).distance(fakes)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


def test_isc(theirs: dict[str, float], sets: tuple[ImageSource, ImageSource]) -> None:
    logits = RandomNetwork()(sets[0].pixels)[1]
    taken = InceptionScore(COUNT, CLASSES)
    taken.add(logits.double().softmax(dim=1), first=0)
    mean, deviation = taken.result()
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-4)
    assert mean > 1.2


def test_prc(theirs: dict[str, float], features: tuple[Tensor, Tensor]) -> None:
    """The same counts."""
    fakes, reals = features
    ours = compute_prdc(manifold(fakes), manifold(reals))
    assert np.float32(ours.precision) == np.float32(theirs["precision"])
    assert np.float32(ours.recall) == np.float32(theirs["recall"])
    assert 0 < ours.recall < 1
