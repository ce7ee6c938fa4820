"""The images that a model generates do not depend on how they are requested."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_checkpoint
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import RequestError
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
