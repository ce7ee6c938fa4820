"""What many tests share: a small model, the golden files, the command run in this process."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from driven_browser import Tab, driven_tab

if "PYTEST_XDIST_WORKER" in os.environ:  # the other core is another worker's
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of golden files."""
    return REFERENCE


def small_checkpoint(
    path: Path, *, classes: int = 0, form: str = "release", resolution: int = 16, levels: int = 3
) -> Path:
    """Write a model of few levels and 16 channels whose images differ visibly from seed to seed."""
    from polyinr_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from polyinr_core.models.config import GeneratorConfig
    from polyinr_core.models.generator import Generator

    torch.manual_seed(classes + 1)
    config = GeneratorConfig(form=form, levels=levels, channels=16, z_dim=8, w_dim=12, classes=classes, table_dim=6)
    generator = Generator(config)
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2.5)  # fresh weights draw nearly one color
        generator.mapping.w_avg.normal_()
    names = tuple(f"class {chr(ord('a') + i)}" for i in range(classes))
    checkpoint = Checkpoint(
        generator=generator.eval(), class_names=names, resolution=resolution, kimg=1.5, data_sha256="ab" * 32
    )
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional model file, 16 px."""
    return small_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_class_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with the classes "class a" to "class d", 16 px."""
    return small_checkpoint(tmp_path_factory.mktemp("model") / "classes.safetensors", classes=4)


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, stdout as bytes, stderr as text."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[dict]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def polyinr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `polyinr ARGUMENTS...` in this process, in an empty folder; `stdin` is piped in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLYINR_MODEL", raising=False)

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ran:
        from polyinr_cli.main import outcome

        streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = outcome([str(argument) for argument in arguments])
        for stream in streams.values():
            stream.flush()
        stdout, stderr = (stream.buffer.getvalue() for stream in streams.values())  # type: ignore[attr-defined]
        return Ran(code, stdout, stderr.decode())

    return run


@pytest.fixture
def tab() -> Iterator[Tab]:
    """A tab of a headless Chromium; the test is skipped where there is none."""
    with driven_tab() as opened:
        yield opened


def refused(ran: Ran, *words: str, code: int) -> None:
    """Assert that a command failed as it should: one line that names the trouble, nothing on stdout."""
    assert ran.code == code, ran.stderr
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("polyinr: ")
    assert ran.stdout == b""
    for word in words:
        assert word in lines[0], lines[0]
