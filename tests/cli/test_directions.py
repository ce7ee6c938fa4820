"""`polyinr directions`: found, looked at, gone along."""

import io
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.latents.direction_files import read_directions
from polyinr_core.latents.directions import move
from polyinr_core.latents.io import read_latents
from polyinr_core.latents.latents import from_seeds, to_affine

FIND = ("directions", "--samples", "20", "--count", "3")


def pixels_of(source: Path | str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


@pytest.fixture
def found(polyinr: Run, tiny_checkpoint: Path) -> Path:
    """Directions of w."""
    ran = polyinr(*FIND, "-m", tiny_checkpoint, "-o", "d.safetensors")
    assert ran.code == 0, ran.stderr
    return Path("d.safetensors")


@pytest.mark.parametrize("space", ["w", "affine"])
def test_finding(polyinr: Run, tiny_class_checkpoint: Path, space: str):
    command = (*FIND, "--space", space, "--psi", "0.8", "-m", tiny_class_checkpoint, "-o")
    (facts,) = polyinr(*command, "d.safetensors", "--json").lines
    held = read_directions(Path("d.safetensors"))
    assert (held.space, len(held), held.samples, held.psi, held.label) == (space, 3, 20, 0.8, None)
    assert held.model_sha256 == load_checkpoint(tiny_class_checkpoint).sha256
    assert facts["shares"] == held.shares.tolist()
    assert polyinr(*command, "-").stdout == Path("d.safetensors").read_bytes()
    assert polyinr(*command, "a.safetensors", "--label", "class c").code == 0
    assert read_directions(Path("a.safetensors")).label == 2


def test_without_words_w(polyinr: Run, found: Path):
    assert read_directions(found).space == "w"


def test_a_sheet_of_walks(polyinr: Run, tiny_checkpoint: Path, found: Path):
    """A row a direction, a column an amount; the middle column is the image itself."""
    command = ("directions", found, "--seeds", "3", "-m", tiny_checkpoint, "-o")
    assert polyinr(*command, "sheet.png").code == 0
    assert polyinr(*command, "walks/").code == 0
    sheet = pixels_of("sheet.png")
    left, top = sheet.shape[1] - (7 * 16 + 6 * 2), sheet.shape[0] - (3 * 16 + 2 * 2)
    assert min(left, top) > 10
    assert (sheet[top:, :left] < 128).any()
    assert (sheet[:top, left:] < 128).any()
    polyinr("sample", "--seeds", "3", "-m", tiny_checkpoint, "-o", "own.png")
    for row in range(3):
        for column in range(7):
            cell = sheet[top + 18 * row :, left + 18 * column :][:16, :16]
            assert np.array_equal(cell, pixels_of(f"walks/seed0003-direction{row:03d}-{column:02d}.png"))
            assert np.array_equal(cell, pixels_of("own.png")) == (column == 3)


def test_count_and_amounts(polyinr: Run, tiny_checkpoint: Path, found: Path):
    command = ("directions", found, "--seeds", "3,4", "--amounts", "-2,1.5", "--count", "2", "-m", tiny_checkpoint)
    assert polyinr(*command, "-o", "x.npy").code == 0
    drawn = np.load("x.npy")
    assert drawn.shape == (2 * 2 * 2, 16, 16, 3)
    polyinr("directions", found, "--seeds", "4", "--take", "1:1.5", "-m", tiny_checkpoint, "-o", "y.npy")
    assert np.array_equal(drawn[-1], np.load("y.npy")[0])
    lines = polyinr(*command, "-o", "out/", "--json").lines
    assert (lines[-1]["image"], lines[-1]["direction"], lines[-1]["amount"]) == ("seed0004", 1, 1.5)
    assert polyinr(*command, "-o", "walks.safetensors").code == 0
    assert len(read_latents(Path("walks.safetensors"))) == 8


def test_taking(polyinr: Run, tiny_checkpoint: Path, found: Path):
    """Oracle: the core's own moves; images and latents agree, at some levels and at all."""
    generator = load_checkpoint(tiny_checkpoint).generator
    command = ("directions", found, "--seeds", "0-1", "--take", "2:1.5,0:-1", "-m", tiny_checkpoint, "-o")
    for options, levels in (((), None), (("--levels", "1-2"), [1, 2])):
        assert polyinr(*command, "x.safetensors", "--overwrite", *options).code == 0
        kept = read_latents(Path("x.safetensors"))
        for seed in (0, 1):
            image = from_seeds(generator, [seed])
            expected = to_affine(generator, move(image, read_directions(found), {2: 1.5, 0: -1.0}, levels=levels))
            assert np.array_equal(kept.affine[seed], expected.affine[0])
            assert np.array_equal(kept.w[seed], expected.w[0])
    polyinr(*command, "a.npy", "--levels", "1-2")
    polyinr("sample", "--latents", "x.safetensors", "-m", tiny_checkpoint, "-o", "b.npy")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_through_pipes(polyinr: Run, tiny_checkpoint: Path, found: Path):
    """sample -o - is a PNG, so latents come from a file; they go on down a pipe, and directions come by one."""
    polyinr("sample", "--seeds", "0-3", "-m", tiny_checkpoint, "-o", "four.safetensors")
    take = ("--take", "0:2", "-m", tiny_checkpoint, "-o")
    moved_on = polyinr("directions", found, "--latents", "-", *take, "-", stdin=Path("four.safetensors").read_bytes())
    assert moved_on.code == 0, moved_on.stderr
    polyinr("directions", found, "--latents", "four.safetensors", *take, "x.safetensors")
    assert moved_on.stdout == Path("x.safetensors").read_bytes()
    by_pipe = polyinr("directions", "-", "--seeds", "0-3", *take, "-", stdin=found.read_bytes())
    assert np.array_equal(read_latents(by_pipe.stdout).affine, read_latents(Path("x.safetensors")).affine)
    drawn = polyinr("sample", "--latents", "-", "-m", tiny_checkpoint, "-o", "-", stdin=moved_on.stdout)
    polyinr("directions", found, "--seeds", "0-3", *take, "x.png")
    assert np.array_equal(pixels_of(drawn.stdout), pixels_of("x.png"))


def test_bytes_are_not_for_a_terminal(
    polyinr: Run, tiny_checkpoint: Path, found: Path, monkeypatch: pytest.MonkeyPatch
):
    from polyinr_cli import console as streams

    monkeypatch.setattr(streams, "is_terminal", lambda stream: stream is sys.stdout)
    refused(polyinr(*FIND, "-m", tiny_checkpoint, "-o", "-"), "directions data", code=2)
    ran = polyinr("directions", found, "--seeds", "1", "--take", "0:1", "-m", tiny_checkpoint, "-o", "-")
    refused(ran, "latents data", code=2)


def test_another_models_directions(polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path, found: Path):
    command = ("directions", found, "--seeds", "1", "--take", "0:1", "-m", tiny_class_checkpoint, "-o", "x.png")
    refused(polyinr(*command), "another model", "--force", code=1)
    assert polyinr(*command, "--force").code == 0


def test_more_than_is_held(polyinr: Run, tiny_checkpoint: Path, found: Path):
    command = ("directions", found, "--seeds", "1", "-m", tiny_checkpoint, "-o", "x.png")
    refused(polyinr(*command, "--take", "3:1"), "direction 3 is outside 0-2", code=2)
    refused(polyinr(*command, "--count", "4"), "--count 4 is outside 1-3", code=2)
    refused(polyinr(*command, "--levels", "3"), "level 3 is outside 0-2 (the model has 3 levels)", code=2)


@pytest.mark.parametrize("more", [(), ("--take", "1:2,0:-0.5", "--levels", "0")])
def test_the_note_says_how_to_make_it_again(polyinr: Run, tiny_checkpoint: Path, found: Path, more: tuple[str, ...]):
    polyinr("directions", found, "--seeds", "1", *more, "--res", "9", "-m", tiny_checkpoint, "-o", "x.png")
    (facts,) = polyinr("info", "x.png", "--json").lines
    words = shlex.split(facts["command"])[1:]
    words[words.index("-m") + 1] = str(tiny_checkpoint)
    ran = polyinr(*words)
    assert ran.code == 0, ran.stderr
    assert np.array_equal(pixels_of("x-again.png"), pixels_of("x.png"))


def test_a_direction_of_labeled_images(polyinr: Run, tiny_checkpoint: Path):
    """Two folders of samples; the direction is moved along by its name and shown under it."""
    for name, seeds in (("a", "0-4"), ("b", "5-9")):
        assert polyinr("sample", "--seeds", seeds, "-m", tiny_checkpoint, "-o", f"{name}/").code == 0
    quick = ("--steps", "2", "--batch", "2", "--res", "16")
    assert polyinr("encoder", tiny_checkpoint, "-o", "e.safetensors", *quick).code == 0
    learn = ("directions", "-m", tiny_checkpoint, "--images", "a", "--images", "b", "--encoder", "e.safetensors")
    (facts,) = polyinr(*learn, "-o", "d.safetensors", "--json").lines
    assert (facts["names"], facts["samples"]) == (["b"], 10)
    assert polyinr(*learn, "-o", "-").stdout == Path("d.safetensors").read_bytes()
    move = ("directions", "d.safetensors", "--seeds", "3", "-m", tiny_checkpoint)
    assert polyinr(*move, "--take", "b:1.5", "-o", "x.npy").code == 0
    assert polyinr(*move, "--take", "0:1.5", "-o", "y.npy").code == 0
    assert np.array_equal(np.load("x.npy"), np.load("y.npy"))
    assert polyinr(*move, "-o", "grid.png").code == 0
    labels = ("--labels", "t.csv")
    Path("t.csv").write_text("file_name,kind\nseed0005.png,p\nseed0006.png,p\nseed0007.png,q\nseed0008.png,q\n")
    table = ("directions", "-m", tiny_checkpoint, "--images", "b", "--encoder", "e.safetensors", *labels)
    (facts,) = polyinr(*table, "--column", "kind", "--space", "affine", "-o", "t.safetensors", "--json").lines
    assert (facts["names"], facts["space"], facts["samples"]) == (["q"], "affine", 4)


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--images", "."), "--images needs --encoder", 2),
        (("--labels", "t.csv"), "--labels does not apply", 2),
        (("--images", "a", "--encoder", "e", "--samples", "9"), "--samples does not apply to --images", 2),
        (("--images", "a", "--images", "b", "--encoder", "e", "--labels", "t.csv"), "give --images once", 2),
        (("--images", "a", "--encoder", "e", "--column", "kind"), "give that file", 2),
        (("--images", "nowhere", "--encoder", "e"), "no such file", 1),
    ],
)
def test_labeled_images_refused(polyinr: Run, tiny_checkpoint: Path, options: tuple[str, ...], words: str, code: int):
    refused(polyinr("directions", "-m", tiny_checkpoint, *options, "-o", "x.safetensors"), words, code=code)
