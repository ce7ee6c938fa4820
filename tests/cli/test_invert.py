"""`polyinr invert`: photos to latents to images again, deltas, and what is refused."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused
from PIL import Image
from rounding import assert_same_pixels

from polyinr_cli import console
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
    same = ("-m", tiny_checkpoint, "--precision", "float32")  # as it was searched; the file keeps the window
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
        (("photo.png", "--encoder", "nowhere.safetensors"), "no such file", 1),
        (("photo.png", "--encoder", "text.jpg"), "cannot be used as an encoder", 1),
        (("photo.png", "--encoder", "text.jpg", "--space", "z"), "leave --space z and --grid out", 2),
        (("photo.png", "--encoder", "text.jpg", "--grid", "0:2"), "leave --space z and --grid out", 2),
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


@pytest.fixture
def wide(polyinr: Run, tiny_checkpoint: Path) -> Path:
    """The latents of an image of 40 x 20, which is matched at 32 x 16."""
    Image.new("RGB", (40, 20), "red").save("wide.png")
    ran = polyinr("invert", "wide.png", "-o", "wide.safetensors", "-m", tiny_checkpoint, *QUICK)
    assert ran.code == 0, ran.stderr
    assert "resized from 40x20 to 32x16" in ran.stderr
    assert "photos are matched at the model's 16 pixels; --res N matches more detail" in ran.stderr
    command = f"polyinr sample --latents wide.safetensors -m {tiny_checkpoint} -o wide-inverted.png"
    assert f"render it with: {command}" in ran.stderr
    return Path("wide.safetensors")


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("sample --latents wide.safetensors", (32, 16)),  # the last one has a caption, of 20 pixels
        ("sample --latents wide.safetensors --res 64", (64, 32)),
        ("sample --latents wide.safetensors --size 20x20", (20, 20)),
        ("mix wide.safetensors wide.safetensors", (32, 16)),
        ("mix 1 wide.safetensors --res 8", (8, 4)),
        ("interpolate 1 wide.safetensors --frames 2", (2 * 32 + 2, 16)),
        ("heatmap --latents wide.safetensors --levels 0", (2 * 32 + 2, 16 + 20)),
    ],
)
def test_latents_keep_the_shape_of_the_photo(
    polyinr: Run, tiny_checkpoint: Path, wide: Path, command: str, size: tuple[int, int]
):
    ran = polyinr(*command.split(), "-m", tiny_checkpoint, "-o", "x.png")
    assert ran.code == 0, ran.stderr
    assert Image.open("x.png").size == size


def test_latents_keep_name_window_and_scores(polyinr: Run, tiny_checkpoint: Path):
    Image.new("RGB", (40, 20), "red").save("wide.png")
    invert = ("invert", "wide.png", "wide.png", "-m", tiny_checkpoint, *QUICK, "--grid", "0:0.5,0:1")
    ran = polyinr(*invert, "-o", "x.safetensors", "--tune", "--tune-steps", "2", "--json")
    assert ran.code == 0, ran.stderr
    found = read_latents(Path("x.safetensors"))
    assert [(photo.name, photo.size, photo.window) for photo in found.photos] == [
        ("wide.png", (32, 16), (0.0, 0.0, 0.5, 1.0))
    ] * 2
    scores = found[0].photos[0].scores
    assert scores["psnr"] == ran.lines[0]["psnr"]
    assert scores["tuned"] == ran.lines[0]["tuned"]
    assert "wide.png, before tuning: PSNR" in ran.stderr
    assert "wide.png, after tuning:  PSNR" in ran.stderr
    for model in (tiny_checkpoint, f"{tiny_checkpoint}+x.delta.safetensors"):  # both are kept
        ran = polyinr("sample", "--latents", "x.safetensors", "-m", model, "-o", "out", "--overwrite")
        assert ran.code == 0, ran.stderr
    assert polyinr("info", "x.safetensors").code == 0


def test_ctrl_c_keeps_the_best_found_so_far(polyinr: Run, tiny_checkpoint: Path, photos: list[Path], monkeypatch):
    """A signal at the fifth measured PSNR: both photos of one size are kept, one of another is left out, none tuned."""
    from polyinr_core.inversion import search

    original, seen = search.psnr_of, []

    def signal_once(error: torch.Tensor) -> float:
        seen.append(error)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(error)

    monkeypatch.setattr(search, "psnr_of", signal_once)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    Image.new("RGB", (8, 4)).save("wide.png")
    ran = polyinr(
        *("invert", *photos, "wide.png", "-o", "x.safetensors", "-m", tiny_checkpoint, "--loss", "pixels"),
        *("--steps", "100000", "--tune"),
    )
    assert ran.code == 130
    assert "interrupted: keeping the best found so far; 1 of 3 photos left out, not tuned" in ran.stderr
    found = read_latents(Path("x.safetensors"))
    assert [photo.name for photo in found.photos] == [str(photo) for photo in photos]
    assert all(photo.scores["psnr"] > 0 for photo in found.photos)
    assert not Path("x.delta.safetensors").exists()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_folder_of_photos(polyinr: Run, tiny_checkpoint: Path, photos: list[Path]):
    ran = polyinr("invert", "photos", "-o", "x.safetensors", "-m", tiny_checkpoint, *QUICK)
    assert ran.code == 0, ran.stderr
    assert [photo.name for photo in read_latents(Path("x.safetensors")).photos] == [str(photo) for photo in photos]


def test_a_video_to_latents_and_back(polyinr: Run, tiny_checkpoint: Path):
    pytest.importorskip("av")
    ran = polyinr("interpolate", "3", "4", "--frames", "4", "--fps", "10", "-m", tiny_checkpoint, "-o", "clip.mp4")
    assert ran.code == 0, ran.stderr
    ran = polyinr("invert", "clip.mp4", "-o", "clip.safetensors", "-m", tiny_checkpoint, *QUICK, "--json")
    assert ran.code == 0, ran.stderr
    assert [line["photo"] for line in ran.lines] == [f"clip.mp4 frame {index}" for index in range(4)]
    assert len(read_latents(Path("clip.safetensors"))) == 4
    (command,) = re.findall("render it with: polyinr (.*)", ran.stderr)
    assert "--frames 4 --fps 10 " in command
    ran = polyinr(*command.split())
    assert ran.code == 0, ran.stderr
    assert Path("clip-inverted.mp4").is_file()
    ran = polyinr("sample", "--latents", "clip.safetensors", "-m", tiny_checkpoint, "-o", "frames/")
    assert ran.code == 0, ran.stderr
    assert len(list(Path("frames").iterdir())) == 4


def test_progress_off_a_terminal(polyinr: Run, tiny_checkpoint: Path, photos: list[Path], monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    ran = polyinr("invert", photos[0], "-o", "x.safetensors", "-m", tiny_checkpoint, *QUICK)
    assert re.search(r"seed0003.png: 4 of at most 40 steps, PSNR [\d.]+ dB, \d+ s, at most \d+ s more", ran.stderr)
    ran = polyinr("invert", photos[0], "-o", "y.safetensors", "-m", tiny_checkpoint, *QUICK, "-q")
    assert (ran.code, ran.stderr) == (0, "")


def test_an_encoder_is_trained_and_started_from(polyinr: Run, tiny_checkpoint: Path, photos: list[Path]):
    quick = ("--steps", "3", "--batch", "2", "--res", "16")
    ran = polyinr("encoder", tiny_checkpoint, "-o", "e.safetensors", *quick, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.lines[0]["steps"] == 3
    assert "held-out samples start at PSNR" in ran.stderr
    again = ("invert", photos[0], "-m", tiny_checkpoint, "--encoder", "e.safetensors", "--loss", "pixels", "--json")
    (start,) = polyinr(*again, "--steps", "0", "-o", "a.safetensors").lines
    (found,) = polyinr(*again, "--steps", "30", "-o", "b.safetensors").lines
    assert start["steps"] == 0
    assert found["psnr"] > start["psnr"]


def test_the_bundled_encoder_is_the_default_for_its_model(
    polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path, photos: list[Path], monkeypatch
):
    from polyinr_core.inversion import encoder

    quick = ("--steps", "2", "--batch", "2", "--res", "16")
    assert polyinr("encoder", tiny_checkpoint, "-o", "e.safetensors", *quick).code == 0
    monkeypatch.setattr(encoder, "bundled_encoder", lambda: Path("e.safetensors").absolute())
    begin = ("invert", photos[0], "--loss", "pixels", "--overwrite", "-o", "a.safetensors", "-m")
    ran = polyinr(*begin, tiny_checkpoint, "--steps", "0")
    assert ran.code == 0, ran.stderr
    assert "starting at what the bundled encoder says" in ran.stderr
    found = read_latents(Path("a.safetensors"))
    named = polyinr(*begin, tiny_checkpoint, "--steps", "0", "--encoder", "e.safetensors")
    assert "bundled" not in named.stderr
    assert torch.equal(read_latents(Path("a.safetensors")).affine, found.affine)
    for options in (
        (tiny_checkpoint, "--encoder", "none"),
        (tiny_checkpoint, "--grid", "0:2"),
        (tiny_checkpoint, "--space", "z"),
        (tiny_class_checkpoint,),
        (tiny_class_checkpoint, "--label", "2"),
    ):
        refused(polyinr(*begin, *options, "--steps", "0"), "--steps 0 is out of range", code=2)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("-o", "e.png"), ".safetensors", 2),
        (("-o", "there.safetensors"), "exists already", 1),
        (("-o", "e.safetensors", "--steps", "0"), "--steps 0 is out of range", 2),
        (("-o", "e.safetensors", "--batch", "0"), "--batch 0 is out of range", 2),
        (("-o", "e.safetensors", "--res", "12"), "multiple of 8", 2),
    ],
)
def test_encoders_refused(polyinr: Run, tiny_checkpoint: Path, arguments: tuple[str, ...], words: str, code: int):
    Path("there.safetensors").touch()
    refused(polyinr("encoder", tiny_checkpoint, *arguments, "-q"), words, code=code)
    assert not Path("e.safetensors").exists()
