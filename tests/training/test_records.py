"""The film strip: one row a sheet, one tile size, from whatever sheets are there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.images.grid import Pixels, make_grid
from polyinr_core.images.io import write_image
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.training.run_dir import RunFolder
from polyinr_core.training.samples import MAX_ROWS, MAX_TILE, film_strip, save_checkpoint_and_samples, save_film_strip

COLUMNS, ROWS = 8, 4


def write_sheet(path: Path, *, side: int, first: int = 0) -> Path:
    """Write a sheet whose images are of one color each: first, first + 1, ..."""
    colors = np.arange(first, first + COLUMNS * ROWS, dtype=np.uint8)
    write_image(path, make_grid(np.broadcast_to(colors[:, None, None, None], (len(colors), side, side, 3)), COLUMNS))
    return path


def strip_of(sheets: list[Path]) -> Pixels:
    strip = film_strip(sheets, columns=COLUMNS, rows=ROWS)
    assert strip is not None
    return strip


def tiles(strip: Pixels, side: int) -> list[list[int]]:
    """The value of each tile's middle, row by row."""
    return strip[side // 2 :: side + 2, side // 2 :: side + 2, 0].tolist()


def test_rows_are_records_and_columns_seeds(tmp_path: Path) -> None:
    paths = [write_sheet(tmp_path / f"{i}.png", side=6, first=40 * i) for i in range(3)]
    strip = strip_of(paths)
    assert strip.shape == (3 * 8 - 2, 8 * 8 - 2, 3)
    assert tiles(strip, 6) == [[40 * i + column for column in range(8)] for i in range(3)]


def test_all_sizes_become_the_largest(tmp_path: Path) -> None:
    paths = [write_sheet(tmp_path / f"{i}.png", side=side, first=i) for i, side in enumerate((4, 8, 16))]
    strip = strip_of(paths)
    assert strip.shape == (3 * 18 - 2, 8 * 18 - 2, 3)
    assert tiles(strip, 16) == [[i + column for column in range(8)] for i in range(3)]


def test_small_images_are_repeated_pixels_and_large_ones_area_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 256, (32, side, side, 3), dtype=np.uint8) for side in (64, 256))
    for name, images in (("small", small), ("large", large)):
        write_image(tmp_path / f"{name}.png", make_grid(images, COLUMNS))
    strip = strip_of([tmp_path / "small.png", tmp_path / "large.png"])
    tile = MAX_TILE
    assert strip.shape == (2 * tile + 2, 8 * (tile + 2) - 2, 3)
    assert np.array_equal(strip[:tile, :tile], small[0].repeat(2, axis=0).repeat(2, axis=1))
    means = large[0].reshape(tile, 2, tile, 2, 3).mean(axis=(1, 3))
    assert np.abs(strip[tile + 2 :, :tile] - means).max() <= 1  # rounded along each axis


@pytest.mark.parametrize("count", [MAX_ROWS, MAX_ROWS + 1, 2 * MAX_ROWS + 20])
def test_many_rows_are_thinned_out_evenly(tmp_path: Path, count: int) -> None:
    paths = [write_sheet(tmp_path / f"{i:03d}.png", side=1, first=i) for i in range(count)]
    taken = [row[0] for row in tiles(strip_of(paths), 1)]
    assert len(taken) == MAX_ROWS
    assert (taken[0], taken[-1]) == (0, count - 1)
    gaps = np.diff(taken)
    assert 1 <= gaps.min() <= gaps.max() <= gaps.min() + 1


def test_what_is_no_sheet_is_left_out(tmp_path: Path) -> None:
    good = write_sheet(tmp_path / "good.png", side=6, first=10)
    whole = write_sheet(tmp_path / "whole.png", side=6).read_bytes()
    bad = []
    for name, content in {
        "empty": b"",
        "text": b"no image",
        "cut": whole[: len(whole) // 2],
        "header": whole[:20],
        "changed": whole[:60] + b"\0\0\0\0" + whole[64:],
    }.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        bad.append(tmp_path / f"{name}.png")
    Image.new("RGB", (100, 50)).save(tmp_path / "other.png")
    bad += [tmp_path / "other.png", tmp_path / "absent.png", tmp_path]
    assert np.array_equal(strip_of([*bad, good, *bad]), strip_of([good]))
    assert film_strip(bad, columns=COLUMNS, rows=ROWS) is None
    assert film_strip([], columns=COLUMNS, rows=ROWS) is None


def test_no_damage_of_a_sheet_is_an_error(tmp_path: Path) -> None:
    """Any cut, any byte changed: the row is there or not."""
    path = write_sheet(tmp_path / "sheet.png", side=3)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 150):
        path.write_bytes(whole[:position])
        film_strip([path], columns=COLUMNS, rows=ROWS)
        changed = whole.copy()
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        film_strip([path], columns=COLUMNS, rows=ROWS)


def test_age_is_the_images_seen(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for i, name in enumerate(("fakes-999999999", "fakes-000000000", "fakes-1000000000", "reals")):
        write_sheet(folder.sample(name), side=4, first=20 * i)
    save_film_strip(folder)
    shown = np.asarray(Image.open(folder.sample("progress")))
    assert [row[0] for row in tiles(shown, 4)] == [20, 0, 40]


def test_a_record_is_a_checkpoint_a_sheet_and_a_row(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(form="release", levels=3, channels=16, z_dim=8, w_dim=12))
    for seen, side in ((500, 8), (1500, 16)):
        checkpoint = Checkpoint(generator, class_names=(), resolution=side, kimg=seen / 1000, data_sha256="ab" * 32)
        pixels = save_checkpoint_and_samples(folder, checkpoint, images=seen)
        assert pixels.shape == (32, side, side, 3)
        assert folder.checkpoint(seen).exists()
        shown = np.asarray(Image.open(folder.sample(f"fakes-{seen:09d}")))
        assert np.array_equal(shown, make_grid(pixels, COLUMNS))
        strip = np.asarray(Image.open(folder.sample("progress")))
        assert np.array_equal(strip[-side:], shown[:side])
    assert strip.shape == (2 * 18 - 2, 8 * 18 - 2, 3)
