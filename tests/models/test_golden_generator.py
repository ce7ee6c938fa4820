"""The generator against the golden files of the release's own generator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_rounded, terms_of, terms_to_affine
from safetensors.torch import load_file
from torch import Tensor

from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.images.grid import to_uint8
from polyinr_core.models.config import PRESETS
from polyinr_core.models.coordinates import RegularGrid, homogeneous
from polyinr_core.models.generator import Generator, count_parameters

PREFIX = {torch.float32: "output", torch.float64: "output64"}


class Golden:
    """A golden generator with its test vectors, in one dtype."""

    def __init__(self, reference: Path, name: str, dtype: torch.dtype) -> None:
        path = reference / f"{name}.safetensors"
        self.vectors = load_file(path)
        self.generator = load_official_checkpoint(path).generator.to(dtype)
        self.z = self.vectors["input.z"].to(dtype)
        self.label = self.vectors["input.class_id"] if self.generator.config.classes else None
        self.dtype = dtype
        self.terms = terms_to_affine(self.generator.config) + terms_of(self.generator.config)

    def coordinates(self, side: int) -> Tensor:
        """The regular grid of the golden files: float32 values, promoted."""
        grid = RegularGrid(side, side).coordinates()
        return grid.to(self.dtype)

    def image(self, w: Tensor, side: int) -> Tensor:
        colors = self.generator.synthesis(self.generator.affine(w), self.coordinates(side))
        return colors.transpose(1, 2).unflatten(2, (side, side))


@pytest.fixture(params=["generator_small", "generator_uncond_small"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def golden(request: pytest.FixtureRequest, reference: Path, name: str) -> Golden:
    return Golden(reference, name, request.param)


@pytest.mark.parametrize(("psi", "text"), [(1.0, "1"), (0.7, "0.7"), (0.0, "0")])
def test_images_and_w(golden: Golden, psi: float, text: str) -> None:
    w = golden.generator.w(golden.z, golden.label, psi=psi)
    prefix = PREFIX[golden.dtype]
    assert_rounded(w, golden.vectors[f"{prefix}.w_psi{text}"], terms=golden.terms)
    for side in (16, 32):
        expected = golden.vectors[f"{prefix}.image_psi{text}_res{side}"]
        assert_rounded(golden.image(w, side), expected, terms=golden.terms)


def test_clamp(golden: Golden) -> None:
    """The largest value is about 230; without the clamp the images differ by more than 1000."""
    expected = golden.vectors[f"{PREFIX[golden.dtype]}.image_clamp_res16"]
    drawn = golden.image(golden.vectors["input.w_clamp"].to(golden.dtype), 16)
    assert_rounded(drawn, expected, terms=golden.terms)


def test_truncation_of_the_first_levels(reference: Path, name: str) -> None:
    golden = Golden(reference, name, torch.float32)
    w = golden.generator.w(golden.z, golden.label, psi=0.7, cutoff=4)
    assert_rounded(w, golden.vectors["output.w_psi0.7_cutoff4"], terms=golden.terms)


def test_w_avg_update(reference: Path, name: str) -> None:
    golden = Golden(reference, name, torch.float32)
    mapping = golden.generator.mapping
    mapping.update_w_avg(mapping(golden.z, golden.label), golden.label)
    assert_rounded(mapping.w_avg, golden.vectors["output.w_avg_after_one_update"], terms=golden.terms)


def test_bytes_of_images(reference: Path, name: str) -> None:
    """Equal to the byte, but for colors that float32 rounds across a step: at most one in a thousand, by one."""
    golden = Golden(reference, name, torch.float32)
    w = golden.generator.w(golden.z, golden.label, psi=0.7)
    drawn = to_uint8(golden.image(w, 32).permute(0, 2, 3, 1)).astype(int)
    difference = np.abs(drawn - golden.vectors["output.uint8_sampling_psi0.7_res32"].numpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_gradients(reference: Path, name: str) -> None:
    """Gradients of mean(image * probe) at 8 px against stored ones, which are float32: relative 1e-4."""
    path = reference / f"{name}.safetensors"
    golden = Golden(reference, name, torch.float64)
    vectors, generator = golden.vectors, golden.generator.requires_grad_(True)
    grid = golden.coordinates(8)[:, :2].clone().requires_grad_(True)
    label = None if golden.label is None else golden.label[:2]
    colors = generator(golden.z[:2], homogeneous(grid), label)
    image = colors.transpose(1, 2).unflatten(2, (8, 8))
    (image * vectors["input.grad_probe_res8"].double()).mean().backward()

    last = generator.affine.levels[3].chain.bias.grad
    half = generator.config.channels
    five = generator.affine.levels[5].map.weight.grad
    found = {
        "gridt": grid.grad.flip(-1).unsqueeze(0),  # (x, y) to (row, column)
        "mapping.fc0.weight": generator.mapping.layers[0].weight.grad,
        "synthesis.fb3.fc0_3.bias": last[:4].flip(0),
        "synthesis.fb5.fc0_1.weight": torch.cat([five[half : 2 * half], five[:half]]),
        "synthesis.to_rgb.weight": generator.synthesis.to_rgb.weight.grad[:, :, None, None],
    }
    for key, gradient in found.items():
        expected = vectors[f"output.grad_res8.{key}"].double()
        assert (gradient - expected).norm() < 1e-4 * expected.norm(), key
    norms = json.loads(path.with_suffix(".json").read_text())["gradient_case"]["grad_l2"]
    assert float(generator.mapping.layers[1].weight.grad.norm()) == pytest.approx(norms["mapping.fc1.weight"], rel=1e-4)


@pytest.mark.parametrize(("preset", "total"), [("imagenet", 45_869_695), ("ffhq", 13_518_399)])
def test_parameter_counts(preset: str, total: int) -> None:
    with torch.device("meta"):
        counts = count_parameters(Generator(PRESETS[preset]))
    assert counts["total"] == total
    assert counts["table"] == 320_000
