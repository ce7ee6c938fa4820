"""`polyinr interpolate`: strips, animations, frames and pipes, and what the walk shows."""

import io
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.discriminator import backbones
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import concatenate, from_seeds
from polyinr_core.runtime import pretrained

WALK = ("interpolate", "3", "17", "--frames", "5")


def pixels_of(source: Path | str) -> np.ndarray:
    return np.asarray(Image.open(source).convert("RGB"))


@pytest.fixture
def frames(polyinr: Run, tiny_checkpoint: Path) -> np.ndarray:
    """The walk's frames [5, 16, 16, 3], as a folder holds them."""
    assert polyinr(*WALK, "-m", tiny_checkpoint, "-o", "frames/").code == 0
    names = sorted(os.listdir("frames"))
    assert names == [f"frame{index:04d}.png" for index in range(5)]
    return np.stack([pixels_of(f"frames/{name}") for name in names])


def test_the_ends_are_the_images(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    polyinr("sample", "--seeds", "3,17", "-m", tiny_checkpoint, "-o", "ends/")
    assert np.array_equal(frames[0], pixels_of("ends/seed0003.png"))
    assert np.array_equal(frames[-1], pixels_of("ends/seed0017.png"))
    assert len(np.unique(frames, axis=0)) == 5


def test_a_strip_is_one_row(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    for name in ("strip.png", "strip.tif"):
        assert polyinr(*WALK, "-m", tiny_checkpoint, "-o", name).code == 0
        strip = pixels_of(name)
        assert strip.shape == (16, 5 * 16 + 4 * 2, 3)
        for index, frame in enumerate(frames):
            assert np.array_equal(strip[:, 18 * index : 18 * index + 16], frame)
    assert polyinr(*WALK, "-m", tiny_checkpoint, "-o", "two.png", "--columns", "3").code == 0
    assert pixels_of("two.png").shape == (2 * 16 + 2, 3 * 16 + 4, 3)


@pytest.mark.parametrize(("name", "tolerance"), [("walk.gif", 8), ("walk.webp", 16)])
def test_animations(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray, name: str, tolerance: float):
    """Read back by Pillow: every frame near to its own, and for as long as --fps says."""
    ran = polyinr(*WALK, "-m", tiny_checkpoint, "-o", name, "--fps", "20")
    assert ran.code == 0, ran.stderr
    with Image.open(name) as animation:
        assert animation.n_frames == 5
        for index, frame in enumerate(frames):
            animation.seek(index)
            shown = np.asarray(animation.convert("RGB")).astype(float)
            assert animation.info["duration"] == 50
            assert np.abs(shown - frame).mean() < tolerance


def test_a_film(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    """Read back by PyAV; H.264 halves the colors' resolution, so only the mean brightness is compared."""
    av = pytest.importorskip("av")
    assert polyinr(*WALK, "-m", tiny_checkpoint, "-o", "walk.mp4", "--fps", "25").code == 0
    with av.open("walk.mp4") as film:
        stream = film.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        assert stream.average_rate == 25
    assert len(shown) == 5
    for one, frame in zip(shown, frames, strict=True):
        assert one.mean() == pytest.approx(frame.mean(), abs=4)


def test_raw_frames_down_a_pipe(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    ran = polyinr(*WALK, "-m", tiny_checkpoint, "-o", "-")
    assert len(ran.stdout) == 5 * 16 * 16 * 3
    assert np.array_equal(np.frombuffer(ran.stdout, dtype=np.uint8).reshape(frames.shape), frames)


def test_a_message_says_what_reads_them(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from polyinr_cli import console as streams

    monkeypatch.setattr(streams, "is_terminal", lambda stream: stream is sys.stderr)
    ran = polyinr(*WALK, "-m", tiny_checkpoint, "-o", "-", "--size", "20x10", "--fps", "12.5")
    assert "ffmpeg -f rawvideo -pix_fmt rgb24 -s 20x10 -r 12.5 -i -" in ran.stderr
    assert len(ran.stdout) == 5 * 20 * 10 * 3


def test_frames_are_not_for_a_terminal(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from polyinr_cli import console as streams

    monkeypatch.setattr(streams, "is_terminal", lambda stream: stream is sys.stdout)
    refused(polyinr(*WALK, "-m", tiny_checkpoint, "-o", "-"), "to a terminal", "frame", code=2)


def test_latents_of_the_frames(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    assert polyinr(*WALK, "-m", tiny_checkpoint, "-o", "walk.safetensors").code == 0
    kept = read_latents(Path("walk.safetensors"))
    assert (len(kept), kept.model_sha256) == (5, load_checkpoint(tiny_checkpoint).sha256)
    polyinr("sample", "--latents", "walk.safetensors", "-m", tiny_checkpoint, "-o", "again/")
    for index, frame in enumerate(frames):
        assert np.array_equal(pixels_of(f"again/image{index:04d}.png"), frame)


def test_a_loop_shows_no_frame_twice(polyinr: Run, tiny_checkpoint: Path):
    ran = polyinr("interpolate", "0-2", "--frames", "9", "--loop", "-m", tiny_checkpoint, "-o", "-")
    shown = np.frombuffer(ran.stdout, dtype=np.uint8).reshape(9, 16, 16, 3)
    assert len(np.unique(shown, axis=0)) == 9
    polyinr("sample", "--seeds", "0-2", "-m", tiny_checkpoint, "-o", "ends/")
    for seed in range(3):
        assert np.array_equal(shown[3 * seed], pixels_of(f"ends/seed{seed:04d}.png"))


def test_easing(polyinr: Run, tiny_checkpoint: Path):
    """Slow at the ends: the first step is shorter than a fifth of the one in the middle."""
    drawn = {}
    for easing in ("linear", "smooth"):
        name = f"{easing}.npy"
        polyinr("interpolate", "3", "17", "--frames", "20", "--easing", easing, "-m", tiny_checkpoint, "-o", name)
        drawn[easing] = np.abs(np.diff(np.load(name), axis=0)).mean(axis=(1, 2, 3))
    assert drawn["smooth"][0] < 0.3 * drawn["linear"][0]
    assert drawn["smooth"].max() > drawn["linear"].max()


@pytest.mark.parametrize("space", ["z", "w", "affine"])
def test_spaces(polyinr: Run, tiny_class_checkpoint: Path, space: str):
    """All lead from end to end, by ways of their own; z takes one class."""
    command = ("--frames", "3", "--label", "1", "-m", tiny_class_checkpoint, "-o")
    assert polyinr("interpolate", "1", "2", "--space", space, *command, "x.npy").code == 0
    polyinr("sample", "--seeds", "1,2", *command[2:], "ends.npy")
    drawn, ends = np.load("x.npy"), np.load("ends.npy")
    assert np.array_equal(drawn[[0, 2]], ends)
    polyinr("interpolate", "1", "2", "--space", "affine", *command, "affine.npy")
    assert np.array_equal(drawn, np.load("affine.npy")) == (space == "affine")


def test_z_and_classes(polyinr: Run, tiny_class_checkpoint: Path):
    """Seeds 0 and 1 draw classes of their own."""
    command = ("interpolate", "0-3", "--space", "z", "--frames", "4", "-m", tiny_class_checkpoint, "-o", "x.png")
    refused(polyinr(*command), "classes", "in w or affine", code=2)
    assert polyinr(*command, "--label", "class b").code == 0


def test_curves_differ(polyinr: Run, tiny_checkpoint: Path):
    command = ("interpolate", "3", "17", "--space", "z", "--frames", "4", "-m", tiny_checkpoint, "-o")
    polyinr(*command, "a.npy")
    polyinr(*command, "b.npy", "--curve", "spherical")
    polyinr(*command, "c.npy", "--curve", "linear")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))
    assert not np.array_equal(np.load("a.npy"), np.load("c.npy"))


def test_zoom_on_the_way(polyinr: Run, tiny_checkpoint: Path):
    """Oracle: sample at the frame's own zoom; float64, 1e-10."""
    common = ("-m", tiny_checkpoint, "--precision", "float64", "--size", "12x8", "--center", "0.3,0.6", "-o")
    ran = polyinr("interpolate", "4", "4", "--frames", "3", "--zoom-from", "0.5", "--zoom-to", "8", *common, "x.npy")
    assert ran.code == 0, ran.stderr
    drawn = np.load("x.npy")
    for index, zoom in enumerate(("0.5", "2", "8")):
        polyinr("sample", "--seeds", "4", "--zoom", zoom, *common, f"{index}.npy")
        assert np.abs(drawn[index] - np.load(f"{index}.npy")[0]).max() < 1e-10


def test_zoom_in_a_turned_window(polyinr: Run, tiny_checkpoint: Path):
    """Turning about the middle and zooming into it are one thing in either order."""
    common = ("-m", tiny_checkpoint, "--precision", "float64", "--rotate", "30", "-o")
    polyinr("interpolate", "4", "4", "--frames", "2", "--zoom-to", "4", *common, "x.npy")
    polyinr("sample", "--seeds", "4", "--zoom", "4", *common, "y.npy")
    assert np.abs(np.load("x.npy")[1] - np.load("y.npy")[0]).max() < 1e-10


def test_latents_files_walk_as_seeds_do(polyinr: Run, tiny_checkpoint: Path, frames: np.ndarray):
    """From a file that something else wrote, with affine maps alone, and through a pipe."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    kept = concatenate([from_seeds(checkpoint.generator, [seed]) for seed in (3, 17)])
    write_latents(Path("whole.safetensors"), replace(kept, model_sha256=checkpoint.sha256))
    write_latents(Path("maps.safetensors"), replace(kept, z=None, w=None, seeds=()))
    walk = ("--frames", "5", "-m", tiny_checkpoint, "-o", "-")
    for words in (["whole.safetensors"], ["maps.safetensors"]):
        ran = polyinr("interpolate", *words, *walk)
        assert np.array_equal(np.frombuffer(ran.stdout, dtype=np.uint8).reshape(frames.shape), frames)
    piped = polyinr("interpolate", "-", *walk, stdin=Path("maps.safetensors").read_bytes())
    assert np.array_equal(np.frombuffer(piped.stdout, dtype=np.uint8).reshape(frames.shape), frames)
    mixed = polyinr("interpolate", "3", "maps.safetensors", "--frames", "3", *walk[2:])
    assert len(mixed.stdout) == 3 * 16 * 16 * 3
    refused(polyinr("interpolate", "maps.safetensors", *walk, "--space", "w"), "not w", "affine", code=2)


def test_another_models_latents(polyinr: Run, tiny_checkpoint: Path):
    latents = from_seeds(load_checkpoint(tiny_checkpoint).generator, [1])
    write_latents(Path("x.safetensors"), replace(latents, z=None, model_sha256="cd" * 32))
    command = ("interpolate", "x.safetensors", "2", "--frames", "2", "-m", tiny_checkpoint, "-o", "x.png")
    refused(polyinr(*command), "another model", "--force", code=1)
    assert polyinr(*command, "--force").code == 0


class Halved(torch.nn.Module):
    """In the place of lite0: images of two sizes, as they are."""

    def __init__(self, weights: object) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        assert x.shape == (1, 3, 128, 128)
        return [x + 2, x[..., ::2, ::2] + 2]


@pytest.mark.parametrize("name", ["walk.gif", "strip.png", "frames/", "walk.safetensors"])
def test_smoothness(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """One JSON line, the same whatever the walk is drawn to; a still walk has no steps."""
    monkeypatch.setattr(backbones, "Lite0Features", Halved)
    monkeypatch.setattr(pretrained, "load_pretrained", lambda name: {})
    (facts,) = polyinr(*WALK, "-m", tiny_checkpoint, "-o", name, "--json").lines
    smoothness = facts["smoothness"]
    assert smoothness["largest"] >= smoothness["mean"] > 0
    assert 0 <= smoothness["largest_from_frame"] < 4
    assert (smoothness["features"], facts["count"], facts["file"]) == ("lite0", 5, name.rstrip("/"))
    still = polyinr("interpolate", "3", "3", "--frames", "3", "-m", tiny_checkpoint, "-o", "still.png", "--json")
    assert still.lines[0]["smoothness"]["largest"] == 0


@pytest.mark.slow
def test_smoothness_in_lite0(polyinr: Run, tiny_checkpoint: Path):
    """With more frames each step is shorter."""
    found = []
    for frames in ("9", "17"):
        ran = polyinr(
            "interpolate", "3", "17", "--frames", frames, "-m", tiny_checkpoint, "-o", f"{frames}.gif", "--json"
        )
        found.append(ran.lines[0]["smoothness"]["mean"])
    assert 0 < found[1] < found[0]


@pytest.mark.parametrize("name", ["strip.png", "strip.tif"])
def test_the_note_says_how_to_make_it_again(polyinr: Run, tiny_class_checkpoint: Path, name: str):
    command = (*WALK, "--space", "w", "--loop", "--zoom-to", "2", "--label", "2", "--psi", "0.7")
    polyinr(*command, "--size", "9x7", "-m", tiny_class_checkpoint, "-o", name)
    note = read_metadata(Path(name))
    assert note["images"] == ["seed0003", "seed0017"]
    (facts,) = polyinr("info", name, "--json").lines
    words = shlex.split(facts["command"])[1:]
    assert polyinr(*words, "-m", tiny_class_checkpoint).code == 2  # -m is given twice
    words[words.index("-m") + 1] = str(tiny_class_checkpoint)
    assert polyinr(*words).code == 0
    again = Path(words[words.index("-o") + 1])
    assert np.array_equal(pixels_of(again), pixels_of(name))
    assert read_metadata(again)["words"] == note["words"]


def test_a_numbered_frame_leads_back_to_its_folder(polyinr: Run, frames: np.ndarray):
    (facts,) = polyinr("info", "frames/frame0002.png", "--json").lines
    assert (facts["index"], facts["count"]) == (2, 5)
    assert facts["command"].endswith("-o frame0002-again/")


def test_sample_takes_a_walks_window(polyinr: Run, tiny_checkpoint: Path):
    polyinr(*WALK, "--size", "9x7", "-m", tiny_checkpoint, "-o", "x.png")
    assert polyinr("sample", "--like", "x.png", "--seeds", "1", "-m", tiny_checkpoint, "-o", "y.png").code == 0
    assert pixels_of("y.png").shape == (7, 9, 3)
    refused(polyinr("sample", "--like", "x.png", "-m", tiny_checkpoint, "-o", "z.png"), "--seeds", code=1)


def test_frames_are_made_one_at_a_time(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader who goes after the first frame keeps the others from being drawn."""
    from polyinr_cli import console
    from polyinr_core.rendering.render import Renderer

    asked = []
    original = Renderer.fill
    monkeypatch.setattr(Renderer, "fill", lambda *args, **kwargs: asked.append(1) or original(*args, **kwargs))

    class Gone(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(console, "binary_stdout", lambda payload="image": Gone())
    ran = polyinr(*WALK, "-m", tiny_checkpoint, "-o", "-")
    assert (ran.code, ran.stderr, len(asked)) == (1, "", 1)


def test_an_encoder_that_is_missing(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Said before any frame is drawn, with what to install."""
    from polyinr_core.images import animation

    monkeypatch.setattr(animation.importlib.util, "find_spec", lambda name: None)
    refused(polyinr(*WALK, "-m", tiny_checkpoint, "-o", "x.mp4"), "PyAV", "pip install av", code=1)
