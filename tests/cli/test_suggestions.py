"""Mistakes with a known cure: other programs' option names, files of another kind, paths that do not exist."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image

from polyinr_core.checkpoints.checkpoint import load_checkpoint, save_checkpoint

OTHER_NAMES = [
    ("sample --seeds 0 --truncation 0.7 -o x.png", "--psi"),
    ("sample --seeds 0 --outdir out", "--output"),
    ("sample --seeds 0 --network m.pkl -o x.png", "--model"),
    ("train --outdir out", "--run-dir"),
    ("info x.png --force", "--overwrite"),
]


@pytest.mark.parametrize(("line", "meant"), OTHER_NAMES)
def test_the_option_of_another_program(polyinr: Run, line: str, meant: str) -> None:
    refused(polyinr(*line.split()), f"Did you mean {meant}?", code=2)


def test_aliases_of_options(polyinr: Run, tiny_class_checkpoint: Path) -> None:
    common = ("sample", "--seeds", "3", "-m", tiny_class_checkpoint, "-o")
    assert polyinr(*common, "x.png", "--trunc", "0.5", "--class=class b").code == 0
    assert polyinr(*common, "y.png", "--psi", "0.5", "--label", "class b").code == 0
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()
    refused(polyinr(*common, "z.png", "--trunc", "0.5", "--psi", "1"), "--psi is given twice", code=2)
    refused(polyinr("info", "x.png", "--trunc", "1"), "No such option: --trunc", code=2)


def test_a_part_of_a_class_name(polyinr: Run, tiny_class_checkpoint: Path) -> None:
    names = ("Smileys & Emotion", "Food & Drink", "Objects", "Symbols")
    save_checkpoint("m.safetensors", replace(load_checkpoint(tiny_class_checkpoint), class_names=names))
    ran = polyinr("sample", "--seeds", "3", "-m", "m.safetensors", "--label", "smileys", "-o", "x.png")
    refused(ran, "class 'smileys' is unknown", "did you mean 'Smileys & Emotion'?", code=2)


def test_a_data_set_too_small_for_the_preset(polyinr: Run, tmp_path: Path) -> None:
    """Stages that fit are spelled out."""
    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40), (30 * i, 0, 0)).save(tmp_path / f"photos/{i}.png")
    assert polyinr("prepare", "photos", "-o", "small.zip", "--res", "16").code == 0
    ran = polyinr("train", "small.zip", "--stages", "32:200,64:100", "--batch", "4")
    refused(ran, "holds images of 16 px, 32 px are asked for; train it with --stages 16:200, or prepare", code=1)


def test_an_option_that_resembles_none(polyinr: Run) -> None:
    refused(polyinr("demo", "--network", "m.pkl"), "No such option: --network (see polyinr demo --help)", code=2)


def test_latents_and_directions_given_as_a_model(polyinr: Run, tiny_checkpoint: Path) -> None:
    for command in (("sample", "--seeds", "0-1"), ("directions", "--samples", "4", "--count", "1")):
        assert polyinr(*command, "-m", tiny_checkpoint, "-o", f"{command[0]}.safetensors").code == 0
    line = ("sample", "--seeds", "0", "-o", "x.png", "-m")
    refused(polyinr(*line, "sample.safetensors"), "a latents file; render it by --latents", code=1)
    refused(polyinr(*line, "directions.safetensors"), "a directions file", code=1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "a web page"),
        (b"PK\x03\x04" + bytes(80), "a zip archive, such as torch.save writes (.pt"),
    ],
)
def test_files_that_a_download_or_another_program_left(polyinr: Run, tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "model.pkl").write_bytes(data)
    refused(polyinr("convert", "model.pkl", "-o", "m.safetensors"), kind, code=1)


def test_a_missing_path_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    lines = [
        ["train", "absent"],
        ["train", "--init-from", "absent"],
        ["evaluate", "--real", "absent"],
        ["invert", "absent", "-o", "x.safetensors"],
        ["sample", "-m", "absent", "--seeds", "0", "-o", "x.png"],
    ]
    code = (
        "import json, sys; from polyinr_cli.main import outcome\n"
        "print(json.dumps([outcome(line) for line in json.loads(sys.argv[1])]), 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert ran.stderr.splitlines() == ["polyinr: absent: no such file or folder"] * len(lines)
    assert ran.stdout.split("] ") == ["[1, 1, 1, 1, 1", "False\n"]


def test_every_option_of_the_window_moves_the_grid_of_directions(polyinr: Run, tiny_checkpoint: Path) -> None:
    found = polyinr("directions", "--samples", "4", "--count", "1", "-m", tiny_checkpoint, "-o", "d.safetensors")
    assert found.code == 0, found.stderr
    line = ("directions", "d.safetensors", "--seeds", "0", "--amounts", "0,1", "--res", "12", "-m", tiny_checkpoint)
    options = [
        (),
        ("--rotate", "30"),
        ("--shear", "0.5"),
        ("--transform", "1,0,0.2,0,1,0,0,0,1"),
        ("--warp", "fisheye"),
        ("--center", "0.2,0.2", "--zoom", "2"),
    ]
    pixels = set()
    for number, option in enumerate(options):
        ran = polyinr(*line, *option, "-o", f"{number}.png")
        assert ran.code == 0, ran.stderr
        pixels.add(np.asarray(Image.open(f"{number}.png")).tobytes())
    assert len(pixels) == len(options)
