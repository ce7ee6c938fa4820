"""The images that a model generates do not depend on how they are requested."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_checkpoint
from evaluation_inputs import LinearExtractor, evaluated, write_images
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.evaluation import image_sources, protocols
from polyinr_core.evaluation.image_sources import GeneratedImages
from polyinr_core.latents.latents import LabelDistribution


def test_images_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "m.safetensors", classes=4))
    drawn = GeneratedImages(checkpoint, name="m", count=70, resolution=16, psi=0.7)
    pixels = torch.cat(list(drawn.batches()))
    assert pixels.shape == (70, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert drawn.provenance["labels"] == "uniform"
    assert drawn.provenance["seeds"] == "0-69"
    large = torch.cat(list(GeneratedImages(checkpoint, name="m", count=2, resolution=160, psi=0.7).batches()))
    assert large.shape == (2, 3, 160, 160)


def test_psi_and_label_change_the_images(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "m.safetensors", classes=4))

    def drawn(**options: Any) -> Tensor:
        return torch.cat(list(GeneratedImages(checkpoint, name="m", count=6, **options).batches()))

    assert not torch.equal(drawn(), drawn(psi=0.5))
    first, second, third = (LabelDistribution(label=label) for label in range(3))
    assert not torch.equal(drawn(labels=first), drawn(labels=second))
    still = drawn(psi=0.0, labels=third)
    assert torch.equal(still[0], still[5])


def test_labels_drawn_as_in_a_dataset(tmp_path: Path) -> None:
    """An image is that of its seed and class; the counts, by their divisor, stand on the card."""
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "m.safetensors", classes=4))
    labels = LabelDistribution(counts=(6, 0, 2, 0))
    drawn = GeneratedImages(checkpoint, name="m", count=12, labels=labels)
    assert (drawn.provenance["labels"], drawn.provenance["label_weights"]) == ("dataset", "3 0 1 0")
    pixels = torch.cat(list(drawn.batches()))
    for seed, label in enumerate(labels.draw(range(12), 4).tolist()):
        alone = GeneratedImages(checkpoint, name="m", count=12, labels=LabelDistribution(label=label))
        assert torch.equal(torch.cat(list(alone.batches(range(seed, seed + 1))))[0], pixels[seed])
    parts = [*drawn.batches(range(5)), *drawn.batches(range(5, 12))]  # as two processes
    assert torch.equal(torch.cat(parts), pixels)
    with pytest.raises(RequestError, match="counts of 3 classes, m has 4"):
        GeneratedImages(checkpoint, name="m", count=12, labels=LabelDistribution(counts=(1, 2, 3)))


@pytest.mark.parametrize(("first", "last"), [(0, 70), (1, 3), (63, 65), (64, 70), (70, 70)])
def test_a_range_of_images_has_the_same_bits(tmp_path: Path, first: int, last: int) -> None:
    """As other processes, and a pass that goes on, draw it: 64 images of 16 px are one pass."""
    drawn = GeneratedImages(load_checkpoint(small_checkpoint(tmp_path / "m.safetensors")), name="m", count=70)
    whole = torch.cat(list(drawn.batches()))
    part = [whole[:0], *drawn.batches(range(first, last))]
    assert torch.equal(torch.cat(part), whole[first:last])


def contrasty(path: Path, gain: float) -> Checkpoint:
    """Return a model whose colors are `gain` times as far apart, and so are their rounding errors."""
    checkpoint = load_checkpoint(small_checkpoint(path / "m.safetensors"))
    with torch.no_grad():
        checkpoint.generator.synthesis.to_rgb.weight.mul_(gain)
    return checkpoint


def test_the_error_of_bfloat16_is_that_of_the_images(tmp_path: Path) -> None:
    """Oracle: the same images in float64, from which float32's differ by far less."""
    drawn = GeneratedImages(contrasty(tmp_path, 0.2), name="m", count=3)
    w = drawn.sample_w(range(3))
    reduced = drawn.render(w, dtype=torch.bfloat16)
    generator = drawn.checkpoint.generator.double()
    exact = image_sources.render_images(drawn.checkpoint, w.double(), resolution=16)
    generator.float()
    expected = 127.5 * float((reduced - exact).square().mean().sqrt())
    assert 0 < drawn.rounding_error() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("gain", "is_gpu", "precision", "rendered"),
    [
        (0.05, True, "auto", "bfloat16"),
        (0.05, True, "float32", "float32"),
        (0.05, False, "auto", "float32"),
        (0.05, False, "bfloat16", "bfloat16"),
        (4.0, True, "auto", "float32"),  # its images would change by more than 0.29 gray levels
        (4.0, True, "bfloat16", "bfloat16"),
    ],
)
def test_images_are_evaluated_in_bfloat16_where_rounding_to_8_bits_hides_it(
    gain: float, is_gpu: bool, precision: str, rendered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is said to be there. The card says the precision; features in the cache are of one precision."""
    monkeypatch.setattr(protocols, "is_bfloat16_gpu", lambda _: is_gpu)
    checkpoint, reals = contrasty(tmp_path, gain), write_images(tmp_path / "reals", 9, resolution=16)
    error = GeneratedImages(checkpoint, name="m", count=8).rounding_error()
    assert (error < protocols.MAX_ROUNDING_ERROR) is (gain < 1)
    results, seen = [], []
    for asked in (precision, precision, "float32"):
        extractor, options = LinearExtractor(), {"count": 9, "cache": tmp_path / "cache", "precision": asked}
        results.append(evaluated(reals, checkpoint, ["fd-lite2"], extractor=extractor, **options))
        seen.append(extractor.seen)
    assert seen == [18, 0, 9 if rendered == "bfloat16" else 0]
    found, cached, plain = results
    assert found["metrics"] == cached["metrics"]
    assert found["card"]["precision"].split(",")[0] == rendered
    assert plain["card"]["precision"] == "float32"
    if rendered == "bfloat16":
        assert found["card"]["precision"].endswith(f", {error:.2g} of 255 gray levels from float32 (root mean square)")
        assert found["metrics"] != plain["metrics"]


def test_every_backend_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches and metrics there are."""
    built: list[object] = []
    select = image_sources.select_backend
    monkeypatch.setattr(image_sources, "select_backend", lambda *given: built.append(given) or select(*given))
    checkpoint, reals = contrasty(tmp_path, 0.1), write_images(tmp_path / "reals", 9, resolution=16)
    names = ["fd-lite2", "kd-lite2", "speed"]
    evaluated(reals, checkpoint, names, count=70, precision="bfloat16")
    assert len(built) == 2  # float32 to compare with, and bfloat16
    built.clear()
    evaluated(reals, checkpoint, names, count=70)
    assert len(built) == 1


def test_a_precision_is_for_images_that_are_rendered(tmp_path: Path) -> None:
    reals = write_images(tmp_path / "reals", 9, resolution=16)
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "m.safetensors"))
    with pytest.raises(RequestError, match="--precision are for images that a model generates"):
        evaluated(reals, reals, ["fd-lite2"], precision="float32")
    with pytest.raises(RequestError, match="--precision has no use beside params"):
        evaluated(None, checkpoint, ["params"], precision="bfloat16")
    with pytest.raises(RequestError, match="precision 'half' is unknown; choose from auto, float32, bfloat16"):
        evaluated(reals, checkpoint, ["fd-lite2"], precision="half")
