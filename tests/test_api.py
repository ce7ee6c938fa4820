"""The Python API: the examples of docs/api.md, what they return, and that importing the package stays cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import polyinr_core as polyinr
from polyinr_core.checkpoints.locate import bundled_model
from polyinr_core.rendering.backends.cpu import CpuBackend

DOCS = Path(__file__).parent.parent / "docs" / "api.md"


@pytest.fixture(scope="module")
def model(tiny_class_checkpoint: Path) -> polyinr.Model:
    return polyinr.load(tiny_class_checkpoint)


def test_the_import_loads_no_torch() -> None:
    code = (
        "import sys, polyinr_core as p; assert 'torch' not in sys.modules; "
        "p.PolyinrError; assert 'torch' not in sys.modules; p.Model; assert 'torch' in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_public_names() -> None:
    assert set(polyinr.__all__) == set(polyinr._MODULES) <= set(dir(polyinr))
    assert polyinr.Latents is polyinr.Latents
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        polyinr.nothing  # noqa: B018


def test_type_checkers_see_the_public_names() -> None:
    """A type checker reads the imports below TYPE_CHECKING: the names of __all__, from where they are loaded."""
    tree = ast.parse(Path(polyinr.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert found == {name: f"polyinr_core.{module}" for name, module in polyinr._MODULES.items()}
    assert (Path(polyinr.__file__).parent / "py.typed").exists()


def test_load(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A path as text, a run folder, the bundled model by name and by default."""
    assert polyinr.load(str(tiny_checkpoint)).sha256 == polyinr.load(tiny_checkpoint).sha256
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "1.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    run = polyinr.load(tmp_path / "run")
    assert run.sha256 == polyinr.load(tiny_checkpoint).sha256
    assert run.path == tmp_path / "run" / "checkpoints" / "1.safetensors"
    assert polyinr.load().path == polyinr.load("bundled").path == bundled_model()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
        ({"precision": "float16"}, "precision 'float16' is unknown"),
    ],
)
def test_load_refuses(arguments: dict, words: str) -> None:
    with pytest.raises(polyinr.PolyinrError, match=words):
        polyinr.load(**arguments)


def test_sample(model: polyinr.Model) -> None:
    images = model.sample(seeds=range(4), label="class b", psi=0.7, resolution=20)
    assert images.shape == (4, 20, 20, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(model.sample([2], label=1, psi=0.7, resolution=20)[0], images[2])  # in any batch
    assert model.sample([0]).shape == (1, 16, 16, 3)  # the training resolution
    assert model.sample([0], size=(9, 5)).shape == (1, 5, 9, 3)
    with pytest.raises(polyinr.PolyinrError, match="class 'class z' is unknown"):
        model.sample([0], label="class z")


def test_latents(model: polyinr.Model, tmp_path: Path) -> None:
    latents = model.latents(seeds=[3, 17], label=2)
    config = model.generator.config
    assert latents.z.shape == (2, config.z_dim)
    assert latents.w.shape == (2, config.levels, config.w_dim)
    assert latents.affine.shape == (2, config.levels, 3, config.channels)
    assert latents.label.tolist() == [2, 2]
    assert latents.seeds == (3, 17)
    assert torch.equal(latents[1].affine, model.latents([17], label=2).affine)
    assert torch.equal(latents[-1].z, latents.z[1:])
    assert latents[:1].seeds == (3,)
    with pytest.raises(IndexError):
        latents[2]
    assert [one.seeds for one in latents] == [(3,), (17,)]
    latents.save(tmp_path / "pair.safetensors")
    read = polyinr.Latents.load(tmp_path / "pair.safetensors")
    assert torch.equal(read.affine, latents.affine)
    assert read.model_sha256 == model.sha256


def test_render_is_what_sample_quantizes(model: polyinr.Model) -> None:
    latents = model.latents([5, 6])
    x = model.render(latents, resolution=24)
    assert x.shape == (2, 3, 24, 24)
    assert not x.requires_grad
    pixels = ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert np.array_equal(pixels.numpy(), model.sample([5, 6], resolution=24))


def test_render_from_any_space(model: polyinr.Model) -> None:
    latents = model.latents([5], psi=0.5)
    expected = model.render(latents)
    for space in ("w", "affine"):
        held = polyinr.Latents(**{space: getattr(latents, space)}, label=latents.label)
        assert torch.equal(model.render(held), expected)
    assert torch.equal(model.render(polyinr.Latents(z=latents.z, label=latents.label, psi=0.5)), expected)


def test_render_a_window(model: polyinr.Model) -> None:
    """A window of the same pixels shows the same colors, at any size and by rows."""
    latents = model.latents([5])
    wide = model.render(latents, resolution=25, window=(-0.25, -0.25, 1.25, 1.25))
    near = model.render(latents, resolution=17, window=(0, 0, 1, 1))
    torch.testing.assert_close(wide[:, :, 4:-4, 4:-4], near, atol=1e-5, rtol=0)  # float32, another grid
    viewport = polyinr.Viewport(25, 25, (-0.25, -0.25, 1.25, 1.25))
    assert torch.equal(torch.cat(list(model.render_rows(latents, viewport))).permute(2, 0, 1), wide[0])
    rotated = polyinr.Viewport(9, 9, supersample=3)
    assert model.render(latents, viewport=rotated).shape == (1, 3, 9, 9)


@pytest.mark.parametrize("supersample", [1, 3])
@pytest.mark.parametrize("space", ["w", "affine"])
def test_render_is_differentiable(tiny_class_checkpoint: Path, space: str, supersample: int) -> None:
    """Oracle: the same image without the graph; the derivative by finite differences, float64."""
    model = polyinr.load(tiny_class_checkpoint, precision="float64")
    latents = model.latents([5])
    tensor = getattr(latents, space).clone().requires_grad_()
    viewport = polyinr.Viewport(6, 5, supersample=supersample)
    image = model.render(polyinr.Latents(**{space: tensor}), viewport=viewport, requires_grad=True)
    torch.testing.assert_close(image.detach(), model.render(latents, viewport=viewport), atol=1e-9, rtol=0)
    (gradient,) = torch.autograd.grad(image.square().sum(), tensor)
    step = 1e-6 * torch.randn(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums = [
        float(model.render(polyinr.Latents(**{space: (tensor + s * step).detach()}), viewport=viewport).square().sum())
        for s in (1, -1)
    ]
    assert (sums[0] - sums[1]) / 2 == pytest.approx(float((gradient * step).sum()), rel=1e-4)


def test_the_backend_is_built_once(model: polyinr.Model) -> None:
    assert isinstance(model.backend, CpuBackend)
    assert model.backend is model.backend


def test_precisions(tiny_checkpoint: Path) -> None:
    latents = polyinr.load(tiny_checkpoint).latents([1])
    exact = polyinr.load(tiny_checkpoint, precision="float64").render(latents)
    assert exact.dtype == torch.float64
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.1)):
        model = polyinr.load(tiny_checkpoint, precision=precision)
        rendered = model.render(latents)
        assert rendered.dtype == torch.float32
        assert (rendered - exact).abs().max() < tolerance * exact.abs().max()


def test_edit(model: polyinr.Model) -> None:
    latents = model.latents([3, 17], label=1)
    mixed = polyinr.mix(latents[0], latents[1], levels=[2])
    assert torch.equal(mixed.affine[:, 2], latents.affine[1:, 2])
    frames = polyinr.interpolate(latents, steps=5, space="w")
    assert torch.equal(model.render(frames)[[0, 4]], model.render(latents))
    directions = polyinr.find_directions(model, samples=20, count=2)
    assert directions.model_sha256 == model.sha256
    moved = polyinr.move(latents, directions, {0: 2.0})
    assert model.render(moved).shape == (2, 3, 16, 16)


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [DOCS, DOCS.parent.parent / "README.md"], ids=lambda page: page.name)
def test_the_documented_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, one after another, in an empty folder, on the bundled model."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    blocks = python_blocks(page)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)


def test_every_public_name_is_documented() -> None:
    text = DOCS.read_text()
    assert [name for name in polyinr.__all__ if f"`{name}" not in text and f"polyinr.{name}" not in text] == []
