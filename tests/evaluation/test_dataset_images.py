"""Stored images to be judged: reduced, chosen, held out, of any kind of file."""

from pathlib import Path

import pytest
import torch
from evaluation_inputs import write_images

from polyinr_core.evaluation.image_sources import DatasetImages


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


def test_images_are_area_averaged_and_the_subset_is_fixed(reals: Path) -> None:
    whole = torch.cat(list(DatasetImages.open(reals).batches()))
    halves = torch.cat(list(DatasetImages.open(reals, resolution=4).batches()))
    means = whole.double().unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    assert (halves.double() - means).abs().max() <= 0.5 + 1e-6
    some = DatasetImages.open(reals, count=5)
    assert some.indices == DatasetImages.open(reals, count=5).indices
    assert len(torch.cat(list(some.batches()))) == 5


@pytest.mark.parametrize(("first", "last"), [(0, 24), (5, 7), (24, 24)])
def test_a_range_is_read_alone(reals: Path, first: int, last: int) -> None:
    images = DatasetImages.open(reals, resolution=4)
    whole = torch.cat(list(images.batches()))
    part = [whole[:0], *images.batches(range(first, last))]
    assert torch.equal(torch.cat(part), whole[first:last])
