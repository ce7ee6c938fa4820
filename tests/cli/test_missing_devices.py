"""Devices and number formats that are not there: one line, then the same image."""

from pathlib import Path

import pytest
import torch
from conftest import Run

from polyinr_cli import runtime as devices


def test_a_gpu_that_is_not_there(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cpu", "cuda"):
        ran = polyinr(*f"sample --seeds 0 --res 8 --device {device} -o {device}.png".split(), "-m", tiny_checkpoint)
        assert ran.code == 0, ran.stderr
    assert caplog.messages == ["device 'cuda' is not available: this machine has 0 CUDA devices; using the CPU"]
    assert Path("cpu.png").read_bytes() == Path("cuda.png").read_bytes()


def test_a_processor_without_bfloat16(
    polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"avx2"})
    draw = ("sample", "-m", tiny_checkpoint, "--seeds", "0", "--res", "8", "--overwrite", "-o", "o.png")
    assert polyinr(*draw, "--device", "cpu").code == 0
    assert caplog.messages == []
    assert polyinr(*draw, "--device", "cpu", "--precision", "bfloat16").code == 0
    assert caplog.messages == ["this processor has no native bfloat16: slower than float32"]
