"""From datasets to metrics, against torch-fidelity with the same random Inception."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fidelity_extractor import register, torch_fidelity
from inception_stand_in import InceptionStandIn
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from polyinr_core.data.prepare import prepare
from polyinr_core.evaluation.evaluate import evaluate
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.metrics.inception import InceptionFeatures

pytestmark = pytest.mark.slow
COUNT, WIDTH = 30, 20


def random_inception() -> InceptionStandIn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InceptionStandIn(pooled=WIDTH).eval().requires_grad_(False)
        network.output.weight.mul_(20)  # probabilities that differ from image to image
        return network


class Files(Dataset[Tensor]):
    """The images of a folder, decoded by Pillow."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.files[place]) as image:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def taps_of(network: InceptionStandIn, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and logits without the bias."""
    pooled = network(pixels, return_features=True)
    return pooled, functional.linear(pooled, network.output.weight)


def write_gradients(folder: Path, seed: int, *, darker: float = 0.0) -> Path:
    """Write COUNT smooth images of 16 px, so much darker than others."""
    folder.mkdir()
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(COUNT, 3, 3, 3, generator=rng) * (1 - darker)
    smooth = functional.interpolate(corners, size=(16, 16), mode="bilinear", align_corners=True) * 255
    for i, image in enumerate(smooth.to(torch.uint8).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Reals, fakes."""
    place = tmp_path_factory.mktemp("images")
    return write_gradients(place / "reals", 1), write_gradients(place / "fakes", 2, darker=0.2)


@pytest.fixture(scope="module")
def ours(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """From archives, in batches that divide no count."""
    place = tmp_path_factory.mktemp("archives")
    sources = []
    for folder in folders:
        prepare([folder], place / f"{folder.name}.zip", resolution=16, workers=1)
        sources.append(DatasetImages(place / f"{folder.name}.zip"))
    inception = InceptionFeatures(random_inception(), "ab" * 32)
    reals, fakes = sources
    names = ("fid-adm", "kid", "is", "pr-adm")
    return evaluate(fakes, reals, metrics=names, extractors={"inception": inception})


@pytest.fixture(scope="module")
def theirs(folders: tuple[Path, Path]) -> dict[str, float]:
    register("random-inception", partial(taps_of, random_inception()))
    return torch_fidelity.calculate_metrics(
        input1=Files(folders[1]),
        input2=Files(folders[0]),
        feature_extractor="random-inception",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=COUNT,  # all of them, as polyinr uses with fewer than 1000
        kid_subsets=3,
        samples_shuffle=False,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=32,
        save_cpu_ram=True,
    )


@pytest.mark.parametrize(
    ("name", "key", "tolerance"),
    [
        ("fid-adm", "frechet_inception_distance", 1e-4),
        ("kid", "kernel_inception_distance_mean", 1e-3),
        ("is", "inception_score_mean", 1e-4),
        ("pr-adm/precision", "precision", 1e-6),
        ("pr-adm/recall", "recall", 1e-6),
    ],
)
def test_metrics_from_images(
    ours: dict[str, Any], theirs: dict[str, float], name: str, key: str, tolerance: float
) -> None:
    """1e-4: our taps resize by another float32 formula than the network, and theirs sums means in float32."""
    value = ours["metrics"][name]["value"]
    assert value == pytest.approx(theirs[key], rel=tolerance)
    assert 0 < value != 1


def test_standard_deviation_of_the_inception_score(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    assert ours["metrics"]["is"]["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-3)
