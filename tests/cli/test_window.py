"""Windows of every kind as a command draws them, against the generator at the points they mean, in float64."""

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import Run, refused
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.latents import from_seeds
from polyinr_core.models.coordinates import UNIT
from polyinr_core.rendering.model import load
from polyinr_core.rendering.viewport import Viewport

Look = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
WIDTH, HEIGHT = 30, 20


def pixels_of(source: Path | str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


@torch.no_grad()
def colors(model: Path, seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a seed's colors at points of the plane, [..., 3], all at once."""
    generator = load_checkpoint(model).generator.double()
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    drawn = generator.synthesis(from_seeds(generator, [seed]).affine, torch.from_numpy(points))[0]
    return drawn.numpy().reshape(*x.shape, 3)


def places(x0: float, x1: float, y0: float, y1: float) -> list[np.ndarray]:
    """Return x and y of every pixel, [H, W]: the outermost stand on the window's borders."""
    return np.meshgrid(np.linspace(x0, x1, WIDTH), np.linspace(y0, y1, HEIGHT))


def turned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = math.radians(30)
    dx, dy = x - 0.5, y - 0.5
    return 0.5 + math.cos(angle) * dx + math.sin(angle) * dy, 0.5 - math.sin(angle) * dx + math.cos(angle) * dy


def lens(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, v = (x - 0.5) * 2 * WIDTH / HEIGHT, (y - 0.5) * 2
    radius = np.hypot(u, v)
    scale = np.tan(np.minimum(math.radians(45) * radius, math.radians(85))) / radius
    return 0.5 + 0.5 * u * scale * HEIGHT / WIDTH, 0.5 + 0.5 * v * scale


def around_a_pole(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, v = (x - 0.5) * 2 * WIDTH / HEIGHT, (y - 0.5) * 2
    return 0.5 + 0.5 * np.arctan2(u, -v) / math.pi, np.hypot(u, v)


def projected(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w = 1 + 0.5 * x
    return (x + 0.1) / w, 0.8 * y / w


def mapped(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return y**2, x - 0.3


WHOLE = (0.0, 1.0, 0.0, 1.0)
ZOOMED = (0.3 - 29 / 19 / 8, 0.3 + 29 / 19 / 8, 0.6 - 1 / 8, 0.6 + 1 / 8)  # square pixels, a quarter down
VIEWS: list[tuple[tuple[str, ...], tuple[float, ...], Look]] = [
    ((), WHOLE, lambda x, y: (x, y)),
    (("--grid=-0.25:1.25",), (-0.25, 1.25, -0.25, 1.25), lambda x, y: (x, y)),
    (("--grid=0.5:1,2:-1",), (0.5, 1, 2, -1), lambda x, y: (x, y)),
    (("--center", "0.3,0.6", "--zoom", "4"), ZOOMED, lambda x, y: (x, y)),
    (("--rotate", "30"), WHOLE, turned),
    (("--shear", "0.5"), WHOLE, lambda x, y: (x - 0.5 * (y - 0.5), y)),
    (("--shear", "0,-0.25"), WHOLE, lambda x, y: (x, y + 0.25 * (x - 0.5))),
    (("--transform", "1,0,0.1,0,0.8,0,0.5,0,1"), WHOLE, projected),
    (("--rotate", "30", "--transform", "1,0,0.1,0,0.8,0,0.5,0,1"), WHOLE, lambda x, y: projected(*turned(x, y))),
    (("--warp", "fisheye"), WHOLE, lens),
    (("--warp", "polar"), WHOLE, around_a_pole),
    (("--warp", "map.npy"), WHOLE, mapped),
    (("--warp", "map.npy", "--rotate", "30"), WHOLE, lambda x, y: turned(*mapped(x, y))),
]


@pytest.mark.parametrize(("options", "window", "look"), VIEWS, ids=[" ".join(view[0]) for view in VIEWS])
def test_every_pixel_shows_its_point(
    polyinr: Run, tiny_checkpoint: Path, options: tuple[str, ...], window: tuple[float, ...], look: Look
):
    """Oracle: plain formulas and the generator at once, in float64; 1e-10."""
    x, y = look(*places(*window))
    if "map.npy" in options:
        np.save("map.npy", np.stack(mapped(*places(*window)), axis=-1))
    has_window = any(option.startswith(("--grid", "--center")) for option in options)
    size = ("--size", f"{WIDTH}x{HEIGHT}", *(() if has_window else ("--stretch",)))
    common = ("sample", "--seeds", "3", "-m", tiny_checkpoint, "--precision", "float64")
    ran = polyinr(*common, *size, *options, "-o", "x.npy")
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(np.load("x.npy")[0], colors(tiny_checkpoint, 3, x, y), atol=1e-10)


@pytest.mark.parametrize(("options", "look"), [((), lambda x, y: (x, y)), (("--rotate", "30"), turned)])
def test_supersampling_averages_what_a_pixel_covers(
    polyinr: Run, tiny_checkpoint: Path, options: tuple[str, ...], look: Look
):
    """4 x 4 points evenly over each pixel, at the edges half of them beyond the window; 1e-10."""
    steps = (np.arange(4) + 0.5) / 4 - 0.5
    x = (np.arange(WIDTH)[:, None] + steps).ravel() / (WIDTH - 1)
    y = (np.arange(HEIGHT)[:, None] + steps).ravel() / (HEIGHT - 1)
    fine = colors(tiny_checkpoint, 3, *look(*np.meshgrid(x, y)))
    expected = fine.reshape(HEIGHT, 4, WIDTH, 4, 3).mean(axis=(1, 3))
    common = ("sample", "--seeds", "3", "-m", tiny_checkpoint, "--size", f"{WIDTH}x{HEIGHT}", "--stretch")
    polyinr(*common, "--precision", "float64", "--supersample", "4", *options, "-o", "x.npy")
    np.testing.assert_allclose(np.load("x.npy")[0], expected, atol=1e-10)
    assert polyinr(*common, "--precision", "float32", "--supersample", "4", *options, "-o", "x.png").code == 0
    gray = np.floor((expected.clip(-1, 1) + 1) * 127.5)
    assert abs(pixels_of("x.png").astype(float) - gray).max() <= 1  # float32, so a step where it is at an edge


COMMANDS = [
    ("sample", "--seeds", "3"),
    ("mix", "1", "5", "--levels", "1"),
    ("interpolate", "3", "5", "--frames", "2"),
    ("heatmap", "--seeds", "3", "--levels", "1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_another_shape_shows_more_of_the_plane(polyinr: Run, tiny_checkpoint: Path, command: tuple[str, ...]):
    """Square pixels, the shorter side spans 0:1; --stretch is --grid 0:1. Oracle: the windows that are written out."""
    common = (*command, "-m", tiny_checkpoint, "--size", "32x16", "--overwrite")
    half = 31 / 15 / 2
    written_out = f"--grid={0.5 - half!r}:{0.5 + half!r},0:1"
    for default, other in (
        ((), ("--center", "0.5,0.5", "--zoom", "1")),
        ((), (written_out,)),
        (("--stretch",), ("--grid", "0:1")),
    ):
        assert polyinr(*common, *default, "-o", "x.png").code == 0
        assert polyinr(*common, *other, "-o", "y.png").code == 0
        assert np.array_equal(pixels_of("x.png"), pixels_of("y.png"))
    for option in ("--grid=0:1", "--zoom=2", "--center=0,0"):
        refused(polyinr(*common, "--stretch", option, "-o", "no.png"), "--stretch shows the trained window", code=2)


def test_the_shape_in_python(polyinr: Run, tiny_checkpoint: Path):
    model = load(tiny_checkpoint)
    common = ("-m", tiny_checkpoint, "--precision", "float32")
    assert polyinr("sample", "--seeds", "3", *common, "--size", "20x30", "-o", "x.png").code == 0
    assert np.array_equal(model.sample([3], size=(20, 30))[0], pixels_of("x.png"))
    assert Viewport(20, 30).window == (0, 0.5 - 29 / 19 / 2, 1, 0.5 + 29 / 19 / 2)
    assert Viewport(20, 20).window == Viewport(1, 1).window == UNIT
    assert polyinr("sample", "--like", "x.png", *common, "--size", "30x20", "-o", "y.png").code == 0
    assert np.array_equal(model.sample([3], size=(30, 20))[0], pixels_of("y.png"))


def test_a_map_gives_the_size_and_fits_any_other(polyinr: Run, tiny_checkpoint: Path):
    np.save("map.npy", np.stack(np.meshgrid(np.linspace(0, 2, 9), np.linspace(-1, 1, 5)), -1).astype(np.float32))
    common = ("sample", "--seeds", "3", "-m", tiny_checkpoint, "--precision", "float64")
    assert polyinr(*common, "--warp", "map.npy", "-o", "own.npy").code == 0
    polyinr(*common, "--size", "9x5", "--grid=0:2,-1:1", "-o", "window.npy")
    np.testing.assert_allclose(np.load("own.npy"), np.load("window.npy"), atol=1e-10)
    polyinr(*common, "--warp", "map.npy", "--size", "33x17", "-o", "large.npy")
    polyinr(*common, "--size", "33x17", "--grid=0:2,-1:1", "-o", "large-window.npy")
    np.testing.assert_allclose(np.load("large.npy"), np.load("large-window.npy"), atol=1e-6)
    for option in ("--grid=0:2", "--zoom=2", "--center=0,0"):
        ran = polyinr(*common, "--warp", "map.npy", option, "-o", "no.npy")
        refused(ran, "a coordinate map places every pixel", code=2)


def test_sixteen_bits(polyinr: Run, tiny_checkpoint: Path):
    """(x + 1) 32767.5, its fraction dropped, to the last bit; a sheet of them too."""
    common = ("sample", "-m", tiny_checkpoint, "--size", "30x20")
    polyinr(*common, "--seeds", "3-4", "-o", "x.npy")
    wanted = np.floor((np.load("x.npy").clip(-1, 1) + np.float32(1)) * np.float32(32767.5)).astype(np.uint16)
    for name in ("x.tif", "sheet.tif"):
        seeds = "3-4" if name == "sheet.tif" else "3"
        assert polyinr(*common, "--seeds", seeds, "--bits", "16", "-o", name).code == 0
    assert polyinr(*common, "--seeds", "3", "--bits", "16", "-o", "x.png").code == 0
    import png

    width, height, rows, info = png.Reader("x.png").asDirect()
    assert (width, height, info["bitdepth"]) == (30, 20, 16)
    assert np.array_equal(np.vstack(list(rows)).reshape(20, 30, 3), wanted[0])
    assert np.array_equal(tifffile.imread("x.tif"), wanted[0])
    sheet = tifffile.imread("sheet.tif")
    assert np.array_equal(sheet[:20, -30:] if sheet.shape[1] > 30 else sheet[-20:], wanted[1])
    assert read_metadata(Path("x.png"))["bits"] == 16


@pytest.mark.parametrize(
    ("height", "options"),
    [(270, ()), (20, ("--supersample", "2", "--rotate", "20")), (20, ("--warp", "fisheye"))],
)
def test_tiles_are_the_whole_s_pixels(polyinr: Run, tiny_checkpoint: Path, height: int, options: tuple[str, ...]):
    """A TIFF of several tiles and a DeepZoom image hold the PNG's pixels: the first to the last bit."""
    common = ("sample", "--seeds", "3", "-m", tiny_checkpoint, "--size", f"300x{height}", *options)
    for name in ("x.png", "x.tif", "x.dzi"):
        assert polyinr(*common, "-o", name).code == 0
    whole = pixels_of("x.png")
    assert np.array_equal(tifffile.imread("x.tif"), whole)
    size = ET.parse("x.dzi").getroot()[0].attrib
    assert (size["Width"], size["Height"]) == ("300", str(height))
    row = height // 254  # of the last tile: each shows a pixel of its neighbors
    corner = pixels_of(f"x_files/9/1_{row}.jpg").astype(float)
    last = whole[max(0, 254 * row - 1) :, 253:]
    assert corner.shape == last.shape
    assert abs(corner - last).mean() < 2  # a JPEG
    half = pixels_of("x_files/8/0_0.jpg").astype(float)
    assert half.shape == (height // 2, 150, 3)
    shrunk = whole.reshape(height // 2, 2, 150, 2, 3).mean(axis=(1, 3))
    assert abs(half - shrunk).mean() < 2  # drawn anew, at the same places


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--grid=-1:2",), ("--stretch", "--warp", "polar"), ("--stretch", "--rotate", "45")]
)
def test_the_levels_of_a_pyramid_lie_on_each_other(polyinr: Run, tiny_checkpoint: Path, options: tuple[str, ...]):
    """Each level is near the mean of the pixels of the full one that it stands for."""
    common = ("sample", "--seeds", "3", "-m", tiny_checkpoint, "--size", "1088x64", *options)
    assert polyinr(*common, "-o", "x.tif").code == 0
    with tifffile.TiffFile("x.tif") as tiff:
        levels = [level.asarray().astype(float) for level in tiff.series[0].levels]
    assert [level.shape[:2] for level in levels] == [(64, 1088), (32, 544), (16, 272), (8, 136)]
    for k, level in enumerate(levels[1:], start=1):
        side = 2**k
        shrunk = levels[0].reshape(64 // side, side, 1088 // side, side, 3).mean(axis=(1, 3))
        assert abs(level - shrunk).mean() < 1.0
        assert abs(level - np.roll(shrunk, 1, axis=1)).mean() > abs(level - shrunk).mean()


def test_a_class_grid(polyinr: Run, tiny_class_checkpoint: Path):
    """A row a class, a column a seed, the class's name at the left."""
    common = ("sample", "-m", tiny_class_checkpoint, "--seeds", "3,5")
    assert polyinr(*common, "--class-grid", "-o", "x.png").code == 0
    found = pixels_of("x.png")
    left = found.shape[1] - (2 * 16 + 2)
    assert found.shape[0] == 4 * 18 - 2
    for row in range(4):
        for column, seed in enumerate((3, 5)):
            one = ("sample", "-m", tiny_class_checkpoint, "--seeds", f"{seed}", "--label", f"{row}")
            drawn = pixels_of(polyinr(*one, "-o", "-").stdout)
            assert np.array_equal(found[18 * row :, left + 18 * column :][:16, :16], drawn)
        assert (found[18 * row : 18 * row + 16, :left] < 128).any()
    refused(polyinr(*common, "--class-grid", "--label", "1", "-o", "y.png"), "--class-grid", code=2)


@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", "3", "--psi", "0.7", "--label", "class b"),
        ("--seeds", "3-4", "--rotate", "30", "--grid", "0.1:0.6", "--supersample", "2"),
        ("--latents", "kept.safetensors", "--warp", "fisheye", "--shear", "0.2"),
    ],
)
def test_like_a_image_but_larger(polyinr: Run, tiny_class_checkpoint: Path, options: tuple[str, ...]):
    """What its note says, at another size, is what the same options draw at that size."""
    common = ("-m", tiny_class_checkpoint)
    polyinr("sample", "--seeds", "3-4", *common, "-o", "kept.safetensors")
    assert polyinr("sample", *options, *common, "-o", "x.png").code == 0
    ran = polyinr("sample", "--like", "x.png", "--res", "48", *common, "-o", "like.png")
    assert ran.code == 0, ran.stderr
    polyinr("sample", *options, "--res", "48", *common, "-o", "direct.png")
    assert np.array_equal(pixels_of("like.png"), pixels_of("direct.png"))
    assert polyinr("sample", "--like", "x.png", "--seeds", "9", "--label", "0", *common, "-o", "other.png").code == 0
    assert read_metadata(Path("other.png"))["window"] == read_metadata(Path("x.png"))["window"]
    assert read_metadata(Path("other.png"))["seed"] == 9


RES_COMMANDS = {
    "sample": "--seeds 1 -o x.png",
    "extrapolate": "--seeds 1 -o x.png",
    "interpolate": "1 2 -o x.gif",
    "mix": "1 2 -o x.png",
    "heatmap": "--seeds 1 -o x.png",
    "directions": "-o x.png",
    "gallery": "-o site",
    "invert": "photo.png -o x.safetensors",
    "encoder": "-o x.safetensors",
    "evaluate": "--metrics params -o x.json",
    "prepare": "photos -o x.zip",
}


@pytest.mark.parametrize("res", ["x", "64x64", "1.5", "-8", "", "9" * 5000])
@pytest.mark.parametrize("command", RES_COMMANDS)
def test_res_is_one_number_in_all_commands(polyinr: Run, command: str, res: str) -> None:
    """One type, one text: whoever knows it from one command knows it from all."""
    ran = polyinr(command, *RES_COMMANDS[command].split(), f"--res={res}")
    words = f"--res {res[:40]!r} is not a number of pixels; write an integer such as 256 (--size takes width x height)"
    refused(ran, words, code=2)
