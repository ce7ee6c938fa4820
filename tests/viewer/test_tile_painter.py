"""Tiles drawn: as the picture's own window, in the format of their level, given up when nobody wants them."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.model import draw_rows
from polyinr_core.pictures.pixels import to_uint8
from polyinr_core.snapshots.snapshot import Snapshot, load_snapshot
from polyinr_core.viewer import painter as painters
from polyinr_core.viewer.choice import Choice
from polyinr_core.viewer.painter import GivenUp, TilePainter
from polyinr_core.viewer.tiles import Tile

NEAR, DEEP = Tile(13, 15, 16), Tile(40, 2**31, 2**31)


@pytest.fixture(scope="module")
def snapshot(tiny_class_snapshot: Path) -> Snapshot:
    return load_snapshot(tiny_class_snapshot)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(("tile", "dtype"), [(NEAR, torch.float32), (DEEP, torch.float64)])
def test_a_tile_is_its_window_drawn_by_the_model(snapshot: Snapshot, tile: Tile, dtype: torch.dtype) -> None:
    choice = Choice(seed=2)
    network = copy.deepcopy(snapshot.generator.synthesis).to(dtype)
    affine = choice.latents(snapshot).affine[0].to(dtype)
    expected = to_uint8(torch.cat(list(draw_rows(network, affine, tile.view(16).grid()))))
    painter = TilePainter(snapshot)
    assert np.array_equal(pixels(painter.draw(choice, tile)), expected)
    assert list(painter.drawers) == [dtype]


def test_with_a_tolerance_a_tile_looks_the_same(snapshot: Snapshot) -> None:
    painters_of = [TilePainter(snapshot, tolerance=tolerance) for tolerance in (0.0, 1.0)]
    exact, near = (pixels(painter.draw(Choice(), NEAR)).astype(int) for painter in painters_of)
    off = np.abs(exact - near).max(axis=-1)
    assert (off <= 2).mean() >= 0.999  # the tolerance, and the fraction that eight bits drop
    assert exact.std() > 0


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_what_nobody_wants_is_given_up_between_blocks(snapshot: Snapshot, tolerance: float) -> None:
    asked = []

    def wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    with pytest.raises(GivenUp):
        TilePainter(snapshot, tolerance=tolerance).draw(Choice(), NEAR, wanted=wanted)
    assert len(asked) == 3


def test_maps_of_few_pictures_are_kept(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painters, "KEPT_PICTURES", 2)
    painter = TilePainter(snapshot)
    for seed in (0, 1, 0, 2):
        painter.affine(Choice(seed))
    assert list(painter.maps) == [Choice(0), Choice(2)]
