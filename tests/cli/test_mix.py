"""`polyinr mix`: levels of one image in another, sheets of them, and masks."""

import io
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import Run, refused
from PIL import Image
from rounding import assert_same_pixels

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import concatenate, from_seeds
from polyinr_core.models.coordinates import RegularGrid


def pixels_of(source: Path | str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


def drawn(polyinr: Run, model: Path, seed: int, *options: str) -> np.ndarray:
    """Draw a seed as `sample` does."""
    ran = polyinr("sample", "--seeds", str(seed), "-m", model, "-o", "-", *options)
    assert ran.code == 0, ran.stderr
    return pixels_of(ran.stdout)


def save_mask(values: np.ndarray, name: str = "mask.png") -> None:
    Image.fromarray(values.astype(np.uint8)).save(name)


def test_all_levels_are_the_source_and_none_of_it_the_target(polyinr: Run, tiny_checkpoint: Path):
    mix = ("mix", "1", "5", "-m", tiny_checkpoint, "-o")
    assert polyinr(*mix, "all.png", "--levels", "0-2").code == 0
    assert np.array_equal(pixels_of("all.png"), drawn(polyinr, tiny_checkpoint, 1))
    polyinr(*mix, "none.png", "--levels", "0-2", "--amount", "0")
    assert np.array_equal(pixels_of("none.png"), drawn(polyinr, tiny_checkpoint, 5))


def test_levels_without_a_word_are_the_last_two(polyinr: Run, tiny_checkpoint: Path):
    polyinr("mix", "1", "5", "-m", tiny_checkpoint, "-o", "a.npy")
    polyinr("mix", "--source", "1", "--target", "5", "--levels", "1-2", "-m", tiny_checkpoint, "-o", "b.npy")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))
    polyinr("mix", "1", "5", "--levels", "2", "-m", tiny_checkpoint, "-o", "c.npy")
    assert not np.array_equal(np.load("a.npy"), np.load("c.npy"))


def test_a_sheet(polyinr: Run, tiny_checkpoint: Path):
    """Sources on the left, targets above, the corner blank, each mixture in its row and column."""
    mix = ("mix", "--source", "1-2", "--target", "5-7", "--levels", "2", "-m", tiny_checkpoint, "-o")
    assert polyinr(*mix, "sheet.png").code == 0
    sheet = pixels_of("sheet.png")
    assert sheet.shape == (3 * 16 + 2 * 2, 4 * 16 + 3 * 2, 3)
    cells = np.stack([[sheet[18 * r : 18 * r + 16, 18 * c : 18 * c + 16] for c in range(4)] for r in range(3)])
    assert (cells[0, 0] == 255).all()
    for column, seed in enumerate((5, 6, 7)):
        assert np.array_equal(cells[0, column + 1], drawn(polyinr, tiny_checkpoint, seed))
    for row, seed in enumerate((1, 2)):
        assert np.array_equal(cells[row + 1, 0], drawn(polyinr, tiny_checkpoint, seed))
    assert polyinr(*mix, "mixtures/").code == 0
    for row, source in enumerate((1, 2)):
        for column, target in enumerate((5, 6, 7)):
            mixture = pixels_of(f"mixtures/seed{source:04d}-seed{target:04d}.png")
            assert np.array_equal(cells[row + 1, column + 1], mixture)


def test_several_groups(polyinr: Run, tiny_checkpoint: Path):
    """A block each, with its levels beside it; the folder's names tell them apart."""
    mix = ("mix", "1", "5-6", "--levels", "2", "--levels", "0-1", "-m", tiny_checkpoint, "-o")
    assert polyinr(*mix, "sheet.png").code == 0
    sheet = pixels_of("sheet.png")
    assert sheet.shape[0] == 3 * 16 + 2 * 2
    assert sheet.shape[1] > 3 * 16 + 2 * 2
    assert (sheet[18:34, :100] < 128).any()
    assert polyinr(*mix, "out/").code == 0
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == [f"seed0001-seed000{t}-levels{levels}.png" for t in (5, 6) for levels in ("0-1", "2")]


@pytest.mark.parametrize("space", ["affine", "w"])
def test_latents(polyinr: Run, tiny_class_checkpoint: Path, space: str):
    """What is saved draws the same images; the class stays where both have it."""
    mix = ("mix", "1", "5-6", "--levels", "1", "--space", space, "-m", tiny_class_checkpoint, "--label", "3", "-o")
    assert polyinr(*mix, "x.safetensors").code == 0
    kept = read_latents(Path("x.safetensors"))
    assert (len(kept), kept.label.tolist(), kept.w is None) == (2, [3, 3], space == "affine")
    assert kept.model_sha256 == load_checkpoint(tiny_class_checkpoint).sha256
    polyinr("sample", "--latents", "x.safetensors", "-m", tiny_class_checkpoint, "-o", "a.npy")
    polyinr(*mix, "b.npy")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_through_a_pipe(polyinr: Run, tiny_checkpoint: Path):
    """mix A B -o - | sample --latents - -o -, and mixtures mixed once more."""
    mixed = polyinr("mix", "1", "5", "-m", tiny_checkpoint, "-o", "-")
    image = polyinr("sample", "--latents", "-", "-m", tiny_checkpoint, "-o", "-", stdin=mixed.stdout)
    polyinr("mix", "1", "5", "-m", tiny_checkpoint, "-o", "x.png")
    assert np.array_equal(pixels_of(image.stdout), pixels_of("x.png"))
    again = polyinr("mix", "7", "-", "--levels", "0", "-m", tiny_checkpoint, "-o", "-", stdin=mixed.stdout)
    assert again.code == 0
    assert len(again.stdout) > 500


def test_latents_are_not_for_a_terminal(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from polyinr_cli import console as streams

    monkeypatch.setattr(streams, "is_terminal", lambda stream: stream is sys.stdout)
    refused(polyinr("mix", "1", "5", "-m", tiny_checkpoint, "-o", "-"), "a terminal", "latents data", code=2)


def test_latents_files_mix_as_seeds_do(polyinr: Run, tiny_checkpoint: Path):
    """Files that something else wrote, with affine maps alone, as an inverted photo's are."""
    generator = load_checkpoint(tiny_checkpoint).generator
    kept = concatenate([from_seeds(generator, [seed]) for seed in (5, 6)])
    write_latents(Path("maps.safetensors"), replace(kept, z=None, w=None, seeds=()))
    polyinr("mix", "1", "maps.safetensors", "-m", tiny_checkpoint, "-o", "a.npy")
    polyinr("mix", "1", "5-6", "-m", tiny_checkpoint, "-o", "b.npy")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))
    ran = polyinr("mix", "1", "maps.safetensors", "--space", "w", "-m", tiny_checkpoint, "-o", "x.png")
    refused(ran, "not w", "affine", code=2)
    chain = polyinr("mix", "maps.safetensors", "1", "-m", tiny_checkpoint, "-o", "mixed.safetensors")
    assert chain.code == 0
    walk = polyinr("interpolate", "mixed.safetensors", "3", "--frames", "4", "-m", tiny_checkpoint, "-o", "-")
    assert len(walk.stdout) == 4 * 16 * 16 * 3


@pytest.mark.parametrize("size", ["16x16", "11x6"])
def test_a_mask_of_two_halves(polyinr: Run, tiny_checkpoint: Path, size: str):
    """Pixel for pixel the source where it is white, the target where it is black."""
    width, height = map(int, size.split("x"))
    half = np.zeros((height, width))
    half[:, : width // 2] = 255
    save_mask(half)
    ran = polyinr("mix", "1", "5", "--mask", "mask.png", "-m", tiny_checkpoint, "-o", "x.png", "--size", size)
    assert ran.code == 0, ran.stderr
    pixels = pixels_of("x.png")
    source, target = (drawn(polyinr, tiny_checkpoint, seed, "--size", size) for seed in (1, 5))
    assert_same_pixels(pixels[:, : width // 2], source[:, : width // 2])
    assert_same_pixels(pixels[:, width // 2 :], target[:, width // 2 :])


@pytest.mark.parametrize("amount", [1.0, 0.4])
def test_a_soft_mask_blends_the_maps_of_each_pixel(polyinr: Run, tiny_checkpoint: Path, amount: float):
    """Oracle: every pixel drawn by itself from its own blended maps, float64, 1e-12."""
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (5, 7))
    save_mask(gray)
    mix = ("mix", "1", "5", "--mask", "mask.png", "--levels", "0,2", "--amount", str(amount))
    options = ("--size", "7x5", "--stretch", "--precision", "float64", "-m", tiny_checkpoint, "-o", "x.npy")
    assert polyinr(*mix, *options).code == 0
    generator = load_checkpoint(tiny_checkpoint).generator.double()
    source, target = (from_seeds(generator, [seed]).affine for seed in (1, 5))
    points = RegularGrid(7, 5).coordinates(dtype=torch.float64)
    for index, point in enumerate(points):
        maps = target.clone()
        share = amount * float(gray.reshape(-1)[index]) / 255
        maps[:, [0, 2]] += share * (source - target)[:, [0, 2]]
        with torch.no_grad():
            color = generator.synthesis(maps, point[None])[0, 0].numpy()
        assert np.abs(np.load("x.npy")[0].reshape(-1, 3)[index] - color).max() < 1e-12


def test_a_mask_of_another_size(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Resized to the image's, and said."""
    from polyinr_cli import console as streams

    big = np.zeros((64, 96))
    big[:32] = 255
    save_mask(big)
    monkeypatch.setattr(streams, "is_terminal", lambda stream: stream is sys.stderr)
    ran = polyinr("mix", "1", "5", "--mask", "mask.png", "-m", tiny_checkpoint, "-o", "x.png")
    assert "mask.png is 96x64; it is resized to 16x16" in ran.stderr
    pixels = pixels_of("x.png")
    assert_same_pixels(pixels[:7], drawn(polyinr, tiny_checkpoint, 1)[:7])
    assert_same_pixels(pixels[9:], drawn(polyinr, tiny_checkpoint, 5)[9:])


def test_masks_of_many_kinds(polyinr: Run, tiny_checkpoint: Path):
    """Colors by their luminance, transparency as black, JPEG, and a single pixel."""
    Image.new("RGBA", (16, 16), (255, 255, 255, 0)).save("clear.png")
    Image.new("RGB", (16, 16), (255, 255, 255)).save("white.jpg")
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save("black.jpg")
    Image.new("L", (1, 1), 255).save("one.png")
    for name, seed in (("clear.png", 5), ("white.jpg", 1), ("black.jpg", 5), ("one.png", 1)):
        ran = polyinr("mix", "1", "5", "--mask", name, "-m", tiny_checkpoint, "-o", "x.png", "--overwrite")
        assert ran.code == 0, ran.stderr
        assert_same_pixels(pixels_of("x.png"), drawn(polyinr, tiny_checkpoint, seed))


def test_a_mask_over_several_targets(polyinr: Run, tiny_checkpoint: Path):
    save_mask(np.full((16, 16), 255))
    mix = ("mix", "1", "5-6", "--mask", "mask.png", "-m", tiny_checkpoint, "-o")
    sheet = pixels_of(polyinr(*mix, "-").stdout)
    assert sheet.shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    assert_same_pixels(sheet[18:, 18:34], drawn(polyinr, tiny_checkpoint, 1))
    assert_same_pixels(sheet[:16, 18:34], drawn(polyinr, tiny_checkpoint, 5))
    assert polyinr(*mix, "out/").code == 0
    assert np.array_equal(pixels_of("out/seed0001-seed0006.png"), sheet[18:, 36:])


def test_a_masked_image_with_smaller_ones_of_itself(polyinr: Run, tiny_checkpoint: Path):
    """A DeepZoom image's reduced images are masked as the large one is, down to a single pixel."""
    half = np.zeros((40, 48))
    half[:, :24] = 255
    save_mask(half)
    options = ("--size", "48x40", "-m", tiny_checkpoint, "-o")
    assert polyinr("mix", "1", "5", "--mask", "mask.png", *options, "x.dzi").code == 0
    for seed in (1, 5):
        polyinr("sample", "--seeds", str(seed), *options, f"{seed}.dzi")
    assert Path("x_files/0/0_0.jpg").exists()
    for level in (5, 6):  # JPEG's blocks of 8 x 8 pixels, but for the one that the mask's edge is in
        shown, source, target = (pixels_of(f"{name}_files/{level}/0_0.jpg") for name in ("x", "1", "5"))
        left = shown.shape[1] // 16 * 8
        right = shown.shape[1] - left
        for side, whole in ((np.s_[:, :left], source), (np.s_[:, right:], target)):
            assert np.abs(shown[side].astype(int) - whole[side]).max() <= 6  # a step before JPEG may be some after


def test_sixteen_bits(polyinr: Run, tiny_checkpoint: Path):
    mix = ("mix", "1", "5-6", "-m", tiny_checkpoint, "--precision", "float32", "-o")
    assert polyinr(*mix, "x.tif", "--bits", "16").code == 0
    deep = tifffile.imread("x.tif")
    polyinr(*mix, "x.png")
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - pixels_of("x.png")).max() < 1.01


@pytest.mark.parametrize("name", ["x.png", "sheet.png", "out/"])
def test_json(polyinr: Run, tiny_checkpoint: Path, name: str):
    targets = "5" if name == "x.png" else "5-6"
    lines = polyinr("mix", "1", targets, "-m", tiny_checkpoint, "-o", name, "--json").lines
    assert len(lines) == (2 if name == "out/" else 1)
    for line in lines:
        assert line["command"] == "mix"
        assert Path(line["file"]).exists()
    if name == "sheet.png":
        assert (lines[0]["sources"], lines[0]["targets"]) == (["seed0001"], ["seed0005", "seed0006"])
    else:
        assert (lines[0]["source"], lines[0]["target"], lines[0]["levels"]) == ("seed0001", "seed0005", "1-2")


@pytest.mark.parametrize("targets", ["5", "5-6"])
def test_the_note_says_how_to_make_it_again(polyinr: Run, tiny_checkpoint: Path, targets: str):
    save_mask(np.arange(256).reshape(16, 16))
    mix = ("mix", "--source", "1", "--target", targets, "--levels", "0", "--levels", "2", "--amount", "0.5")
    polyinr(*mix, "--mask", "mask.png", "--psi", "0.9", "--grid", "0:2", "-m", tiny_checkpoint, "-o", "x.png")
    (facts,) = polyinr("info", "x.png", "--json").lines
    words = shlex.split(facts["command"])[1:]
    words[words.index("-m") + 1] = str(tiny_checkpoint)
    assert polyinr(*words).code == 0
    assert np.array_equal(pixels_of("x-again.png"), pixels_of("x.png"))
    assert read_metadata(Path("x-again.png")) == read_metadata(Path("x.png"))
