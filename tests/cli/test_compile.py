"""--compile, and devices and compilers that are not there: one line, then the same image."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from rounding import assert_rounded

from polyinr_cli import runtime as devices
from polyinr_core.rendering.backends import fallback as tried

SAMPLE = (sys.executable, "-m", "polyinr_cli", "sample")
COMMANDS = (
    "sample --seeds 0 --res 8 -o o.png",
    "extrapolate --seeds 0 --res 8 -o o.png",
    "interpolate 0,1 --frames 2 --res 8 -o o.png",
    "mix --source 0 --target 1 --levels 0-1 --res 8 -o o.png",
    "directions found.safetensors --seeds 0 --res 8 -o o.png",
)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was compiled."""
    names: list[str] = []

    def compile(function: Callable, **_: object) -> Callable:
        names.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    return names


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_it_compiles_where_it_is_asked(polyinr: Run, tiny_checkpoint: Path, compiled: list[str], command: str) -> None:
    images = []
    if "found" in command:
        assert polyinr("directions", "-m", tiny_checkpoint, "--samples", "99", "-o", "found.safetensors").code == 0
    for option, names in (([], []), (["--no-compile"], []), (["--compile"], ["draw_level"])):
        ran = polyinr(*command.split(), "-m", tiny_checkpoint, "--overwrite", *option)
        assert ran.code == 0, ran.stderr
        assert compiled == names
        images.append(Path("o.png").read_bytes())
    assert images[0] == images[1]


def test_a_failing_compiler_is_one_line_and_the_same_image(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("internal\nerror")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fails)
    monkeypatch.setattr(tried, "FAILED", set())
    for name, option in (("plain.npy", "--no-compile"), ("tried.npy", "--compile")):
        ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "0-1", "--res", "8", "-o", name, option)
        assert ran.code == 0, ran.stderr
    assert caplog.messages == ["torch.compile does not work here (RuntimeError: internal); drawing without it"]
    assert np.array_equal(np.load("plain.npy"), np.load("tried.npy"))


@pytest.mark.slow
def test_no_compiler(tiny_checkpoint: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [*SAMPLE, "-m", tiny_checkpoint, "--seeds", "0", "--compile", "-o", tmp_path / "o.png"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "o.png").exists()
    assert ran.stderr.startswith("polyinr: torch.compile does not work here (")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_compiled_images_are_the_same_and_nothing_is_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for option in ("--compile", "--no-compile"):
        command = [*SAMPLE, "-m", tiny_checkpoint, "--seeds", "0", option, "-o", tmp_path / f"{option}.npy"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
    images = [np.load(tmp_path / f"{option}.npy") for option in ("--compile", "--no-compile")]
    assert_rounded(*images, terms=200)  # 16 numbers a sum, in 8 layers


def test_a_gpu_that_is_not_there(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cpu", "cuda"):
        ran = polyinr(*f"sample --seeds 0 --res 8 --device {device} -o {device}.png".split(), "-m", tiny_checkpoint)
        assert ran.code == 0, ran.stderr
    assert caplog.messages == ["device 'cuda' is not there: this machine shows 0 CUDA devices; drawing on the CPU"]
    assert Path("cpu.png").read_bytes() == Path("cuda.png").read_bytes()


def test_a_processor_without_bfloat16(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"avx2"})
    draw = ("sample", "-m", tiny_checkpoint, "--seeds", "0", "--res", "8", "--overwrite", "-o", "o.png")
    assert polyinr(*draw, "--device", "cpu").code == 0
    assert caplog.messages == []
    assert polyinr(*draw, "--device", "cpu", "--precision", "bfloat16").code == 0
    assert caplog.messages == ["this processor has no bfloat16 products of its own: slower than float32"]
