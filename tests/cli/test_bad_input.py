"""Bad input of every kind, for every command: one line, exit code 1 or 2, nothing left behind."""

import os
import resource
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import pytest
from bad_commands import COMMANDS, LONG, PAYLOADS
from bad_files import made_for
from conftest import Run, refused

from polyinr_cli.main import outcome
from polyinr_core.checkpoints import locate
from polyinr_core.runtime import pretrained


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return all that lies in a folder: bytes of files, None for anything else."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@contextmanager
def full_disk(*, full: bool) -> Iterator[None]:
    """Let no file grow beyond 300 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300 if full else before[0], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


once = cache(pretrained.load_pretrained)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read lite0 once for all cases; find no model and no other weights in this machine's own places."""
    monkeypatch.setattr(pretrained, "load_pretrained", once)
    monkeypatch.setattr(locate, "BUNDLED_FILE", "nowhere.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))


CASES = [pytest.param(line, code, words, id=line.replace(LONG, "A-LONG-NAME")) for line, code, *words in COMMANDS]


@pytest.mark.parametrize(("line", "code", "words"), CASES)
def test_bad_input(polyinr: Run, tmp_path: Path, line: str, code: int, words: list[str]):
    command = shlex.split(line.removeprefix("FULL-DISK "))
    made_for(command)
    before = contents(tmp_path)
    with full_disk(full=line.startswith("FULL-DISK ")):
        ran = polyinr(*command)
    refused(ran, *words, code=code)
    assert contents(tmp_path) == before


def full_device() -> IO[str]:
    """A disk on which nothing fits."""
    return open("/dev/full", "w")


def closed_pipe() -> IO[str]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.parametrize("line", PAYLOADS)
@pytest.mark.parametrize(
    ("stdout", "words"),
    [(full_device, ["stdout: no space left"]), (closed_pipe, []), (None, ["stdout is closed"])],
)
def test_bad_stdout(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    line: str,
    stdout: Callable[[], IO[str]] | None,
    words: list[str],
):
    """A full disk behind stdout and a closed stdout are one line, a closed pipe none."""
    monkeypatch.chdir(tmp_path)
    made_for(shlex.split(line))
    before = contents(tmp_path)
    stream = stdout() if stdout else None
    monkeypatch.setattr(sys, "stdout", stream)
    assert outcome(shlex.split(line)) == (1 if stdout else 2)
    if stream is not None:
        stream.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(words)
    assert all(word in text for word, text in zip(words, lines, strict=True))
    assert {name: data for name, data in contents(tmp_path).items() if name != "x.png"} == before


LONG_NAMES = [
    "sample --seeds 1 -m model.safetensors -o NAME.png",
    "sample --seeds 1 -m model.safetensors -o NAME/",
    "sample --seeds 1 -m model.safetensors -o NAME.npy",
    "sample --seeds 1 -m model.safetensors -o NAME.safetensors",
    "sample --seeds 1 -m model.safetensors -o NAME.tif",
    "sample --seeds 1 -m model.safetensors -o NAME.dzi",
    "sample --seeds 1 -m model.safetensors -o TIGHT.dzi",  # whose folder of tiles has the longer name
    "extrapolate --seeds 1 -m model.safetensors -o NAME.png",
    "interpolate 1 2 --frames 2 -m model.safetensors -o NAME.gif",
    "mix 1 2 -m model.safetensors -o NAME/",
    "heatmap --seeds 1 -m model.safetensors -o NAME/",
    "directions --samples 20 -m model.safetensors -o NAME.safetensors",
    "gallery -m model.safetensors -o NAME",
    "evaluate --metrics params -m model.safetensors -o NAME.json",
    "prepare photos -o NAME.zip --res 8",
    "prepare photos -o TIGHT.zip --res 8",  # whose work folder has the longer name
    "convert released.pkl -o NAME.safetensors",
    "info data.zip -o NAME.png",
]


@pytest.mark.parametrize("line", LONG_NAMES)
def test_a_name_that_is_too_long_leaves_no_folder(polyinr: Run, tmp_path: Path, line: str) -> None:
    made_for(shlex.split(line))
    before = contents(tmp_path)
    line = line.replace("NAME", f"new/{LONG}").replace("TIGHT", f"new/{'n' * 251}")
    refused(polyinr(*shlex.split(line)), "the name is too long", code=1)
    assert contents(tmp_path) == before
