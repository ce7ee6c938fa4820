"""`polyinr sample`: what it draws, where it goes, and that an image is the same wherever it is drawn."""

import io
import os
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Run, refused, small_checkpoint
from PIL import Image
from rounding import assert_rounded

from polyinr_core.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from polyinr_core.images.grid import make_grid, to_uint8
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import Latents, draw_labels, draw_z
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.rendering.render import render_rows

TERMS = 200  # of the small models from z to a color: 12 and 16 numbers a sum, in 8 layers


def pixels_of(source: Path | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


def direct(model: Path, seed: int, *, size: int = 16, psi: float = 1.0, dtype=torch.float32) -> np.ndarray:
    """Draw a seed at once, without bands, folders or blocks: [H, W, 3]."""
    generator = load_checkpoint(model).generator.to(dtype)
    z = draw_z([seed], generator.config.z_dim).to(dtype)
    classes = generator.config.classes
    label = draw_labels([seed], classes) if classes else None
    grid = RegularGrid(size, size).coordinates(dtype=dtype, device=torch.device("cpu"))
    with torch.no_grad():
        colors = generator.synthesis(generator.affine(generator.w(z, label, psi=psi)), grid)
    return colors.view(size, size, 3).numpy()


def test_array_is_the_generators_own_image(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: the generator called at once; another blocking of the products."""
    assert polyinr("sample", "--seeds", "3,1", "-m", tiny_checkpoint, "-o", "x.npy").code == 0
    drawn = np.load("x.npy")
    assert (drawn.shape, drawn.dtype) == ((2, 16, 16, 3), np.float32)
    for image, seed in zip(drawn, (3, 1), strict=True):
        assert_rounded(image, direct(tiny_checkpoint, seed), terms=TERMS)


def test_float64(polyinr: Run, tiny_class_checkpoint: Path):
    """Oracle: the generator in float64."""
    polyinr(
        "sample",
        "--seeds",
        "5",
        "-m",
        tiny_class_checkpoint,
        "-o",
        "x.npy",
        "--precision",
        "float64",
        "--psi",
        "0.6",
    )
    drawn = np.load("x.npy")
    assert drawn.dtype == np.float64
    expected = direct(tiny_class_checkpoint, 5, psi=0.6, dtype=torch.float64)
    assert_rounded(drawn[0], expected, terms=TERMS)


def test_bfloat16_is_near(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: float32; bfloat16 products carry 8 bits, so about 2 % of the range, and coordinates must not."""
    for precision in ("float32", "bfloat16"):
        name = f"{precision}.npy"
        ran = polyinr(
            "sample", "--seeds", "2", "--res", "300", "-m", tiny_checkpoint, "-o", name, "--precision", precision
        )
        assert ran.code == 0
    exact, near = np.load("float32.npy"), np.load("bfloat16.npy")
    assert 0 < np.abs(exact - near).max() < 0.03 * np.ptp(exact)
    steps = np.diff(near[0].astype(np.float64), axis=1)
    assert np.abs(steps).max() < 0.05


def test_images_hold_the_arrays_colors(polyinr: Run, tiny_checkpoint: Path):
    sample = ("sample", "-m", tiny_checkpoint, "--precision", "float32", "--seeds")  # 8 bits alone may do with less
    polyinr(*sample, "0-4", "-o", "x.npy")
    colors = to_uint8(torch.from_numpy(np.load("x.npy")))
    polyinr(*sample, "0-4", "-o", "out/")
    for seed in range(5):
        assert np.array_equal(pixels_of(Path(f"out/seed{seed:04d}.png")), colors[seed])
    assert len(os.listdir("out")) == 5
    for name in ("x.png", "x.tif", "x.webp"):
        assert polyinr(*sample, "0-4", "-o", name).code == 0
        assert np.array_equal(pixels_of(Path(name)), make_grid(colors))
    ran = polyinr(*sample, "2", "-o", "-")
    assert np.array_equal(pixels_of(ran.stdout), colors[2])
    assert polyinr(*sample, "2", "-o", "x.jpg").code == 0


@pytest.mark.parametrize("output", ["plain", "slash.d/", "there.png"])
def test_what_counts_as_a_folder(polyinr: Run, tiny_checkpoint: Path, output: str):
    if output == "there.png":
        Path(output).mkdir()
    assert polyinr("sample", "--seeds", "7", "-m", tiny_checkpoint, "-o", output).code == 0
    assert os.listdir(output) == ["seed0007.png"]


def test_a_seed_is_the_same_image_in_any_company(polyinr: Run, tiny_class_checkpoint: Path):
    """Batch and order: bit for bit in float32."""
    arrays = {}
    for seeds in ("0-5", "4", "5,4,3,0"):
        polyinr("sample", "--seeds", seeds, "-m", tiny_class_checkpoint, "--res", "50", "-o", f"{seeds}.npy")
        arrays[seeds] = np.load(f"{seeds}.npy")
    assert np.array_equal(arrays["0-5"][4], arrays["4"][0])
    assert np.array_equal(arrays["0-5"][[5, 4, 3, 0]], arrays["5,4,3,0"])


def test_a_image_is_the_same_in_any_bands(tiny_checkpoint: Path):
    """Band height: bit for bit in float32."""
    generator = load_checkpoint(tiny_checkpoint).generator
    affine = generator.affine(generator.w(draw_z([1], 8)))[0]
    grid = RegularGrid(61, 83)
    images = [
        torch.cat(list(render_rows(generator.synthesis, affine, grid, rows=rows))) for rows in (None, 1, 7, 83, 500)
    ]
    assert all(torch.equal(image, images[0]) for image in images)


def test_wide_images(polyinr: Run, tiny_checkpoint: Path):
    """A row longer than a block of pixels is drawn whole."""
    polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, "--size", "5000x3", "-o", "x.npy")
    assert np.load("x.npy").shape == (1, 3, 5000, 3)
    assert np.isfinite(np.load("x.npy")).all()


@pytest.mark.parametrize(
    ("inner", "outer", "window"),
    [
        (257, 385, "-0.25:1.25"),
        (256, 384, f"{-64 / 255!r}:{1 + 64 / 255!r}"),
        (257, 385, "-0.25:1.25,-0.25:1.25"),
    ],
)
def test_a_wider_window_holds_the_image_in_its_middle(
    polyinr: Run, tiny_checkpoint: Path, inner: int, outer: int, window: str
):
    """Oracle: the image in 0:1 at the same spacing; coordinates differ by rounding only."""
    polyinr("sample", "--seeds", "4", "-m", tiny_checkpoint, "--res", f"{inner}", "--grid", "0:1", "-o", "in.npy")
    ran = polyinr(
        "sample", "--seeds", "4", "-m", tiny_checkpoint, "--res", f"{outer}", "--grid", window, "-o", "out.npy"
    )
    assert ran.code == 0, ran.stderr
    middle = np.load("out.npy")[:, 64 : 64 + inner, 64 : 64 + inner]
    assert_rounded(middle, np.load("in.npy"), terms=TERMS)


def test_windows_of_their_own(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: a window's part of the whole image; x runs to the right, y down."""
    polyinr("sample", "--seeds", "4", "-m", tiny_checkpoint, "--res", "9", "-o", "whole.npy")
    polyinr("sample", "--seeds", "4", "-m", tiny_checkpoint, "--size", "5x3", "--grid=0.5:1,0:0.25", "-o", "part.npy")
    whole = np.load("whole.npy")[0]
    assert_rounded(np.load("part.npy")[0], whole[:3, 4:], terms=TERMS)
    polyinr("sample", "--seeds", "4", "-m", tiny_checkpoint, "--res", "9", "--grid", "1:0,0:1", "-o", "mirror.npy")
    assert_rounded(np.load("mirror.npy")[0], whole[:, ::-1].copy(), terms=TERMS)


def test_the_training_resolution_is_the_default(polyinr: Run, tmp_path: Path):
    model = small_checkpoint(tmp_path / "m.safetensors", resolution=24)
    polyinr("sample", "--seeds", "1", "-m", model, "-o", "x.png")
    assert pixels_of(Path("x.png")).shape == (24, 24, 3)
    unknown = small_checkpoint(tmp_path / "n.safetensors", resolution=0)
    ran = polyinr("sample", "--seeds", "1", "-m", unknown, "-o", "y.png")
    assert (ran.code, "--res" in ran.stderr) == (2, True)
    assert polyinr("sample", "--seeds", "1", "-m", unknown, "-o", "y.safetensors").code == 0  # has no size


@pytest.mark.parametrize("option", ["--res=9", "--size=9x8", "--grid=0:2"])
def test_latents_take_no_size_and_no_window(polyinr: Run, tiny_checkpoint: Path, option: str):
    ran = polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, option, "-o", "x.safetensors")
    refused(ran, "latents have no size", code=2)


def test_psi_zero_is_the_mean_image(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: the image of w_avg itself, drawn from a latents file; exact."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    w = checkpoint.generator.mapping.w_avg.expand(1, 3, -1).contiguous()
    write_latents(Path("mean.safetensors"), Latents(w=w))
    polyinr("sample", "--latents", "mean.safetensors", "-m", tiny_checkpoint, "-o", "mean.npy")
    polyinr("sample", "--seeds", "0-1", "--psi", "0", "-m", tiny_checkpoint, "-o", "zero.npy")
    polyinr("sample", "--seeds", "0", "--psi", "0.5", "-m", tiny_checkpoint, "-o", "half.npy")
    assert np.array_equal(np.load("zero.npy")[0], np.load("mean.npy")[0])
    assert np.array_equal(np.load("zero.npy")[1], np.load("mean.npy")[0])
    assert not np.array_equal(np.load("half.npy"), np.load("mean.npy"))


def test_labels(polyinr: Run, tiny_class_checkpoint: Path):
    """By number, by name, and drawn from the seed: the same class is the same image."""
    common = ("sample", "--seeds", "6", "-m", tiny_class_checkpoint)
    drawn = int(draw_labels([6], 4)[0])
    for name, label in (
        ("number", str(drawn)),
        ("name", f"class {'abcd'[drawn]}"),
        ("other", str((drawn + 1) % 4)),
    ):
        assert polyinr(*common, "--label", label, "-o", f"{name}.png").code == 0
    polyinr(*common, "-o", "seed.png")
    assert np.array_equal(pixels_of(Path("seed.png")), pixels_of(Path("number.png")))
    assert np.array_equal(pixels_of(Path("seed.png")), pixels_of(Path("name.png")))
    assert not np.array_equal(pixels_of(Path("seed.png")), pixels_of(Path("other.png")))
    assert read_metadata(Path("seed.png"))["class"] == f"class {'abcd'[drawn]}"


def test_latents_are_saved_and_drawn_again(polyinr: Run, tiny_class_checkpoint: Path):
    common = ("-m", tiny_class_checkpoint, "--res", "20")
    polyinr("sample", "--seeds", "3-5", "--psi", "0.8", *common, "-o", "direct.npy")
    polyinr("sample", "--seeds", "3-5", "--psi", "0.8", *common[:2], "-o", "kept.safetensors")
    kept = read_latents(Path("kept.safetensors"))
    assert kept.z.shape == (3, 8)
    assert kept.w.shape == (3, 3, 12)
    assert kept.affine.shape == (3, 3, 3, 16)
    assert kept.label.shape == (3,)
    assert (kept.seeds, kept.psi, len(kept.model_sha256)) == ((3, 4, 5), 0.8, 64)
    polyinr("sample", "--latents", "kept.safetensors", *common, "-o", "file.npy")
    piped = polyinr("sample", "--latents", "-", *common, "-o", "pipe.npy", stdin=Path("kept.safetensors").read_bytes())
    assert piped.code == 0, piped.stderr
    for name in ("z", "w"):
        only = replace(kept, z=kept.z if name == "z" else None, w=kept.w if name == "w" else None, affine=None)
        write_latents(Path(f"{name}.safetensors"), only)
        polyinr("sample", "--latents", f"{name}.safetensors", *common, "-o", f"{name}.npy")
    for name in ("file", "pipe", "z", "w"):
        assert np.array_equal(np.load(f"{name}.npy"), np.load("direct.npy")), name
    polyinr("sample", "--latents", "kept.safetensors", *common, "-o", "folder")
    assert sorted(os.listdir("folder")) == [f"seed{seed:04d}.png" for seed in (3, 4, 5)]


def test_a_learned_grid_is_used_at_its_own_size_and_window(polyinr: Run, tmp_path: Path, tiny_checkpoint: Path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    points = RegularGrid(16, 16).coordinates()[:, :2]
    save_checkpoint(tmp_path / "learned.safetensors", replace(checkpoint, learned_grid=points.flip(1).contiguous()))
    same = ("sample", "--seeds", "4", "-m")
    polyinr(*same, tiny_checkpoint, "-o", "regular.npy")
    polyinr(*same, "learned.safetensors", "-o", "learned.npy")
    transposed = np.load("regular.npy").transpose(0, 2, 1, 3)  # x and y swapped
    assert np.abs(np.load("learned.npy") - transposed).max() < 1e-5
    for name, model in (("a", tiny_checkpoint), ("b", "learned.safetensors")):
        polyinr(*same, model, "--res", "17", "-o", f"{name}17.npy")
        polyinr(*same, model, "--grid", "0:0.5", "-o", f"{name}half.npy")
    assert np.array_equal(np.load("a17.npy"), np.load("b17.npy"))
    assert np.array_equal(np.load("ahalf.npy"), np.load("bhalf.npy"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--seeds", "7"),
        ("--seeds", "3", "--psi", "0.7", "--size", "30x20", "--grid", "-0.25:1.25,0.1:0.9"),
        ("--seeds", "1", "--label", "class b", "--precision", "float64"),
        ("--seeds", "0-3,9"),
        ("--seeds", "0-3", "--label", "2"),
        ("--latents", "kept.safetensors"),
        ("--latents", "kept.safetensors", "--psi", "0.3"),
    ],
)
def test_a_note_draws_its_image_again(
    polyinr: Run, tiny_class_checkpoint: Path, arguments: tuple[str, ...], suffix: str
):
    """The command that `info` prints makes the same file, byte for byte."""
    model = Path("model.safetensors")
    model.write_bytes(tiny_class_checkpoint.read_bytes())
    polyinr("sample", "--seeds", "11-12", "-m", model, "-o", "kept.safetensors")
    assert polyinr("sample", *arguments, "-m", model, "-o", f"x{suffix}").code == 0
    (facts,) = polyinr("info", f"x{suffix}", "--json").lines
    words = shlex.split(facts["command"])
    assert words[-1] == f"x-again{suffix}"
    ran = polyinr(*words[1:])
    assert ran.code == 0, ran.stderr
    assert Path(words[-1]).read_bytes() == Path(f"x{suffix}").read_bytes()


def test_a_note_of_one_of_many_latents(polyinr: Run, tiny_checkpoint: Path):
    model = Path("model.safetensors")
    model.write_bytes(tiny_checkpoint.read_bytes())
    polyinr("sample", "--seeds", "11-12", "-m", model, "-o", "kept.safetensors")
    polyinr("sample", "--latents", "kept.safetensors", "-m", model, "-o", "out/")
    (facts,) = polyinr("info", "out/seed0012.png", "--json").lines
    assert (facts["index"], facts["count"], facts["seed"]) == (1, 2, 12)
    assert polyinr(*shlex.split(facts["command"])[1:]).code == 0
    assert Path("seed0012-again/seed0012.png").read_bytes() == Path("out/seed0012.png").read_bytes()


def test_json_lines(polyinr: Run, tiny_class_checkpoint: Path):
    for output in ("out/", "x.png", "x.npy", "x.safetensors"):
        ran = polyinr("sample", "--seeds", "4,2", "--psi", "0.5", "-m", tiny_class_checkpoint, "-o", output, "--json")
        assert [line["seed"] for line in ran.lines] == [4, 2]
        for line in ran.lines:
            assert Path(line["file"]).is_file()
            assert (line["psi"], line["size"], line["window"]) == (0.5, [16, 16], [0, 0, 1, 1])
            assert line["label"] in range(4)


def test_overwrite(polyinr: Run, tiny_checkpoint: Path):
    for output, file in (
        ("x.png", "x.png"),
        ("x.npy", "x.npy"),
        ("x.safetensors", "x.safetensors"),
        ("d", "d/seed0001.png"),
    ):
        arguments = ("sample", "--seeds", "1", "-m", tiny_checkpoint, "-o", output)
        assert polyinr(*arguments).code == 0
        Path(file).write_bytes(b"mine")
        assert polyinr(*arguments).code == 1
        assert Path(file).read_bytes() == b"mine"
        assert polyinr(*arguments, "--overwrite").code == 0
        assert Path(file).read_bytes() != b"mine"


def test_latents_of_another_model_are_drawn_by_force_alone(polyinr: Run, tmp_path: Path, tiny_checkpoint: Path):
    polyinr("sample", "--seeds", "1", "-m", tiny_checkpoint, "-o", "x.safetensors")
    other = small_checkpoint(tmp_path / "other.safetensors", resolution=17)
    arguments = ("sample", "--latents", "x.safetensors", "-m", other, "-o", "x.png")
    refused(polyinr(*arguments), "another model", "--force", code=1)
    assert polyinr(*arguments, "--force").code == 0
    assert Path("x.png").exists()


def test_several_processes_share_the_images(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """As torchrun starts them: together they draw what one would, to the byte."""
    common = ("sample", "-m", tiny_checkpoint, "--seeds", "0-4")
    assert polyinr(*common, "-o", "alone/").code == 0
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for rank, seeds in (("0", [0, 2, 4]), ("1", [1, 3])):
        monkeypatch.setenv("RANK", rank)
        ran = polyinr(*common, "-o", "shared/", "--json")
        assert [line["seed"] for line in ran.lines] == seeds
        assert f"polyinr: rank {rank} of 2: rendering {len(seeds)} of 5 images" in ran.stderr
    drawn = {path.name: path.read_bytes() for path in Path("shared").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in Path("alone").iterdir()}
    ran = polyinr(*common, "-o", "sheet.png")
    assert ran.code == 2
    assert "a folder" in ran.stderr


def test_a_small_array_on_a_full_disk(tiny_checkpoint: Path, polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**16))
    ran = polyinr("sample", "--seeds", "1", "--res", "400", "-m", tiny_checkpoint, "-o", "x.npy")
    refused(ran, "x.npy: needs 1.83 MiB, the disk has 0.06; render less", code=1)


def test_an_interrupted_folder_is_completed(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Files of the same image are kept as they are, and reported; one of another image is refused."""
    common = ("sample", "-m", tiny_checkpoint, "-o", "out/", "--res", "8")
    assert polyinr(*common, "--seeds", "3-4").code == 0
    before = Path("out/seed0003.png").stat()
    again = polyinr(*common, "--seeds", "2-5", "--json")
    assert again.code == 0, again.stderr
    assert sorted(line["seed"] for line in again.lines) == [2, 3, 4, 5]
    after = Path("out/seed0003.png").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    refused(polyinr(*common, "--seeds", "3", "--psi", "0.5"), "seed0003.png: exists already", code=1)
    Path("out/seed0002.png").write_bytes(Path("out/seed0002.png").read_bytes()[:40])
    refused(polyinr(*common, "--seeds", "2-5"), "seed0002.png: exists already", code=1)
    assert polyinr(*common, "--seeds", "3", "--psi", "0.5", "--overwrite").code == 0
