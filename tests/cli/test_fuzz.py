"""Thousands of damaged files for every reader, in this process: each is read, or refused in one line.

What counts: exit code 0, 1 or 2; no traceback and no internal error; one line on stderr at most where a file is
refused; nothing half-written; no result that is not finite. Seeds are fixed. `FUZZ_FILES` sets another number.
"""

import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_files import archive, noise
from conftest import REFERENCE, Run, small_checkpoint
from damage import (
    changed_bytes,
    changed_document,
    changed_json,
    changed_lines,
    changed_metadata,
    changed_npz,
    changed_tar,
    changed_tensors,
    changed_zip,
)

from polyinr_core.checkpoints.checkpoint import load_checkpoint, read_card
from polyinr_core.checkpoints.delta import Delta, load_delta, save_delta
from polyinr_core.checkpoints.official import load_any_checkpoint
from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.import_sources import open_source
from polyinr_core.errors import PolyinrError
from polyinr_core.evaluation.results import read_result
from polyinr_core.evaluation.statistics_io import open_statistics
from polyinr_core.images.animation import write_animation
from polyinr_core.images.io import read_metadata, write_image
from polyinr_core.latents.direction_files import read_directions
from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import Latents
from polyinr_core.report.run_reader import read_run
from polyinr_core.training.config import PRESETS
from polyinr_core.training.run_dir import DataFacts, RunFolder
from polyinr_core.training.state import SavedState, read_progress, read_state, write_state

FILES = int(os.environ.get("FUZZ_FILES", "600"))  # a format, through the library
COMMANDS = max(1, FILES // 10)  # a format, through the command line


@dataclass(frozen=True)
class Format:
    """A kind of file: its sound bytes, how it is changed, what reads it, and the commands that take it (FILE)."""

    name: str
    make: Callable[[Path], object]
    change: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path], object]
    commands: tuple[str, ...] = ()
    inside: str = ""  # of a folder: the file that is changed
    forgiving: bool = False  # its reader leaves out what is damaged, or does not look at most of it


def make_delta(path: Path) -> None:
    model = load_checkpoint(path.parent / "model.safetensors")
    shapes = ((3, 16, 2), (3, 2, 16), (3, 16), (3, 16), (3,))
    tensors = [0.01 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    save_delta(path, Delta(*tensors, model_sha256=model.sha256, origin={"steps": 3}))


def make_latents(path: Path) -> None:
    model = load_checkpoint(path.parent / "model.safetensors")
    z = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    write_latents(path, Latents(z=z, seeds=(1, 2), psi=0.7, model_sha256=model.sha256))


def make_directions(path: Path) -> None:
    from polyinr_core.latents.direction_files import write_directions
    from polyinr_core.latents.directions import find_directions

    model = load_checkpoint(path.parent / "model.safetensors")
    found = find_directions(model, space="w", samples=9, count=2)
    write_directions(path, found)


def make_statistics(path: Path) -> None:
    """Write statistics of two images in a sense of three numbers."""
    from polyinr_core.evaluation.statistics_io import METADATA_KEY
    from polyinr_core.metrics.feature_pass import digest_tensors
    from polyinr_core.runtime.strict_json import FORMAT
    from polyinr_core.runtime.tensor_files import encode_tensors

    tensors = {"0.mean": torch.rand(3), "0.scatter": torch.eye(3), "0.features": torch.rand(2, 3)}
    facts = {
        "format": FORMAT,
        "images": {"kind": "images", "name": "x"},
        "resolution": 16,
        "count": 2,
        "features": [["lite2", "pooled"]],
        "networks": {"lite2": {"name": "lite2", "sha256": "ab", "resolution": 64}},
        "libraries": {"torch": "2"},
        "digest": digest_tensors(tensors),
    }
    path.write_bytes(encode_tensors(tensors, key=METADATA_KEY, facts=facts))


def make_png(path: Path) -> None:
    metadata = {
        "polyinr": "0.1.0",
        "model": "ab" * 32,
        "model_file": "model.safetensors",
        "precision": "float32",
        "device": "cpu",
        "seed": 3,
        "psi": 1.0,
        "size": [4, 3],
        "window": [0.0, 0.0, 1.0, 1.0],
        "supersample": 2,
        "tolerance": 1.0,
        "transform": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    if path.suffix == ".gif":
        write_animation(path, iter([pixels, pixels]), count=2, fps=5, metadata=metadata)
    else:
        write_image(path, pixels, metadata=metadata)


def make_run(path: Path) -> None:
    folder = RunFolder(path)
    folder.claim(PRESETS["tiny"], DataFacts("data.zip", "ab", 12, 3))
    for kimg in (0.0, 0.5, 1.0):
        folder.append({"kimg": kimg, "stage": 0, "resolution": 16, "loss_d": 1.0, "warning": "look"})
    counters = {"stage": 0, "images": 8, "images_before": 0, "notes": {"patience": asdict_patience()}}
    write_state(folder.state, SavedState({"a": torch.zeros(2)}, counters), images=8)


def asdict_patience() -> dict[str, Any]:
    from polyinr_core.training.hooks import EarlyStopping

    return asdict(EarlyStopping())


def make_shards(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for index in range(3):
            label = json.dumps({"label": index, "text": "a cat", "more": [1, {"a": 2}]}).encode()
            for name, data in ((f"{index}.png", noise(8, index)), (f"{index}.json", label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def make_stack(path: Path) -> None:
    np.savez(path, images=np.zeros((3, 4, 4, 3), np.uint8), labels=np.arange(3))


def make_npz(path: Path) -> None:
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))


def read_all(path: Path) -> None:
    """Open a data set and read all its images."""
    with open_dataset(path) as data:
        for index in range(len(data)):
            data.read(index)


def read_state_of(path: Path) -> object:
    return read_progress(path / "state"), read_state(path / "state")


def claim(path: Path) -> None:
    """Go on with a run, as `train` does."""
    RunFolder(path).claim(PRESETS["tiny"], DataFacts("data.zip", "ab", 12, 3))


def read_run_as_others_do(path: Path) -> None:
    from polyinr_core.evaluation.image_sources import HeldOut

    HeldOut.from_run(path)
    stored = read_run(path)
    assert stored.log.spans is not None
    assert (stored.name, stored.metrics, stored.log.warnings, stored.log.names) is not None


def warp(path: Path) -> None:
    from polyinr_cli.parsing import parse_viewport_options

    parse_viewport_options(warp=str(path))


def read_source(path: Path) -> None:
    list(open_source(path).payloads(0))


FORMATS = [
    Format(
        "model.safetensors",
        small_checkpoint,
        changed_tensors,
        load_checkpoint,
        (
            "info FILE --json",
            "sample -m FILE --seeds 0 -o x.png",
            "sample -m FILE --seeds 0 -o x.safetensors",
            "convert FILE --half -o x.safetensors",
            "directions -m FILE --samples 4 --count 2 -o x.safetensors",
        ),
    ),
    Format(
        "delta.safetensors",
        make_delta,
        changed_tensors,
        load_delta,
        ("info FILE", "sample -m model.safetensors+FILE --seeds 0 -o x.npy"),
    ),
    Format(
        "latents.safetensors",
        make_latents,
        changed_tensors,
        read_latents,
        ("info FILE --json", "sample -m model.safetensors --latents FILE --force -o x.safetensors"),
    ),
    Format(
        "directions.safetensors",
        make_directions,
        changed_tensors,
        read_directions,
        ("info FILE --json", "directions -m model.safetensors --take 0:1 --from FILE --seeds 0 -o x.png"),
    ),
    Format("statistics.safetensors", make_statistics, changed_tensors, open_statistics),
    Format("statistics.npz", make_npz, changed_npz, open_statistics),
    Format("card.json", lambda path: path.write_text('{"a": [1, {"b": 2}], "c": "d"}'), changed_document, read_card),
    Format(
        "result.json",
        lambda path: path.write_text(
            '{"format": 2, "metrics": {"fid": {"value": 2.5, "low": 2, "high": 3}},'
            ' "card": {"reals": {"kind": "images"}, "protocols": {"fid": {"network": "inception"}}}}'
        ),
        changed_document,
        read_result,
        ("table FILE", "compare FILE result.json"),
    ),
    Format("image.png", make_png, changed_metadata, read_metadata, ("info FILE --json",)),
    Format("image.tif", make_png, changed_bytes, read_metadata, ("info FILE",), forgiving=True),
    Format("image.gif", make_png, changed_bytes, read_metadata, ("info FILE",)),
    Format("warp.npy", lambda path: np.save(path, np.zeros((3, 4, 2))), changed_bytes, warp),
    Format("data.zip", archive, changed_zip, read_all, ("info FILE --json", "prepare FILE -o x.zip --res 4 -q")),
    Format("shard.tar", make_shards, changed_tar, read_all, ("info FILE --json",)),
    Format("source.tar", make_shards, changed_tar, read_source, ("prepare FILE -o x.zip --res 4 -q",)),
    Format("stack.npz", make_stack, changed_npz, read_source, ("prepare FILE -o x.zip --res 4 -q",)),
    Format("run", make_run, changed_document, claim, ("report FILE -o x.html",), inside="config.json"),
    Format("run log", make_run, changed_lines, read_run_as_others_do, inside="log.jsonl", forgiving=True),
    Format("run facts", make_run, changed_document, read_run_as_others_do, inside="config.json"),
    Format("run state", make_run, changed_document, read_state_of, inside="state/000000000008.json"),
    Format("run tensors", make_run, changed_tensors, read_state_of, inside="state/000000000008.safetensors"),
    Format(
        "released.pkl",
        lambda path: path.write_bytes((REFERENCE / "official_like_uncond.pkl").read_bytes()),
        changed_bytes,
        load_any_checkpoint,
    ),
    Format(
        "released.safetensors",
        lambda path: path.write_bytes((REFERENCE / "generator_uncond_small.safetensors").read_bytes()),
        changed_tensors,
        load_any_checkpoint,
    ),
]


def sound(form: Format, folder: Path) -> tuple[Path, Path]:
    """Make a sound file, and model.safetensors beside it; return it and the file to be changed."""
    if not (folder / "model.safetensors").exists():
        small_checkpoint(folder / "model.safetensors")
    path = folder / form.name.replace(" ", "-")
    if not path.exists():
        form.make(path)
    return path, path / form.inside if form.inside else path


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_readers_take_or_refuse_damaged_files(form: Format, tmp_path: Path) -> None:
    path, changed = sound(form, tmp_path)
    data, rng = changed.read_bytes(), random.Random(form.name)
    form.read(path)  # as it is
    count = max(20, FILES // 8) if form.name.startswith("released") else FILES  # large files
    refused, codes = 0, set()
    for number in range(count):
        bad = form.change(rng, data)
        changed.write_bytes(bad)
        try:
            form.read(path)
        except PolyinrError as error:
            refused += 1
            codes.add(error.exit_code)
        except BaseException:
            keep = tmp_path / f"found-{number}"
            shutil.copytree(path, keep) if path.is_dir() else keep.write_bytes(bad)
            print(f"{form.name} number {number} is kept as {keep}")
            raise
        if form.inside == "config.json":
            changed.write_bytes(data)
    assert codes <= {1, 2}
    assert refused > count // 10 or form.forgiving


@pytest.mark.slow
@pytest.mark.parametrize("form", [form for form in FORMATS if form.commands], ids=lambda form: form.name)
def test_commands_take_or_refuse_damaged_files(form: Format, polyinr: Run, tmp_path: Path) -> None:
    path, changed = sound(form, tmp_path)
    data, rng = changed.read_bytes(), random.Random(f"commands {form.name}")
    if form.name == "result.json":
        (tmp_path / "sound.json").write_bytes(data)
    for number in range(COMMANDS):
        changed.write_bytes(form.change(rng, data))
        before = {file.name for file in tmp_path.iterdir()}
        command = form.commands[number % len(form.commands)].replace("result.json", "sound.json")
        ran = polyinr(*[word.replace("FILE", path.name) for word in command.split()])
        assert ran.code in (0, 1, 2), (number, ran.stderr)
        assert "should not happen" not in ran.stderr, (number, ran.stderr)
        assert "Traceback" not in ran.stderr, (number, ran.stderr)
        made = {file.name for file in tmp_path.iterdir()} - before
        if ran.code:
            assert len(ran.stderr.splitlines()) == 1, (number, ran.stderr)
            assert not made, number
        for name in made:
            if name.endswith(".npy"):
                assert np.isfinite(np.load(tmp_path / name)).all()
            (tmp_path / name).unlink()


def test_the_changes_change() -> None:
    """A fuzzer that changed nothing would find nothing."""
    rng = random.Random(0)
    value = {"a": [1, {"b": "c"}], "d": 2.5}
    assert sum(changed_json(rng, value) != value for _ in range(200)) > 150
    assert sum(changed_bytes(rng, b"0123456789" * 9) != b"0123456789" * 9 for _ in range(200)) > 150
