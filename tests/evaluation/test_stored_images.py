"""Stored images to be judged: reduced, chosen, held out, of any kind of file."""

from pathlib import Path

import pytest
import torch
from eyes import write_images

from polyinr_core.evaluation.image_sources import open_images


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


def test_images_are_reduced_by_area_and_chosen_once(reals: Path) -> None:
    whole = torch.cat(list(open_images(reals).passes()))
    halves = torch.cat(list(open_images(reals, side=4).passes()))
    means = whole.double().unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    assert (halves.double() - means).abs().max() <= 0.5 + 1e-6
    some = open_images(reals, count=5)
    assert some.order == open_images(reals, count=5).order
    assert len(torch.cat(list(some.passes()))) == 5


@pytest.mark.parametrize(("first", "last"), [(0, 24), (5, 7), (24, 24)])
def test_a_part_is_read_alone(reals: Path, first: int, last: int) -> None:
    images = open_images(reals, side=4)
    whole = torch.cat(list(images.passes()))
    part = [whole[:0], *images.passes(range(first, last))]
    assert torch.equal(torch.cat(part), whole[first:last])
