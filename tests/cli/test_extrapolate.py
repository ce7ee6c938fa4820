"""`polyinr extrapolate`: beyond the border, with a frame where the trained square is."""

import io
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Run, refused, small_checkpoint
from PIL import Image

from polyinr_core.images.io import read_metadata

YELLOW = (255, 221, 0)


def pixels_of(source: Path | str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


def frame_of(polyinr: Run, *arguments: str | Path) -> np.ndarray:
    """Return where an image is framed, [H, W], and check that all else is as without a frame."""
    assert polyinr("extrapolate", *arguments, "-o", "framed.png", "--overwrite").code == 0
    assert polyinr("extrapolate", *arguments, "--no-frame", "-o", "plain.png", "--overwrite").code == 0
    framed, plain = pixels_of("framed.png"), pixels_of("plain.png")
    where = (framed != plain).any(axis=-1)
    assert (framed[where] == YELLOW).all()
    return where


@pytest.mark.parametrize(("margin", "side"), [("0.25", 24), ("0", 16), ("1", 48)])
def test_a_margin_is_a_window_of_the_same_resolution(polyinr: Run, tiny_checkpoint: Path, margin: str, side: int):
    """Oracle: sample in that window, at the size where the trained square keeps its 16 pixels; exact."""
    common = ("--seeds", "3", "-m", tiny_checkpoint)
    assert polyinr("extrapolate", *common, "--margin", margin, "-o", "x.npy").code == 0
    window = f"--grid=-{margin}:{1 + float(margin)}"
    polyinr("sample", *common, window, "--res", f"{side}", "-o", "y.npy")
    assert np.array_equal(np.load("x.npy"), np.load("y.npy"))
    if margin == "0.25":
        polyinr("extrapolate", *common, "-o", "default.npy")
        assert np.array_equal(np.load("x.npy"), np.load("default.npy"))


def test_windows_and_sizes(polyinr: Run, tiny_checkpoint: Path, tmp_path: Path):
    common = ("extrapolate", "--seeds", "3", "-m", tiny_checkpoint)
    for options, size in (
        (("--grid=-0.5:1.5,0:1",), (32, 16)),
        (("--grid=-0.5:1.5,0:1", "--res", "20"), (20, 20)),
        (("--size", "30x40"), (30, 40)),
        (("--supersample", "2"), (24, 24)),
    ):
        ran = polyinr(*common, *options, "-o", "x.png", "--overwrite", "--json")
        assert ran.code == 0, ran.stderr
        assert Image.open("x.png").size == size
        assert ran.lines[0]["size"] == list(size)
    unknown = small_checkpoint(tmp_path / "n.safetensors", resolution=0)
    refused(polyinr("extrapolate", "--seeds", "1", "-m", unknown, "-o", "y.png"), "--res", code=2)
    assert polyinr("extrapolate", "--seeds", "1", "-m", unknown, "--res", "8", "-o", "y.png").code == 0


def test_another_shape_shows_more_beside_the_trained_square(polyinr: Run, tiny_checkpoint: Path):
    """Its frame is square, in a wide image too."""
    where = frame_of(polyinr, "--seeds", "3", "-m", tiny_checkpoint, "--margin", "0.5", "--size", "61x31")
    rows, columns = np.nonzero(where)
    assert np.ptp(rows) == np.ptp(columns) > 12


def test_the_frame_stands_around_the_trained_square(polyinr: Run, tiny_checkpoint: Path):
    """A quarter apart, columns 4 to 8 are those of 0:1; the frame covers none of them."""
    expected = np.zeros((13, 13), dtype=bool)
    expected[3:10, 3:10] = True
    expected[4:9, 4:9] = False
    common = ("--seeds", "3", "-m", tiny_checkpoint, "--res", "13")
    assert np.array_equal(frame_of(polyinr, *common, "--margin", "1"), expected)
    assert np.array_equal(frame_of(polyinr, *common, "--grid=2:-1,-1:2"), expected)
    part = np.zeros((13, 13), dtype=bool)
    part[:10, 9] = part[9, :10] = True  # its right and lower sides alone, from column 8 on beyond 1
    assert np.array_equal(frame_of(polyinr, *common, "--grid=0:1.5"), part)
    assert not frame_of(polyinr, *common, "--grid=2:3").any()


def test_the_frame_grows_with_the_image(polyinr: Run, tiny_checkpoint: Path):
    """A two-hundredth of the shorter side."""
    where = frame_of(polyinr, "--seeds", "3", "-m", tiny_checkpoint, "--size", "310x300")
    assert where[150].sum() == 4  # two pixels on the left, two on the right
    assert where[:, 150].sum() == 4


def test_outputs(polyinr: Run, tiny_checkpoint: Path):
    """A folder, a sheet, stdout, a tiled TIFF and a DeepZoom image carry the same frame; an array none."""
    common = ("extrapolate", "--seeds", "3-4", "-m", tiny_checkpoint)
    assert polyinr(*common, "-o", "out/").code == 0
    assert sorted(os.listdir("out")) == ["seed0003.png", "seed0004.png"]
    first, second = (pixels_of(f"out/seed000{seed}.png") for seed in (3, 4))
    assert (first == YELLOW).all(axis=-1).sum() >= 4 * 16
    assert polyinr(*common, "-o", "x.png").code == 0
    sheet = pixels_of("x.png")
    assert np.array_equal(sheet[:24, :24], first)
    assert np.array_equal(sheet[-24:, -24:], second)
    assert np.array_equal(pixels_of(polyinr(*common, "-o", "-").stdout), sheet)
    one = ("extrapolate", "--seeds", "3", "-m", tiny_checkpoint, "--size", "300x30", "--grid=-0.25:1.25")
    for name in ("y.png", "y.tif", "y.dzi"):
        assert polyinr(*one, "-o", name).code == 0
    assert np.array_equal(tifffile.imread("y.tif"), pixels_of("y.png"))  # of two tiles
    tile = pixels_of("y_files/9/0_0.jpg").astype(float)
    assert abs(tile - pixels_of("y.png")[:, : tile.shape[1]]).mean() < 5
    assert polyinr(*one, "--bits", "16", "-o", "deep.tif").code == 0
    deep = tifffile.imread("deep.tif")
    framed = (pixels_of("y.png") == YELLOW).all(axis=-1)
    assert (deep[framed] == np.array(YELLOW) * 257).all()
    ran = polyinr(*common, "-o", "x.safetensors")
    refused(ran, "(latents)", code=2)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (("--seeds", "3"), "extrapolate"),
        (("--seeds", "3-5", "--margin", "0.1", "--psi", "0.7", "--bits", "16"), "extrapolate"),
        (("--seeds", "3", "--no-frame", "--grid=-1:1,0:2"), "sample"),
        (("--latents", "kept.safetensors", "--supersample", "2", "--res", "20"), "extrapolate"),
    ],
)
def test_a_note_draws_it_again(polyinr: Run, tiny_checkpoint: Path, options: tuple[str, ...], command: str):
    """The command that `info` prints makes the same file, byte for byte."""
    Path("model.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    polyinr("sample", "--seeds", "11-12", "-m", "model.safetensors", "-o", "kept.safetensors")
    assert polyinr("extrapolate", *options, "-m", "model.safetensors", "-o", "x.png").code == 0
    (facts,) = polyinr("info", "x.png", "--json").lines
    words = shlex.split(facts["command"])
    assert words[1] == command
    ran = polyinr(*words[1:])
    assert ran.code == 0, ran.stderr
    assert Path(words[-1]).read_bytes() == Path("x.png").read_bytes()


def test_like_a_framed_image_is_its_window_without_the_frame(polyinr: Run, tiny_checkpoint: Path):
    common = ("--seeds", "3", "-m", tiny_checkpoint)
    polyinr("extrapolate", *common, "-o", "x.png")
    polyinr("extrapolate", *common, "--no-frame", "-o", "plain.png")
    assert polyinr("sample", "--like", "x.png", "-m", tiny_checkpoint, "-o", "like.png").code == 0
    assert np.array_equal(pixels_of("like.png"), pixels_of("plain.png"))
    assert read_metadata(Path("like.png"))["window"] == [-0.25, -0.25, 1.25, 1.25]
