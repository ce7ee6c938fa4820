"""`polyinr heatmap`: grids, folders and arrays of heat maps."""

import io
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.images.grid import apply_colormap
from polyinr_core.latents.latents import from_seeds

CAPTION = 20
GAP = 2


def pixels_of(source: Path | str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


@torch.no_grad()
def heat_at_once(model: Path, seed: int, points: np.ndarray) -> np.ndarray:
    """Return sum_c mean_c x_c of every level at points [P, 2], [L, P]: the release's form in NumPy's float64."""
    generator = load_checkpoint(model).generator.double()
    affine = from_seeds(generator, [seed]).affine[0].numpy()
    p = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    x, found = np.ones(1), []
    for level, product in enumerate(generator.synthesis.products):
        m = p @ affine[level]
        if level:
            m = np.where(m > 0, m, 0.2 * m)
        x = (x * m) @ product.weight.numpy().T + product.bias.numpy()
        x = np.where(x > 0, x, 0.2 * x).clip(-256, 256)
        found.append((x * x.mean(axis=0)).sum(axis=1))
    return np.stack(found)


def cells(sheet: np.ndarray, rows: int, columns: int, width: int = 16, height: int = 16) -> np.ndarray:
    """Cut a captioned sheet into its cells [R, C, H, W, 3]."""
    assert sheet.shape[:2] == (CAPTION + rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    return np.stack(
        [
            np.stack(
                [sheet[CAPTION + r * (height + GAP) :, c * (width + GAP) :][:height, :width] for c in range(columns)]
            )
            for r in range(rows)
        ]
    )


def normalized(heat: np.ndarray) -> np.ndarray:
    return (heat - heat.min()) / (heat.max() - heat.min())


def test_the_array_is_the_formula(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: the formula at once in NumPy's float64; 1e-9 in float64, 1e-3 in float32."""
    window = ("--size", "60x40", "--grid=-0.5:1,0:0.5", "--levels", "0,2")
    x, y = np.meshgrid(np.linspace(-0.5, 1, 60), np.linspace(0, 0.5, 40))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    for precision, near in (("float64", 1e-9), ("float32", 1e-3)):
        name = f"{precision}.npy"
        ran = polyinr("heatmap", "--seeds", "4,1", *window, "-m", tiny_checkpoint, "--precision", precision, "-o", name)
        assert ran.code == 0, ran.stderr
        heat = np.load(name)
        assert (heat.shape, heat.dtype) == (
            (2, 2, 40, 60),
            np.dtype(precision),
        )
        for own, seed in zip(heat, (4, 1), strict=True):
            expected = heat_at_once(tiny_checkpoint, seed, points)[[0, 2]].reshape(2, 40, 60)
            np.testing.assert_allclose(own, expected, rtol=0, atol=near * abs(expected).max())


def test_a_sheet_has_a_row_for_each_image(polyinr: Run, tiny_checkpoint: Path):
    """The image itself, then every level from its least to its greatest heat, in colors."""
    common = (
        "--seeds",
        "3,5",
        "-m",
        tiny_checkpoint,
        "--precision",
        "float32",
    )  # images may do with less than arrays
    assert polyinr("sample", *common, "-o", "images/").code == 0
    assert polyinr("heatmap", *common, "-o", "heat.npy").code == 0
    assert polyinr("heatmap", *common, "-o", "heat.png", "--colors", "viridis").code == 0
    found, heat = cells(pixels_of("heat.png"), 2, 4), np.load("heat.npy")
    for row, seed in enumerate((3, 5)):
        assert np.array_equal(found[row, 0], pixels_of(f"images/seed{seed:04d}.png"))
        for level in range(3):
            assert np.array_equal(found[row, 1 + level], apply_colormap(normalized(heat[row, level]), "viridis"))
    ran = polyinr("heatmap", *common, "-o", "-", "--colors", "viridis")
    assert np.array_equal(pixels_of(ran.stdout), pixels_of("heat.png"))
    assert polyinr("heatmap", *common, "-o", "inferno.png").code == 0
    assert not np.array_equal(pixels_of("inferno.png"), pixels_of("heat.png"))


def test_levels_are_named_above(polyinr: Run, tiny_checkpoint: Path):
    polyinr("heatmap", "--seeds", "3", "--res", "64", "--levels", "1-2", "-m", tiny_checkpoint, "-o", "x.png")
    top = pixels_of("x.png")[:CAPTION]
    words = [(top[:, c * 66 : c * 66 + 64] < 128).any() for c in range(3)]
    assert words == [True, True, True]
    assert not np.array_equal(top[:, 66:130], top[:, 132:196])


def test_overlay(polyinr: Run, tiny_checkpoint: Path):
    common = ("heatmap", "--seeds", "3", "-m", tiny_checkpoint)
    for share in ("0", "0.25", "1"):
        assert polyinr(*common, "--overlay", share, "-o", f"{share}.png").code == 0
    assert polyinr(*common, "-o", "plain.png").code == 0
    plain, none = cells(pixels_of("plain.png"), 1, 4)[0], cells(pixels_of("0.png"), 1, 4)[0]
    assert np.array_equal(pixels_of("1.png"), pixels_of("plain.png"))
    assert all(np.array_equal(cell, plain[0]) for cell in none)
    expected = np.rint(0.75 * plain[:1].astype(float) + 0.25 * plain[1:])
    assert np.array_equal(cells(pixels_of("0.25.png"), 1, 4)[0, 1:], expected)


def test_a_folder_gets_a_file_a_level(polyinr: Run, tiny_class_checkpoint: Path):
    common = ("heatmap", "--seeds", "3,5", "--levels", "0,2", "-m", tiny_class_checkpoint, "--precision", "float32")
    ran = polyinr(*common, "-o", "out/", "--json")
    assert sorted(os.listdir("out")) == [f"seed{s:04d}-level{k}.png" for s in (3, 5) for k in (0, 2)]
    assert polyinr(*common, "-o", "x.png").code == 0
    found = cells(pixels_of("x.png"), 2, 3)
    for row, seed in enumerate((3, 5)):
        for column, level in enumerate((0, 2)):
            assert np.array_equal(pixels_of(f"out/seed{seed:04d}-level{level}.png"), found[row, 1 + column])
    assert [(line["seed"], line["heat_of_levels"]) for line in ran.lines] == [
        (3, [0]),
        (3, [2]),
        (5, [0]),
        (5, [2]),
    ]
    polyinr(*common, "-o", "x.npy")
    heat = np.load("x.npy").reshape(4, -1)
    ranges = np.array([line["heat_ranges"][0] for line in ran.lines])
    np.testing.assert_allclose(ranges, np.stack([heat.min(axis=1), heat.max(axis=1)], axis=1))
    assert polyinr(*common, "-o", "over/", "--overlay", "0").code == 0
    assert np.array_equal(pixels_of("over/seed0005-level2.png"), found[1, 0])
    refused(polyinr(*common, "-o", "out/"), "exists already", code=1)


def test_heat_in_a_window_of_any_kind(polyinr: Run, tiny_checkpoint: Path):
    """Turned by a quarter about the middle the same points are looked at, so the same means: the array turned."""
    common = ("heatmap", "--seeds", "3", "--res", "21", "-m", tiny_checkpoint, "--precision", "float64")
    polyinr(*common, "-o", "plain.npy")
    assert polyinr(*common, "--rotate", "90", "-o", "turned.npy").code == 0
    turned, plain = np.load("turned.npy")[0], np.load("plain.npy")[0]
    np.testing.assert_allclose(turned, np.rot90(plain, k=-1, axes=(1, 2)), rtol=1e-9)
    assert polyinr(*common, "--supersample", "3", "-o", "fine.npy").code == 0
    fine = np.load("fine.npy")[0]
    assert 0 < abs(fine - plain).max() < 0.2 * np.ptp(plain)


def test_latents_give_the_same(polyinr: Run, tiny_checkpoint: Path):
    assert polyinr("sample", "--seeds", "3-4", "-m", tiny_checkpoint, "-o", "kept.safetensors").code == 0
    data = Path("kept.safetensors").read_bytes()
    polyinr("heatmap", "--seeds", "3-4", "-m", tiny_checkpoint, "-o", "a.npy")
    assert polyinr("heatmap", "--latents", "-", "-m", tiny_checkpoint, "-o", "b.npy", stdin=data).code == 0
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seeds", "3", "--size", "20x12", "--grid", "0:0.5", "--rotate", "10"),
        ("--seeds", "3,5", "--psi", "0.5", "--label", "class b", "--levels", "1-2", "--overlay", "0.5"),
        ("--latents", "kept.safetensors", "--colors", "gray", "--supersample", "2"),
    ],
)
@pytest.mark.parametrize("output", ["x.png", "x/"])
def test_a_note_draws_it_again(polyinr: Run, tiny_class_checkpoint: Path, arguments: tuple[str, ...], output: str):
    """The command that `info` prints makes the same file or folder, but for the folder's own name."""
    Path("model.safetensors").write_bytes(tiny_class_checkpoint.read_bytes())
    polyinr("sample", "--seeds", "11-12", "-m", "model.safetensors", "-o", "kept.safetensors")
    assert polyinr("heatmap", *arguments, "-m", "model.safetensors", "-o", output).code == 0
    made = sorted(Path("x").iterdir()) if output == "x/" else [Path(output)]
    (facts,) = polyinr("info", made[-1], "--json").lines
    words = shlex.split(facts["command"])
    ran = polyinr(*words[1:])
    assert ran.code == 0, ran.stderr
    for path in made:
        again = Path(words[-1]) / path.name if output == "x/" else Path(words[-1])
        assert np.array_equal(pixels_of(again), pixels_of(path))
    if output != "x/":
        assert again.read_bytes() == path.read_bytes()


def test_maps_that_overflow_are_refused(polyinr: Run, tiny_checkpoint: Path):
    """They are refused when they are read; far out even the clamped features stay numbers."""
    polyinr("sample", "--seeds", "3", "-m", tiny_checkpoint, "-o", "maps.safetensors")
    with safe_open("maps.safetensors", "pt") as file:
        metadata, maps = file.metadata(), file.get_tensor("affine")
    save_file({"affine": torch.full_like(maps, 3e38)}, "huge.safetensors", metadata=metadata)
    ran = polyinr("heatmap", "--latents", "huge.safetensors", "-m", tiny_checkpoint, "-o", "x.png")
    refused(ran, "above 1e+09", code=1)
    assert not Path("x.png").exists()
