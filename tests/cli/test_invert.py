"""`polyinr invert`: photos to latents to images again, deltas, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused
from PIL import Image
from rounding import assert_same_pixels

from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import Latents

QUICK = ("--loss", "pixels", "--steps", "8")


@pytest.fixture
def photos(polyinr: Run, tiny_checkpoint: Path) -> list[Path]:
    """Two images that the model drew, as files."""
    assert polyinr("sample", "--seeds", "3-4", "-m", tiny_checkpoint, "-o", "photos").code == 0
    return sorted(Path("photos").iterdir())


def test_the_whole_chain(polyinr: Run, tiny_checkpoint: Path, photos: list[Path]):
    """Two photos to latents, their mean and a mixture of their levels by plain arithmetic, drawn again."""
    ran = polyinr(
        *("invert", *photos, "-o", "found.safetensors", "-m", tiny_checkpoint, "--json"),
        *("--loss", "pixels", "--steps", "90"),
    )
    assert ran.code == 0, ran.stderr
    assert all(line["psnr"] > 25 for line in ran.lines)
    assert [line["photo"] for line in ran.lines] == [str(photo) for photo in photos]
    assert "loss: pixels alone" in ran.stderr
    found = read_latents(Path("found.safetensors"))
    a, b = found.affine.unbind(0)
    mixed = torch.cat([a[:1], b[1:]])
    latents = Latents(affine=torch.stack([a, (a + b) / 2, b, mixed]), model_sha256=found.model_sha256)
    write_latents(Path("walk.safetensors"), latents)
    ran = polyinr("sample", "--latents", "walk.safetensors", "-m", tiny_checkpoint, "-o", "walk")
    assert (ran.code, ran.stderr) == (0, "")
    drawn = [np.asarray(Image.open(path)).astype(float) for path in sorted(Path("walk").iterdir())]
    first, last = (np.asarray(Image.open(photo)).astype(float) for photo in photos)
    assert np.abs(drawn[0] - first).mean() < 12
    assert np.abs(drawn[2] - last).mean() < 12
    assert all(np.abs(drawn[i] - drawn[j]).mean() > 1 for i in range(4) for j in range(i))


def test_a_tuned_model_by_its_delta(
    polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path, photos: list[Path]
):
    ran = polyinr(
        *(
            "invert",
            photos[0],
            "-o",
            "a.safetensors",
            "-m",
            tiny_checkpoint,
            *QUICK,
            "--json",
            "--show",
            "show.png",
        ),
        *("--tune", "--tune-rank", "2", "--tune-steps", "5"),
    )
    assert ran.code == 0, ran.stderr
    photo, delta = ran.lines
    assert delta["file"] == "a.delta.safetensors"
    assert photo["tuned"].keys() == {"psnr", "ssim", "perceptual"}
    tuned = read_latents(Path("a.safetensors")).model_sha256
    assert photo["model"] == delta["model"] == tuned != delta["model_before"]
    assert Image.open("show.png").size == (3 * 16 + 2 * 2, 16)
    both = f"{tiny_checkpoint}+a.delta.safetensors"
    ran = polyinr("sample", "--latents", "a.safetensors", "-m", both, "-o", "x.png", "--json", "--precision", "float32")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.lines[0]["model"] == tuned
    assert_same_pixels(np.asarray(Image.open("x.png")), np.asarray(Image.open("show.png"))[:, 36:])
    other = f"{tiny_class_checkpoint}+a.delta.safetensors"
    ran = polyinr("sample", "--seeds", "1", "-m", other, "-o", "y.png")
    refused(ran, "a.delta.safetensors", "take the model that it was tuned from", code=1)
    ran = polyinr("sample", "--seeds", "1", "-m", "a.delta.safetensors", "-o", "y.png")
    refused(ran, "name the model that it was tuned for", code=1)


@pytest.mark.parametrize("space", ["w", "z"])
def test_other_spaces_to_stdout(polyinr: Run, tiny_class_checkpoint: Path, photos: list[Path], space: str):
    ran = polyinr(
        *("invert", "-", "-o", "-", "-m", tiny_class_checkpoint, "--space", space, "--label", "class c", *QUICK),
        stdin=photos[0].read_bytes(),
    )
    found = read_latents(ran.stdout)
    assert found.affine is not None
    assert getattr(found, space) is not None
    assert found.label.tolist() == [2]


def test_photos_of_all_kinds(polyinr: Run, tiny_checkpoint: Path):
    """1 x 1, animated, CMYK, not square: all are matched, and what was done to them is said."""
    Image.new("RGB", (1, 1), "red").save("dot.png")
    Image.new("RGB", (20, 10)).save("moving.gif", save_all=True, append_images=[Image.new("RGB", (20, 10), "red")])
    Image.new("CMYK", (40, 20)).save("print.jpg")
    photos = ("dot.png", "moving.gif", "print.jpg")
    ran = polyinr("invert", *photos, "-o", "x.safetensors", "-m", tiny_checkpoint, *QUICK, "--json", "--res", "8")
    assert ran.code == 0, ran.stderr
    assert [line["size"] for line in ran.lines] == [[8, 8], [16, 8], [16, 8]]
    assert "moving.gif: using the first of 2 frames" in ran.stderr
    assert "print.jpg: resized from 40x20 to 16x8" in ran.stderr
    ran = polyinr("invert", "dot.png", "-o", "dot.safetensors", "-m", tiny_checkpoint, *QUICK, "--json", "-q")
    assert (ran.code, ran.stderr, ran.lines[0]["size"], ran.lines[0]["ssim"]) == (0, "", [1, 1], None)


def test_the_window_is_where_the_photo_lies(polyinr: Run, tiny_checkpoint: Path, photos: list[Path]):
    ran = polyinr(
        *("invert", photos[0], "-o", "x.safetensors", "-m", tiny_checkpoint, "--grid", "0:0.5,0:1", "--json"),
        *("--loss", "pixels", "--steps", "100"),
    )
    assert ran.lines[0]["window"] == [0.0, 0.0, 0.5, 1.0]
    same = ("-m", tiny_checkpoint, "--grid", "0:0.5,0:1", "--precision", "float32")  # as it was searched
    polyinr("sample", "--latents", "x.safetensors", *same, "-o", "y.png")
    difference = np.asarray(Image.open("y.png")).astype(float) - np.asarray(Image.open(photos[0]))
    assert 10 * np.log10(255**2 / np.square(difference).mean()) == pytest.approx(ran.lines[0]["psnr"], abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("nowhere.jpg",), "no such file", 1),
        (("empty.jpg",), "is empty", 1),
        (("text.jpg",), "not an image", 1),
        (("photo.png", "--steps", "0"), "--steps 0 is out of range", 2),
        (("photo.png", "--restarts", "0"), "--restarts 0 is out of range", 2),
        (("photo.png", "--seed", "-1"), "--seed -1 is out of range", 2),
        (("photo.png", "--space", "v"), "--space", 2),
        (("photo.png", "--label", "2"), "no classes", 2),
        (("photo.png", "--grid", "nan:1"), "window", 2),
        (("photo.png", "--res", "0"), "size", 2),
        (("photo.png", "--res", "8", "--size", "8x8"), "give one of the two", 2),
        (("photo.png", "--tune-rank", "4"), "--tune", 2),
        (("photo.png", "--tune", "--tune-rank", "99"), "out of range 1-16", 2),
        (("photo.png", "--tune", "--tune-steps", "0"), "--tune-steps 0", 2),
        (("photo.png", "--tune", "--delta", "x.png"), ".safetensors", 2),
        (("photo.png", "--tune", "--delta", "x.safetensors"), "same file", 2),
        (("photo.png", "--show", "x.bmp"), "no image format", 2),
        (("photo.png", "--show", "photo.png"), "exists already", 1),
        (("photo.png", "--loss", "pixels", "--vgg16", "v.pth"), "--vgg16 is for LPIPS", 2),
        (("photo.png", "--vgg16", "nowhere.pth"), "no such file", 1),
        (("-", "-"), "more than once", 2),
    ],
)
def test_refused(polyinr: Run, tiny_checkpoint: Path, arguments: tuple[str, ...], words: str, code: int):
    Image.new("RGB", (4, 4)).save("photo.png")
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("no image")
    refused(polyinr("invert", *arguments, "-o", "x.safetensors", "-m", tiny_checkpoint), words, code=code)
    assert not Path("x.safetensors").exists()


def test_outputs_refused(polyinr: Run, tiny_checkpoint: Path):
    Image.new("RGB", (4, 4)).save("photo.png")
    Path("there.safetensors").touch()
    ran = polyinr("invert", "photo.png", "-o", "there.safetensors", "-m", tiny_checkpoint, *QUICK)
    refused(ran, "exists already", code=1)
    refused(polyinr("invert", "photo.png", "-o", "x.png", "-m", tiny_checkpoint), ".safetensors", code=2)
    refused(polyinr("invert", "photo.png", "-o", "-", "--tune", "-m", tiny_checkpoint), "--delta", code=2)
    refused(polyinr("invert", "photo.png", "-o", "-", "--json", "-m", tiny_checkpoint), "--json", code=2)


def test_a_place_that_cannot_be_written_is_found_before_the_search(polyinr: Run, tiny_checkpoint: Path):
    polyinr("sample", "-m", tiny_checkpoint, "--seeds", "1", "-o", "photo.png")
    Path("file").write_text("no folder")
    for option in ("--delta", "--show"):
        words = [option, "file/x.png"] if option == "--show" else ["--tune", option, "file/x.safetensors"]
        ran = polyinr("invert", "photo.png", "-m", tiny_checkpoint, "-o", "photo.safetensors", *words)
        refused(ran, "file/x", "not a folder", code=1)
        assert not Path("photo.safetensors").exists()
