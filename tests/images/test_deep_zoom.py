"""DeepZoom: the tiles put together are the image, at every level, whole or not at all."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.images.tiled import (
    RenderTile,
    check_deep_zoom,
    level_sizes,
    read_deep_zoom_metadata,
    tile_regions,
    tiles_folder,
    write_deep_zoom,
    zoom_tile_count,
)

METADATA = {"polyinr": "1", "seed": 7}


def render_noise(width: int, height: int) -> tuple[RenderTile, list[np.ndarray]]:
    """Return smooth levels, their blue telling which, and the callback that cuts tiles from them."""
    levels = []
    for number, (w, h) in enumerate(level_sizes(width, height, smallest=1)):
        x, y = np.linspace(0, 200, w), np.linspace(0, 200, h)
        level = np.stack([x[None].repeat(h, 0), y[:, None].repeat(w, 1), np.full((h, w), 20.0 * number)], axis=-1)
        levels.append(level.astype(np.uint8))

    def draw(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        return levels[level][top : top + height, left : left + width]

    return draw, levels


def test_levels_put_together_are_what_was_drawn(tmp_path: Path):
    """By the schema: level n-1-k has side ceil(side / 2^k); tiles lie 254 apart and show one pixel more a side.

    JPEG at quality 95 moves smooth colors by a few levels.
    """
    width, height = 600, 255
    draw, levels = render_noise(width, height)
    reported: list[int] = []
    write_deep_zoom(tmp_path / "x.dzi", draw, width=width, height=height, metadata=METADATA, progress=reported.append)
    folder = tmp_path / "x_files"
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == sorted(str(n) for n in range(11))
    tiles = 0
    for number, drawn in enumerate(reversed(levels)):
        whole = np.full(drawn.shape, -99, dtype=int)
        for file in (folder / str(number)).iterdir():
            column, row = (int(digits) for digits in file.stem.split("_"))
            tile = np.asarray(Image.open(file)).astype(int)
            left, top = max(0, 254 * column - 1), max(0, 254 * row - 1)
            whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            assert tile.shape[1] == min(drawn.shape[1], 254 * column + 255) - left
            assert tile.shape[0] == min(drawn.shape[0], 254 * row + 255) - top
            tiles += 1
        assert np.abs(whole - drawn).max() <= 6
    assert tiles == sum(reported) == zoom_tile_count(width, height) == 3 * 2 + 2 + 9


def test_the_header_is_the_schemas(tmp_path: Path):
    draw, _ = render_noise(20, 10)
    write_deep_zoom(tmp_path / "x.dzi", draw, width=20, height=10, metadata=METADATA)
    image = ElementTree.parse(tmp_path / "x.dzi").getroot()
    space = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert image.tag == f"{space}Image"
    assert image.attrib == {"TileSize": "254", "Overlap": "1", "Format": "jpg"}
    assert [(child.tag, child.attrib) for child in image] == [(f"{space}Size", {"Width": "20", "Height": "10"})]


def test_the_metadata_lies_among_the_tiles(tmp_path: Path):
    draw, _ = render_noise(3, 3)
    write_deep_zoom(tmp_path / "x.dzi", draw, width=3, height=3, metadata=METADATA)
    write_deep_zoom(tmp_path / "y.dzi", draw, width=3, height=3)
    assert json.loads((tmp_path / "x_files" / "polyinr.json").read_text()) == METADATA
    assert read_deep_zoom_metadata(tmp_path / "x.dzi") == METADATA
    assert read_deep_zoom_metadata(tmp_path / "y.dzi") == {}


def test_tiles_cover_a_level_with_their_overlap():
    assert [tuple(place) for place in tile_regions(300, 10)] == [(0, 0, 0, 0, 255, 10), (1, 0, 253, 0, 47, 10)]
    assert [tuple(place) for place in tile_regions(1, 1)] == [(0, 0, 0, 0, 1, 1)]


def test_overwriting_replaces_file_and_folder(tmp_path: Path):
    path = tmp_path / "x.dzi"
    draw, _ = render_noise(40, 40)
    write_deep_zoom(path, draw, width=40, height=40)
    for name in ("x.dzi", "other.dzi"):
        (tmp_path / "other_files").mkdir(exist_ok=True)
        with pytest.raises(FileError, match="--overwrite"):
            write_deep_zoom(tmp_path / name, draw, width=8, height=8)
    draw, _ = render_noise(8, 8)
    write_deep_zoom(path, draw, width=8, height=8, overwrite=True)
    assert sorted(p.name for p in tiles_folder(path).iterdir()) == ["0", "1", "2", "3"]
    assert 'Width="8"' in path.read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, FileError("x", "no space left on the disk")])
def test_an_interruption_leaves_what_was_there(tmp_path: Path, error: BaseException):
    path = tmp_path / "x.dzi"
    draw, _ = render_noise(600, 600)

    def stopped(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if level == 2:
            raise error
        return draw(level, left, top, width, height)

    with pytest.raises(type(error) if isinstance(error, FileError) else KeyboardInterrupt):
        write_deep_zoom(path, stopped, width=600, height=600)
    assert list(tmp_path.iterdir()) == []
    write_deep_zoom(path, *render_noise(3, 3)[:1], width=3, height=3)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    with pytest.raises(type(error) if isinstance(error, FileError) else KeyboardInterrupt):
        write_deep_zoom(path, stopped, width=600, height=600, overwrite=True)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_a_folder_without_its_file_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk may fill up between the folder's renaming and the file's."""
    draw, _ = render_noise(8, 8)
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if str(target).endswith(".dzi"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(FileError, match="no space left"):
        write_deep_zoom(tmp_path / "x.dzi", draw, width=8, height=8)
    assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_be(tmp_path: Path):
    with pytest.raises(RequestError, match=r"\*\.dzi"):
        check_deep_zoom(tmp_path / "x.png", overwrite=False)
    (tmp_path / "x_files").write_text("mine")
    with pytest.raises(FileError, match="is a file"):
        check_deep_zoom(tmp_path / "x.dzi", overwrite=True)
