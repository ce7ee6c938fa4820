"""The command that renders an image again: it names the model, works from here, and gives the same pixels."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, small_checkpoint
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.checkpoints.delta import Delta, save_delta

SAMPLE = ("sample", "--seeds", "3", "--res", "8", "--device", "cpu")


def command_for(polyinr: Run, image: str | Path) -> list[str]:
    return shlex.split(polyinr("info", image, "--json").lines[0]["command"])


def same_again(polyinr: Run, image: str | Path) -> list[str]:
    """Run the command that `info` prints, from the current folder; return its words."""
    words = command_for(polyinr, image)
    ran = polyinr(*words[1:])
    assert ran.code == 0, ran.stderr
    assert (np.asarray(Image.open(words[-1])) == np.asarray(Image.open(image))).all()
    Path(words[-1]).unlink()
    return words


def test_the_bundled_model_is_named(polyinr: Run, tiny_checkpoint: Path) -> None:
    """Also where another model would be taken without -m."""
    assert polyinr(*SAMPLE, "-m", "bundled", "-o", "one.png").code == 0
    Path("runs/a/checkpoints").mkdir(parents=True)
    shutil.copy(tiny_checkpoint, "runs/a/checkpoints/000001.safetensors")
    words = same_again(polyinr, "one.png")
    assert words[-4:] == ["-m", "bundled", "-o", "one-again.png"]


def test_the_checkpoint_of_a_run_is_found_from_anywhere(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is rendered in the run folder and moved; the command is printed above it and elsewhere."""
    Path("runs/a/checkpoints").mkdir(parents=True)
    Path("elsewhere").mkdir()
    shutil.copy(tiny_checkpoint, "runs/a/checkpoints/000001.safetensors")
    monkeypatch.chdir("runs/a")
    assert polyinr(*SAMPLE, "-m", "checkpoints", "-o", "one.png").code == 0
    monkeypatch.chdir("../..")
    words = same_again(polyinr, "runs/a/one.png")  # above the image's folder
    assert words[words.index("-m") + 1] == "runs/a/checkpoints/000001.safetensors"
    shutil.move("runs/a/one.png", "one.png")
    words = same_again(polyinr, "one.png")  # below ./runs
    assert words[words.index("-m") + 1] == "runs/a/checkpoints/000001.safetensors"
    monkeypatch.chdir("elsewhere")
    assert polyinr(*SAMPLE, "-m", "../runs", "-o", "two.png").code == 0
    same_again(polyinr, "two.png")


def test_another_model_of_the_same_name_is_not_taken(polyinr: Run, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint, "model.safetensors")
    assert polyinr(*SAMPLE, "-m", "model.safetensors", "-o", "one.png").code == 0
    assert "note" not in polyinr("info", "one.png", "--json").lines[0]
    small_checkpoint(Path("other.safetensors"), classes=2)
    shutil.move("other.safetensors", "model.safetensors")
    (facts,) = polyinr("info", "one.png", "--json").lines
    assert "model.safetensors is not here" in facts["note"]
    assert facts["model"] in facts["note"]


def test_a_delta_is_named_with_its_model(polyinr: Run) -> None:
    """Both by their paths from the current folder."""
    model = load_checkpoint(small_checkpoint(Path("base.safetensors")))
    levels, n = model.generator.config.levels, model.generator.config.channels
    shapes = ((levels, n, 1), (levels, 1, n), (levels, n), (3, n), (3,))
    Path("tuned").mkdir()
    save_delta("tuned/d.safetensors", Delta(*(torch.full(shape, 0.1) for shape in shapes), model.sha256))
    both = "base.safetensors+tuned/d.safetensors"
    assert polyinr(*SAMPLE, "-m", both, "-o", "one.png").code == 0
    words = same_again(polyinr, "one.png")
    assert words[words.index("-m") + 1] == both


def test_latents_beside_the_image(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sub").mkdir()
    shutil.copy(tiny_checkpoint, "m.safetensors")
    assert polyinr("sample", "--seeds", "4", "-m", "m.safetensors", "-o", "sub/l.safetensors").code == 0
    made = polyinr("sample", "--latents", "sub/l.safetensors", "-m", "m.safetensors", "-o", "sub/l.png", "--res", "8")
    assert made.code == 0, made.stderr
    words = same_again(polyinr, "sub/l.png")
    assert words[words.index("--latents") + 1] == "sub/l.safetensors"
