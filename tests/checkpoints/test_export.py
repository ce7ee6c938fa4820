"""Exported programs, run by onnxruntime and by torch.export, against the generator in float64."""

import copy
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused, small_checkpoint
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.checkpoints.export import export_model
from polyinr_core.checkpoints.locate import bundled_model
from polyinr_core.models.generator import Generator

ROOT = Path(__file__).parent.parent.parent
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
SIZES = ((3, 7), (1, 1), (1, 64), (5, 1))  # images, pixels: none is that of the trace
TOLERANCE = 1e-4  # of colors about [-1, 1], float32 against float64: ten levels of products of up to 128 terms


def random_inputs(generator: Generator, images: int, pixels: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(images * 100 + pixels)
    config = generator.config
    coordinates = torch.rand(pixels, 3, generator=rng) * 1.5 - 0.25
    coordinates[:, 2] = 1
    inputs = {
        "z": torch.randn(images, config.z_dim, generator=rng),
        "coordinates": coordinates,
        "psi": torch.rand(images, generator=rng) * 1.2,
    }
    if config.classes:
        inputs["label"] = torch.randint(config.classes, (images,), generator=rng)
    return inputs


def colors_in_float64(generator: Generator, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the colors by the generator's own code, image by image, as psi is a number there."""
    double = copy.deepcopy(generator).double()
    colors = []
    for i, psi in enumerate(inputs["psi"].tolist()):
        label = inputs["label"][i : i + 1] if "label" in inputs else None
        w = double.w(inputs["z"][i : i + 1].double(), label, psi=psi)
        colors.append(double.synthesis(double.affine(w), inputs["coordinates"].double()))
    return torch.cat(colors).detach().numpy()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("release", "paper", "bundled")]


@pytest.fixture(params=["release, classes", *SLOW], scope="module")
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    if request.param == "bundled":
        return bundled_model()
    form, *conditional = request.param.split(", ")
    return small_checkpoint(path, form=form, classes=4 if conditional else 0)


@needs_onnx
def test_onnx_against_float64(model_file: Path, tmp_path: Path) -> None:
    import onnxruntime

    checkpoint = load_checkpoint(model_file)
    facts = export_model(tmp_path / "model.onnx", checkpoint)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == facts["inputs"]
    assert session.get_outputs()[0].shape == ["batch", "pixels", 3]
    assert json.loads(session.get_modelmeta().custom_metadata_map["polyinr"]) == facts
    assert facts["model_sha256"] == checkpoint.sha256
    for images, pixels in SIZES:
        inputs = random_inputs(checkpoint.generator, images, pixels)
        (colors,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        assert colors.shape == (images, pixels, 3)
        assert np.abs(colors - colors_in_float64(checkpoint.generator, inputs)).max() < TOLERANCE


def test_pt2_against_float64(model_file: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(model_file)
    facts = export_model(tmp_path / "model.pt2", checkpoint)
    extra = {"polyinr": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["polyinr"]) == facts
    for images, pixels in SIZES:
        inputs = random_inputs(checkpoint.generator, images, pixels)
        with torch.no_grad():
            colors = program(*inputs.values()).numpy()
        assert np.abs(colors - colors_in_float64(checkpoint.generator, inputs)).max() < TOLERANCE


@pytest.mark.slow
@needs_onnx
def test_the_example_of_the_page(polyinr: Run, tmp_path: Path) -> None:
    """docs/export.md: the command, then the Python lines, which draw an image."""
    page = (ROOT / "docs" / "export.md").read_text()
    assert polyinr("export", "bundled", "-o", "model.onnx", "--json").lines[0]["classes"] == 8
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert len(example.splitlines()) <= 15
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    pixels = np.asarray(Image.open(tmp_path / "onnx.png"))
    assert pixels.shape == (256, 256, 3)
    assert pixels.std() > 10  # an image, not one color


def test_export_by_the_command(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = polyinr("export", tiny_checkpoint, "-o", "model.pt2", "--json")
    assert (ran.code, ran.lines[0]["inputs"]) == (0, ["z", "coordinates", "psi"])
    refused(polyinr("export", tiny_checkpoint, "-o", "model.pt2"), "exists already", "--overwrite", code=1)
    refused(polyinr("export", tiny_checkpoint, "-o", "model.pt"), ".onnx", ".pt2", code=2)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    refused(polyinr("export", tiny_checkpoint, "-o", "model.onnx"), "onnxscript", "run pip install ", code=2)
