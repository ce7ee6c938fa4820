"""Tiles drawn: as the image's own window, in the format of their level, given up when nobody wants them."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.images.grid import to_uint8
from polyinr_core.rendering.render import render_rows
from polyinr_core.viewer import tiles as tiles
from polyinr_core.viewer.tiles import RenderCancelled, Selection, TileIndex, TileRenderer

NEAR, DEEP = TileIndex(13, 15, 16), TileIndex(40, 2**31, 2**31)


@pytest.fixture(scope="module")
def checkpoint(tiny_class_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_class_checkpoint)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(("tile", "dtype"), [(NEAR, torch.float32), (DEEP, torch.float64)])
def test_a_tile_is_its_window_drawn_by_the_model(checkpoint: Checkpoint, tile: TileIndex, dtype: torch.dtype) -> None:
    selection = Selection(seed=2)
    network = copy.deepcopy(checkpoint.generator.synthesis).to(dtype)
    affine = selection.latents(checkpoint).affine[0].to(dtype)
    expected = to_uint8(torch.cat(list(render_rows(network, affine, tile.viewport(16).grid()))))
    renderer = TileRenderer(checkpoint)
    assert np.array_equal(pixels(renderer.render(selection, tile)), expected)
    assert list(renderer.backends) == [dtype]


def test_with_a_tolerance_a_tile_looks_the_same(checkpoint: Checkpoint) -> None:
    renderers = [TileRenderer(checkpoint, tolerance=tolerance) for tolerance in (0.0, 1.0)]
    exact, near = (pixels(renderer.render(Selection(), NEAR)).astype(int) for renderer in renderers)
    off = np.abs(exact - near).max(axis=-1)
    assert (off <= 2).mean() >= 0.999  # the tolerance, and the fraction that eight bits drop
    assert exact.std() > 0


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_what_nobody_wants_is_given_up_between_blocks(checkpoint: Checkpoint, tolerance: float) -> None:
    asked = []

    def is_wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    with pytest.raises(RenderCancelled):
        TileRenderer(checkpoint, tolerance=tolerance).render(Selection(), NEAR, is_wanted=is_wanted)
    assert len(asked) == 3


def test_maps_of_few_images_are_kept(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "AFFINE_CACHE_SIZE", 2)
    renderer = TileRenderer(checkpoint)
    for seed in (0, 1, 0, 2):
        renderer.affine(Selection(seed))
    assert list(renderer.affine_cache) == [Selection(0), Selection(2)]
