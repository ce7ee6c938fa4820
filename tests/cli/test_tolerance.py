"""`polyinr sample --tolerance`: near the exact image, noted in it, and the same in every form of output."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image

from polyinr_core.images.io import read_metadata, write_image


@pytest.fixture
def draw(polyinr: Run, tiny_checkpoint: Path):
    """`polyinr sample` of seed 3 with a tiny model, to its end."""

    def run(*arguments: str, size: str = "150x130") -> None:
        ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "3", "--size", size, *arguments)
        assert ran.code == 0, ran.stderr

    return run


@pytest.mark.parametrize("more", [(), ("--grid", "-0.5:1.5"), ("--rotate", "30", "--supersample", "2")])
def test_the_image_is_within_the_tolerance(draw, more: tuple[str, ...]):
    draw(*more, "-o", "exact.npy")
    draw(*more, "--tolerance", "0.5", "-o", "x.npy")
    off = 127.5 * np.abs(np.load("x.npy") - np.load("exact.npy")).max(axis=-1)
    assert off.max() > 0
    assert (off > 0.5).mean() <= 0.001


def test_zero_is_the_exact_image(draw):
    draw("-o", "exact.png")
    draw("--tolerance", "0", "-o", "x.png")
    assert Path("x.png").read_bytes() == Path("exact.png").read_bytes()


def test_tiles_and_rows_are_the_same_image(draw):
    """A TIFF is drawn tile by tile, a PNG in bands; their pixels are the same."""
    for name in ("x.png", "x.tif"):
        draw("--tolerance", "1", "-o", name, size="600x300")
    assert np.array_equal(Image.open("x.png"), Image.open("x.tif"))


def test_the_note_draws_it_again(draw, polyinr: Run, tiny_checkpoint: Path):
    draw("--tolerance", "0.5", "-o", "x.png")
    assert read_metadata(Path("x.png"))["tolerance"] == 0.5
    command = polyinr("info", "x.png", "--json").lines[0]["command"].split()
    command[command.index("-m") + 1] = str(tiny_checkpoint)
    assert polyinr(*command[1:]).code == 0
    assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()


def test_like_keeps_it_unless_overridden(draw, polyinr: Run, tiny_checkpoint: Path):
    draw("--tolerance", "0.5", "-o", "x.png")
    draw("-o", "exact.png")
    for arguments, same in (((), "x.png"), (("--tolerance", "0"), "exact.png")):
        polyinr("sample", "-m", tiny_checkpoint, "--like", "x.png", *arguments, "-o", "y.png", "--overwrite")
        assert Path("y.png").read_bytes() == Path(same).read_bytes()


def test_sheets_of_classes(polyinr: Run, tiny_class_checkpoint: Path):
    common = ("sample", "-m", tiny_class_checkpoint, "--res", "70", "--tolerance", "1")
    assert polyinr(*common, "--seeds", "1", "--class-grid", "-o", "x.png").code == 0
    command = polyinr("info", "x.png", "--json").lines[0]["command"].split()
    command[command.index("-m") + 1] = str(tiny_class_checkpoint)
    assert polyinr(*command[1:]).code == 0
    assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()
    assert polyinr(*common, "--seeds", "1", "--label", "class b", "-o", "y.png").code == 0
    assert read_metadata(Path("y.png"))["tolerance"] == 1


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "256", "little"])
def test_bad_values(polyinr: Run, tiny_checkpoint: Path, text: str):
    ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "1", f"--tolerance={text}", "-o", "x.png")
    refused(ran, "--tolerance", code=2)
    assert not Path("x.png").exists()


def test_latents_are_not_drawn(polyinr: Run, tiny_checkpoint: Path):
    ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "1", "--tolerance", "1", "-o", "x.safetensors")
    refused(ran, "--tolerance", code=2)
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize("tolerance", [-1, 300, "much"])
def test_a_damaged_note(polyinr: Run, tiny_checkpoint: Path, draw, tolerance: object):
    draw("--tolerance", "1", "-o", "x.png")
    note = read_metadata(Path("x.png")) | {"tolerance": tolerance}
    write_image(Path("y.png"), np.zeros((2, 2, 3), np.uint8), metadata=note)
    refused(polyinr("sample", "-m", tiny_checkpoint, "--like", "y.png", "-o", "z.png"), "y.png", "damaged", code=1)


DRAW = """
import resource, sys
from polyinr_cli.main import outcome
assert outcome(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path: Path, tiny_checkpoint: Path):
    """Oracle: tiles are held by number, an array is written as it is drawn. 24 MiB for what allocators keep."""
    peaks = []
    for size in ("1000x300", "2000x2000"):
        words = ["sample", "--seeds", "1", "-m", str(tiny_checkpoint), "--size", size, "--tolerance", "0.5"]
        command = [sys.executable, "-c", DRAW, *words, "-q", "-o", str(tmp_path / f"{size}.npy")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 24 * 1024
