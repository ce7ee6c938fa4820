"""Names that are not UTF-8, of classes and of files, from any source: escaped by one rule, and read again."""

import io
import json
import os
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import pytest
from bad_files import archive, noise
from conftest import Run, refused, small_checkpoint

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.report.run_reader import read_run
from polyinr_core.runtime import pretrained

BYTES = b"caf\xe9"
NAME = os.fsdecode(BYTES)  # as Python has it, with a lone surrogate
ESCAPED = "caf\\xe9"
TINY = ("--preset", "tiny", "--stages", "8:0.008", "--batch", "4", "-q")

once = cache(pretrained.load_pretrained)


@pytest.fixture(autouse=True)
def networks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "load_pretrained", once)


def as_folder(path: Path) -> None:
    for number in range(12):
        file = path / (NAME if number % 2 else "tea") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise(16, number))


def as_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(12):
            data = noise(16, number)
            info = tarfile.TarInfo(f"{NAME if number % 2 else 'tea'}/{number}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def as_described(path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    described = {"labels": [[name, i % 2] for i, name in enumerate(names)], "class_names": [NAME, "tea"]}
    with zipfile.ZipFile(path, "w") as zipped:
        for number, name in enumerate(names):
            zipped.writestr(name, noise(16, number))
        zipped.writestr("dataset.json", json.dumps(described))


SOURCES = {"images": as_folder, "images.tar": as_tar, "images.zip": as_described}


@pytest.mark.parametrize("source", SOURCES)
def test_class_names_are_escaped(polyinr: Run, source: str) -> None:
    SOURCES[source](Path(source))
    ran = polyinr("prepare", source, "-o", "out.zip", "--res", "16", "--json", "-q")
    assert ran.code == 0, ran.stderr
    assert ran.lines[0]["class_names"] == [ESCAPED, "tea"]
    (facts,) = polyinr("info", "out.zip", "--json").lines
    assert facts["images_of_class"] == {ESCAPED: 6, "tea": 6}


def test_a_run_with_such_names_can_be_used(polyinr: Run) -> None:
    """The data file, its class, the run's folder, its checkpoints, an image drawn, its latents, a result."""
    as_described(Path(f"{NAME}.zip"))
    run = f"run {NAME}"
    for _ in range(2):  # the second call goes on
        ran = polyinr("train", f"{NAME}.zip", *TINY, "--run-dir", run)
        assert ran.code == 0, ran.stderr
    checkpoint = load_checkpoint(max(Path(run, "checkpoints").glob("*.safetensors")))
    assert checkpoint.class_names == (ESCAPED, "tea")
    assert checkpoint.origin["data"] == f"{ESCAPED}.zip"
    assert read_run(Path(run)).name == f"run {ESCAPED}"
    model = f"{NAME}.safetensors"
    Path(model).write_bytes(max(Path(run, "checkpoints").glob("*.safetensors")).read_bytes())
    latents = f"l {NAME}.safetensors"
    for command in (
        ("sample", "-m", run, "--seeds", "0", "--label", ESCAPED, "-o", f"{NAME}.png", "--json"),
        ("sample", "-m", model, "--seeds", "0", "-o", latents, "--json"),
        ("sample", "-m", model, "--latents", latents, "-o", "x.png", "--json"),
        ("sample", "-m", model, "--like", "x.png", "-o", "y.png", "--json"),
        ("info", f"{NAME}.png", "--json"),
        ("info", f"{NAME}.zip"),
        ("info", model),
        ("train", f"{NAME}.zip", *TINY, "--run-dir", "tuned", "--init-from", model),
        ("report", run, "-o", "r.html"),
        ("gallery", "-m", model, "--seeds", "0-1", "--frames", "2", "--res", "16", "-o", "site"),
    ):
        ran = polyinr(*command)
        assert ran.code == 0, (command, ran.stderr)
    for path in Path().iterdir():
        assert "\ud800" not in path.name


def test_a_result_with_such_names_is_kept(polyinr: Run) -> None:
    """It was lost once, after all was measured."""
    archive(Path(f"{NAME}.zip"))
    small_checkpoint(Path(f"{NAME}.safetensors"))
    command = f"evaluate -q --metrics kd-lite2 --count 12 --res 16 -m {NAME}.safetensors --real {NAME}.zip"
    ran = polyinr(*command.split(), "-o", f"{NAME}.json", "--save-statistics", "s.safetensors")
    assert ran.code == 0, ran.stderr
    assert json.loads(Path(f"{NAME}.json").read_bytes())["card"]["reals"]["name"] == f"{ESCAPED}.zip"
    ran = polyinr("table", f"{NAME}.json")
    assert ran.code == 0, ran.stderr


def test_half_a_character_is_refused_before_any_work(polyinr: Run) -> None:
    facts = {"labels": [[f"00000/img{i:08d}.png", i % 2] for i in range(12)], "class_names": ["\ud800", "b"]}
    archive(Path("data.zip"), facts=facts)
    for command in ("prepare data.zip -o out.zip --res 8", "train data.zip", "info data.zip"):
        refused(polyinr(*command.split()), "data.zip", "lone surrogate", code=1)
    assert [path.name for path in Path().iterdir()] == ["data.zip"]
