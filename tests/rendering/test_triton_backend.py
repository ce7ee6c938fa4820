"""Drawing with Triton: which networks it has kernels for; its kernels interpreted, and compiled for a GPU."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator, Synthesis
from polyinr_core.rendering.backends import Fallback, in_precision, select_backend
from polyinr_core.rendering.backends import triton as fused
from polyinr_core.rendering.backends.triton import Tile, TritonBackend, has_kernels, is_fusible, select_tile

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton comes with PyTorch for a GPU; this is another"
)
CUDA = torch.device("cuda")


def network(levels: int = 3) -> Synthesis:
    return Synthesis(GeneratorConfig(levels=levels, channels=16, z_dim=8, w_dim=12))


def hopper_tile(monkeypatch: pytest.MonkeyPatch, *, channels: int = 512) -> Tile:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    return select_tile(torch.bfloat16, channels, CUDA)


def interpreted(*choice: str) -> None:
    """Run tile_cases.py in a process whose Triton interprets; it cannot be switched later."""
    cases = Path(__file__).with_name("tile_cases.py")
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", cases, *choice]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


@needs_triton
def test_kernels_draw_the_definition() -> None:
    interpreted("-k", "quick")


@needs_triton
@pytest.mark.slow
def test_kernels_of_every_kind_draw_the_definition() -> None:
    interpreted()


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning:triton")
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("whole", [False, True])
def test_kernels_compile_for_a_gpu_that_is_not_there(whole: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes what the compiler refuses: types that differ between branches, say."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from polyinr_core.rendering.backends import triton_kernels as tiles

    if dtype == "bf16":
        tile = Tile(64, 256, 64, warps=8, all_levels=True) if whole else hopper_tile(monkeypatch)
    else:
        tile = Tile(64, 64, 32, all_levels=whole, precision="tf32x3")
    kernel = tiles.network_kernel if whole else tiles.level_kernel
    constants = {"n": 512, "rows": 3, "is_release": True, "clamped": True, "slope": 0.2}
    constants |= {name: tile.options[name] for name in ("pixels", "outputs", "inputs", "precision")}
    constants |= {} if whole else {"first": False, "last": False}
    narrow = {"weights", "biases", "buffers", "weight", "bias", "features", *(() if whole else ("out",))}
    numbers = {"count", "images", "coordinate_step", "matrix_step", "levels"}
    kinds = {name: f"*{dtype}" if name in narrow else "*fp32" for name in kernel.arg_names}
    kinds |= {name: "i32" for name in numbers if name in kinds} | {"limit": "fp32"}
    kinds |= dict.fromkeys(constants, "constexpr")
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if "*" in kinds[name]}
    source = ASTSource(kernel, kinds, constexprs=places, attrs=aligned)
    options = {name: value for name, value in tile.options.items() if name not in constants}
    code = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    products = re.findall(r"(?:wgmma.mma_async|mma\.sync).*", code.asm["ptx"])  # the GPU's own
    assert products
    assert all(("tf32" if dtype == "fp32" else "wgmma.mma_async") in product for product in products)
    assert code.metadata.shared < 227 * 1024  # of an H100 or H200


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_networks_that_there_are_kernels_for(dtype: torch.dtype) -> None:
    assert is_fusible(in_precision(network(), dtype)) is (dtype != torch.float64)
    assert not is_fusible(network(levels=1))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0), (12, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tile_is_fixed_and_fits(
    dtype: torch.dtype, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operands of a product, in as many stages as are pipelined, fit into the shared memory of a multiprocessor."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    shared = {(8, 0): 163, (9, 0): 227}.get(capability, 99) * 1024  # CUDA C++ programming guide, table of capabilities
    for channels in (16, 128, 129, 1024, 65536):
        tile = select_tile(dtype, channels, CUDA)
        assert tile == select_tile(dtype, channels, CUDA)
        assert tile.stages * (tile.pixels + tile.outputs) * tile.inputs * dtype.itemsize <= shared
        assert not tile.all_levels


@needs_triton
def test_a_gpu_gets_triton_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    chosen = select_backend(network(), CUDA)
    assert isinstance(chosen, Fallback)
    assert isinstance(chosen.fast, TritonBackend)
    assert not has_kernels(network(), torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))  # without bfloat16
    assert isinstance(select_backend(network(), CUDA), Synthesis)


def test_a_gpu_without_triton_draws_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert isinstance(select_backend(network(), CUDA), Synthesis)


@pytest.mark.parametrize(("dtype", "rows"), [(torch.float64, 3), (torch.float32, fused.MAX_ROWS + 3)])
def test_what_has_no_kernel_is_drawn_plainly(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(levels=3, channels=16, z_dim=8, w_dim=12))
    synthesis = in_precision(generator.synthesis, dtype)
    affine, points = torch.randn(2, 3, rows, 16, dtype=dtype), torch.rand(5, rows, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(TritonBackend(synthesis)(affine, points), synthesis(affine, points))
