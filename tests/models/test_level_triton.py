"""A level's training kernels: interpreted, compiled for a GPU that is not there, and chosen only if they are right."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polyinr_core.models import layers
from polyinr_core.models.layers import LevelFunction, faster_level, select_level

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton comes with PyTorch for a GPU; this is another"
)


def interpreted(*choice: str) -> None:
    """Run level_cases.py in a process whose Triton interprets; it cannot be switched later."""
    cases = Path(__file__).with_name("level_cases.py")
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", cases, *choice]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


@needs_triton
def test_gradients_are_autograd_s() -> None:
    interpreted("-k", "quick")


@needs_triton
@pytest.mark.slow
def test_gradients_of_every_kind_are_autograd_s() -> None:
    interpreted()


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("features", ["*bf16", "*fp32"])
@pytest.mark.parametrize(
    "name", ["modulate_kernel", "activate_kernel", "activation_backward_kernel", "modulation_backward_kernel"]
)
def test_kernels_compile_for_a_gpu_that_is_not_there(name: str, features: str) -> None:
    """The interpreter takes what the compiler refuses: types that differ between branches, say."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from polyinr_core.models import level_triton

    kernel = getattr(level_triton, name)
    sizes = {"pixels": level_triton.PIXELS, "channels": level_triton.CHANNELS, "steps": level_triton.STEPS}
    constants = {"n": 512, "is_release": True, "clamped": True, "flat": level_triton.FLAT, **sizes}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    kinds = dict.fromkeys(("out", "hm", "grad_hm", "x", "rows", "grad"), "*bf16")
    kinds |= dict.fromkeys(("h", "grad_h"), features)  # float32 at level 1
    kinds |= dict.fromkeys(("sums", "matrix", "coordinates"), "*fp32")
    kinds |= dict.fromkeys(("limit", "slope"), "fp32") | dict.fromkeys(("count", "coordinate_step", "total"), "i32")
    signature = {key: "constexpr" if key in constants else kinds[key] for key in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=places)
    code = compile(source, target=GPUTarget("cuda", 90, 32), options=level_triton.LAUNCH)
    assert "ld.global" in code.asm["ptx"]
    assert code.metadata.shared < 48 * 1024


H, MATRIX, WEIGHT = torch.randn(2, 5, 8), torch.randn(2, 3, 8), torch.randn(8, 8)
OPTIONS = (True, 256.0, None)


def test_a_cpu_needs_no_kernels() -> None:
    assert select_level(H, MATRIX, WEIGHT, *OPTIONS) is LevelFunction


class Wrong(LevelFunction):
    """Forgets the bias."""

    @staticmethod
    def forward(ctx, h, matrix, coordinates, weight, bias, *options):  # type: ignore[no-untyped-def]
        return LevelFunction.forward(ctx, h, matrix, coordinates, weight, 0 * bias, *options)


class Broken(LevelFunction):
    """Does not compile."""

    @staticmethod
    def forward(ctx, *inputs):  # type: ignore[no-untyped-def]
        raise RuntimeError("no such instruction\nand a long trace")


@needs_triton
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (LevelFunction, None),
        (Wrong, "results differ by 0"),
        (Broken, "(RuntimeError: no such instruction); training continues"),
    ],
)
def test_kernels_are_compared_before_they_are_used(
    function: type, words: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from polyinr_core.models import level_triton

    caplog.set_level(logging.WARNING, logger=layers.__name__)
    monkeypatch.setattr(level_triton, "FusedLevelFunction", function)
    chosen = faster_level(H, MATRIX, OPTIONS)
    assert chosen is (function if words is None else LevelFunction)
    assert (words or "") in caplog.text
    assert bool(caplog.text) is (words is not None)
