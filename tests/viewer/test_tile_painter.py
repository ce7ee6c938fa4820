"""Tiles drawn: as the image's own window, in the format of their level, given up when nobody wants them."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.images.quantize import to_uint8
from polyinr_core.rendering.render import render_rows
from polyinr_core.viewer import tiles as painters
from polyinr_core.viewer.selection import Choice
from polyinr_core.viewer.tiles import GivenUp, Tile, TilePainter

NEAR, DEEP = Tile(13, 15, 16), Tile(40, 2**31, 2**31)


@pytest.fixture(scope="module")
def checkpoint(tiny_class_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_class_checkpoint)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(("tile", "dtype"), [(NEAR, torch.float32), (DEEP, torch.float64)])
def test_a_tile_is_its_window_drawn_by_the_model(checkpoint: Checkpoint, tile: Tile, dtype: torch.dtype) -> None:
    choice = Choice(seed=2)
    network = copy.deepcopy(checkpoint.generator.synthesis).to(dtype)
    affine = choice.latents(checkpoint).affine[0].to(dtype)
    expected = to_uint8(torch.cat(list(render_rows(network, affine, tile.view(16).grid()))))
    painter = TilePainter(checkpoint)
    assert np.array_equal(pixels(painter.draw(choice, tile)), expected)
    assert list(painter.drawers) == [dtype]


def test_with_a_tolerance_a_tile_looks_the_same(checkpoint: Checkpoint) -> None:
    painters_of = [TilePainter(checkpoint, tolerance=tolerance) for tolerance in (0.0, 1.0)]
    exact, near = (pixels(painter.draw(Choice(), NEAR)).astype(int) for painter in painters_of)
    off = np.abs(exact - near).max(axis=-1)
    assert (off <= 2).mean() >= 0.999  # the tolerance, and the fraction that eight bits drop
    assert exact.std() > 0


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_what_nobody_wants_is_given_up_between_blocks(checkpoint: Checkpoint, tolerance: float) -> None:
    asked = []

    def wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    with pytest.raises(GivenUp):
        TilePainter(checkpoint, tolerance=tolerance).draw(Choice(), NEAR, wanted=wanted)
    assert len(asked) == 3


def test_maps_of_few_images_are_kept(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painters, "KEPT_IMAGES", 2)
    painter = TilePainter(checkpoint)
    for seed in (0, 1, 0, 2):
        painter.affine(Choice(seed))
    assert list(painter.maps) == [Choice(0), Choice(2)]
