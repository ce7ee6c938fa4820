"""`polyinr sample --like`: an image drawn before, drawn again in another way."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused, small_checkpoint
from PIL import Image

from polyinr_core.images.io import read_metadata, write_image


@pytest.fixture
def draw(polyinr: Run, tiny_checkpoint: Path):
    """`polyinr sample` with a tiny model, to its end."""

    def run(*arguments: str) -> None:
        ran = polyinr("sample", "-m", tiny_checkpoint, *arguments)
        assert ran.code == 0, ran.stderr

    return run


def test_a_wide_image_keeps_its_shape(draw):
    draw("--seeds", "3", "--size", "20x10", "-o", "x.png")
    draw("--like", "x.png", "--res", "60", "-o", "y.png")
    draw("--seeds", "3", "--size", "60x30", "-o", "z.png")
    assert np.array_equal(Image.open("y.png"), Image.open("z.png"))


def test_one_of_a_folder_drawn_from_latents(draw):
    draw("--seeds", "3-5", "-o", "kept.safetensors")
    draw("--latents", "kept.safetensors", "-o", "all")
    draw("--like", "all/seed0004.png", "-o", "y.png")
    assert Path("y.png").read_bytes() == Path("all/seed0004.png").read_bytes()


def test_bits_and_precision_are_kept(draw):
    draw("--seeds", "3", "--bits", "16", "--precision", "float64", "-o", "x.tif")
    draw("--like", "x.tif", "-o", "y.tif")
    assert Path("y.tif").read_bytes() == Path("x.tif").read_bytes()
    draw("--like", "x.tif", "--bits", "8", "--precision", "float32", "-o", "z.tif")
    assert "bits" not in read_metadata(Path("z.tif"))
    assert read_metadata(Path("z.tif"))["precision"] == "float32"


def test_another_window_of_the_same_image(draw):
    draw("--seeds", "3", "--size", "20x10", "--rotate", "20", "-o", "x.png")
    draw("--like", "x.png", "--zoom", "2", "-o", "y.png")
    draw("--seeds", "3", "--size", "20x10", "--zoom", "2", "-o", "z.png")
    assert np.array_equal(Image.open("y.png"), Image.open("z.png"))


def test_every_class_is_drawn_again_by_its_own_command(polyinr: Run, tiny_class_checkpoint: Path):
    polyinr("sample", "-m", tiny_class_checkpoint, "--seeds", "1-2", "--class-grid", "-o", "x.png")
    command = polyinr("info", "x.png", "--json").lines[0]["command"].split()
    command[command.index("-m") + 1] = str(tiny_class_checkpoint)
    assert polyinr(*command[1:]).code == 0
    assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()


def test_what_cannot_be_followed_is_refused(polyinr: Run, tiny_checkpoint: Path, tmp_path: Path):
    other = small_checkpoint(tmp_path / "other.safetensors", levels=4)
    own = ("-m", tiny_checkpoint)
    polyinr("sample", *own, "--seeds", "1", "-o", "x.png")
    polyinr("sample", *own, "--seeds", "1", "-o", "x.jpg")
    polyinr("mix", *own, "1", "2", "--levels", "1", "-o", "mixed.png")
    refused(polyinr("sample", "-m", other, "--like", "x.png", "-o", "y.png"), "another model", "--force", code=1)
    assert polyinr("sample", "-m", other, "--like", "x.png", "--force", "-o", "y.png").code == 0
    refused(polyinr("sample", *own, "--like", "x.jpg", "-o", "z.png"), "no metadata", code=1)
    refused(polyinr("sample", *own, "--like", "mixed.png", "-o", "z.png"), "polyinr info", code=1)
    refused(polyinr("sample", *own, "--like", "none.png", "-o", "z.png"), "none.png", code=1)
    polyinr("sample", *own, "--seeds", "1", "-o", "kept.safetensors")
    polyinr("sample", *own, "--latents", "kept.safetensors", "-o", "w.png")
    Path("kept.safetensors").unlink()
    refused(polyinr("sample", *own, "--like", "w.png", "-o", "z.png"), "kept.safetensors", "--latents", code=1)


def test_the_window_of_a_image_of_another_command(polyinr: Run, draw, tiny_checkpoint: Path):
    """With images of one's own any metadata with a window will do."""
    own = ("-m", tiny_checkpoint)
    polyinr("mix", *own, "1", "2", "--levels", "1", "--size", "9x7", "-o", "mixed.png")
    draw("--like", "mixed.png", "--seeds", "1", "-o", "y.png")
    assert Image.open("y.png").size == (9, 7)
    note = {key: value for key, value in read_metadata(Path("mixed.png")).items() if key not in ("size", "window")}
    write_image(Path("none.png"), np.zeros((7, 9, 3), dtype=np.uint8), metadata=note)
    refused(polyinr("sample", *own, "--like", "none.png", "--seeds", "1", "-o", "z.png"), "no viewport", code=1)


def test_bits_that_there_are_none_of(polyinr: Run, draw, tiny_checkpoint: Path):
    refused(polyinr("sample", "-m", tiny_checkpoint, "--seeds", "1", "--bits", "0", "-o", "x.png"), "--bits 0", code=2)
    draw("--seeds", "1", "-o", "x.png")
    note = read_metadata(Path("x.png")) | {"bits": 12}
    write_image(Path("y.png"), np.zeros((2, 2, 3), dtype=np.uint8), metadata=note)
    refused(polyinr("sample", "-m", tiny_checkpoint, "--like", "y.png", "-o", "z.png"), "damaged", code=1)
