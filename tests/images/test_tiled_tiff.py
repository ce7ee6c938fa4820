"""Tiled TIFF: what is drawn is what other readers find, at every level, whole or not at all."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.images import tiled as tiled_tiff
from polyinr_core.images.io import read_metadata
from polyinr_core.images.tiled import RenderTile, level_sizes, tile_count, write_tiled_tiff

METADATA = {"polyinr": "1", "seed": 7, "class": "né — 猫"}


def render_noise(width: int, height: int, *, dtype: type = np.uint8) -> tuple[RenderTile, list[np.ndarray]]:
    """Return levels of noise, each drawn for itself, and the callback that cuts tiles from them."""
    noise = np.random.RandomState(0)
    top = np.iinfo(dtype).max + 1
    levels = [noise.randint(0, top, (h, w, 3)).astype(dtype) for w, h in level_sizes(width, height, smallest=1)]

    def draw(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        return levels[level][top : top + height, left : left + width]

    return draw, levels


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "smallest", "sizes"),
    [
        ((7, 5), 1, [(7, 5), (4, 3), (2, 2), (1, 1)]),
        ((8, 1), 1, [(8, 1), (4, 1), (2, 1), (1, 1)]),
        ((1, 1), 1, [(1, 1)]),
        ((1025, 3), 256, [(1025, 3), (513, 2), (257, 1), (129, 1)]),
        ((256, 256), 256, [(256, 256)]),
    ],
)
def test_levels_halve_and_round_up(size: tuple[int, int], smallest: int, sizes: list[tuple[int, int]]):
    assert level_sizes(*size, smallest=smallest) == sizes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_small_images_are_read_by_others(tmp_path: Path, dtype: type):
    draw, levels = render_noise(300, 257, dtype=dtype)
    path = tmp_path / "x.tif"
    reported: list[int] = []
    write_tiled_tiff(path, draw, width=300, height=257, dtype=dtype, metadata=METADATA, progress=reported.append)
    with tifffile.TiffFile(path) as tiff:
        assert np.array_equal(tiff.asarray(), levels[0])
        assert (tiff.is_bigtiff, len(tiff.pages), len(tiff.series[0].levels)) == (False, 1, 1)
        assert tiff.pages.first.tile == (256, 256)
        assert "Software" not in tiff.pages.first.tags
    if dtype == np.uint8:
        assert np.array_equal(np.asarray(Image.open(path)), levels[0])
    assert read_metadata(path) == METADATA
    assert sum(reported) == tile_count(300, 257) == 4


def test_a_large_image_has_a_pyramid(tmp_path: Path):
    draw, levels = render_noise(1100, 600)
    path = tmp_path / "x.tiff"
    reported: list[int] = []
    write_tiled_tiff(path, draw, width=1100, height=600, dtype=np.uint8, progress=reported.append)
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        assert [level.shape[:2] for level in series.levels] == [(600, 1100), (300, 550), (150, 275), (75, 138)]
        for level, drawn in zip(series.levels, levels, strict=False):
            assert np.array_equal(level.asarray(), drawn)
        assert [level.pages[0].subfiletype for level in series.levels] == [0, 1, 1, 1]
    assert np.array_equal(np.asarray(Image.open(path)), levels[0])
    assert sum(reported) == tile_count(1100, 600) == 15 + 6 + 2 + 1
    assert read_metadata(path) == {}


def test_what_could_outgrow_four_gigabytes_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiled_tiff, "PLAIN_BYTES", 256 * 256 * 3)
    for side, big in ((256, False), (257, True)):
        draw, levels = render_noise(side, side)
        path = tmp_path / f"{side}.tif"
        write_tiled_tiff(path, draw, width=side, height=side, dtype=np.uint8, metadata=METADATA)
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_bigtiff == big
            assert np.array_equal(tiff.asarray(), levels[0])
        assert read_metadata(path) == METADATA


def test_a_broken_off_drawing_leaves_nothing(tmp_path: Path):
    draw, _ = render_noise(600, 600)

    def stopped(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if top:
            raise KeyboardInterrupt
        return draw(level, left, top, width, height)

    with pytest.raises(KeyboardInterrupt):
        write_tiled_tiff(tmp_path / "new" / "x.tif", stopped, width=600, height=600, dtype=np.uint8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 100, 300_000, 1_500_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, size: int):
    draw, _ = render_noise(800, 800)
    with small_files(size), pytest.raises(FileError, match=r"x\.tif: file too large"):
        write_tiled_tiff(tmp_path / "x.tif", draw, width=800, height=800, dtype=np.uint8)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_drawn_for_a_file_that_is_there_or_cannot_be(tmp_path: Path):
    def draw(*_: int) -> np.ndarray:
        raise AssertionError("drawn")

    (tmp_path / "x.tif").write_bytes(b"mine")
    with pytest.raises(FileError, match="--overwrite"):
        write_tiled_tiff(tmp_path / "x.tif", draw, width=8, height=8, dtype=np.uint8)
    with pytest.raises(RequestError, match="2147483647"):
        write_tiled_tiff(tmp_path / "y.tif", draw, width=2**31, height=8, dtype=np.uint8)
    with pytest.raises(RequestError, match="float32"):
        write_tiled_tiff(tmp_path / "y.tif", draw, width=8, height=8, dtype=np.float32)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path: Path):
    """Peak resident memory of a process that writes 1024 and 4096 pixels a side: within 8 MB of each other.

    Uncompressed they would be 3 and 48 MB."""
    import subprocess
    import sys

    script = """
import resource, sys
from pathlib import Path
import numpy as np
from polyinr_core.images.tiled import write_tiled_tiff
side = int(sys.argv[1])
def draw(level, left, top, width, height):
    x, y = np.arange(left, left + width), np.arange(top, top + height)
    return ((x[None, :, None] ^ y[:, None, None]) >> np.arange(3)).astype(np.uint8)
write_tiled_tiff(Path(sys.argv[2]), draw, width=side, height=side, dtype=np.uint8, overwrite=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", script, str(side), str(tmp_path / "x.tif")]))
        for side in (1024, 4096)
    ]
    assert peaks[1] < peaks[0] + 8 * 1024
