"""Devices, precision, memory."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import Run

from polyinr_cli import runtime as devices
from polyinr_cli.options import Precision
from polyinr_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.images.io import read_metadata
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.runtime import resources

CPU = torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose_device("auto") == CPU
    assert devices.choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose_device("auto").type == "cuda"
    assert devices.choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(RequestError, match="2 CUDA"):
        devices.choose_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cpu:1", "cuda:-1", "cuda:x", "meta", "CPU", "mps:1"])
def test_unknown_devices(name: str):
    with pytest.raises(RequestError, match="device"):
        devices.choose_device(name)


def test_metal_is_used_by_name_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    metal = devices.choose_device("mps")
    assert metal.type == "mps"
    assert devices.choose_device("auto") == CPU
    assert devices.choose_dtype("auto", metal, is_8_bit=True) == torch.float32
    with pytest.raises(RequestError, match="float64 is not possible"):
        devices.choose_dtype("float64", metal, is_8_bit=True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RequestError, match="'mps' is not available: this machine has no GPU"):
        devices.choose_device("mps")
    caplog.set_level("WARNING")  # a command with --quiet, run in this process, leaves ERROR behind
    assert devices.choose_device("mps", otherwise_cpu=True) == CPU
    assert "using the CPU" in caplog.text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_vnni", torch.float32),
        ("flags : fpu avx512_bf16", torch.bfloat16),
        ("flags : fpu amx_tile amx_bf16 amx_int8", torch.bfloat16),
        ("Features : asimd bf16", torch.bfloat16),
        ("nothing", torch.float32),
    ],
)
def test_auto_precision_follows_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: torch.dtype
):
    (tmp_path / "cpuinfo").write_text(f"model name : x\n{flags}\n")
    found = devices.cpu_flags(tmp_path / "cpuinfo")
    monkeypatch.setattr(devices, "cpu_flags", lambda: found)
    assert devices.choose_dtype(Precision.auto, CPU, is_8_bit=True) == expected
    assert devices.choose_dtype(Precision.auto, CPU, is_8_bit=False) == torch.float32


@pytest.mark.parametrize(
    ("limit", "native"), [("AVX512_CORE", False), ("avx2", False), ("AVX512_CORE_BF16", True), ("DEFAULT", True)]
)
@pytest.mark.parametrize("name", devices.ONEDNN_VARIABLES)
def test_auto_precision_follows_what_products_are_kept_to(
    monkeypatch: pytest.MonkeyPatch, name: str, limit: str, native: bool
):
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"amx_bf16"})
    for other in devices.ONEDNN_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, limit)
    assert devices.multiplies_bfloat16(CPU) is native


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert devices.multiplies_bfloat16(torch.device("cuda")) is native


def test_a_named_precision_is_taken():
    for name in ("float32", "bfloat16", "float64"):
        assert devices.choose_dtype(Precision(name), CPU, is_8_bit=True) == getattr(torch, name)


def test_no_processor_file():
    assert devices.cpu_flags(Path("/nowhere")) == set()


def test_memory(monkeypatch: pytest.MonkeyPatch):
    assert resources.available_memory() > 2**20
    monkeypatch.setattr(resources, "available_memory", lambda: 10 * 2**30)
    resources.check_memory(9 * 2**30, purpose="an image")
    with pytest.raises(RequestError, match=r"an image needs 11.0 GiB of memory, 10.0 are free"):
        resources.check_memory(11 * 2**30, purpose="an image")
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    resources.check_memory(2**80, purpose="an image")


GIB = 2**30


def write_system(root: Path, files: dict[str, object]) -> Path:
    """Write what /proc and /sys say, below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_memory_that_holds_files_can_be_had(tmp_path: Path) -> None:
    """A container that has read a large data set: 15 of its 16 GiB are used, 14 of them by files."""
    stat = f"anon {GIB}\nfile {14 * GIB}\ninactive_file {12 * GIB}\nactive_file {GIB}\nslab_reclaimable {GIB}"
    own = "sys/fs/cgroup"
    files = {
        "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {64 * GIB // 1024} kB",
        "proc/self/cgroup": "0::/",
        f"{own}/memory.max": 16 * GIB,
        f"{own}/memory.current": 15 * GIB,
        f"{own}/memory.stat": stat,
    }
    assert resources.available_memory(write_system(tmp_path / "files", files)) == 15 * GIB
    files[f"{own}/memory.stat"] = f"anon {15 * GIB}\ninactive_file 0\nslab_reclaimable 0"
    assert resources.available_memory(write_system(tmp_path / "anon", files)) == GIB
    files[f"{own}/memory.max"] = "max"
    assert resources.available_memory(write_system(tmp_path / "free", files)) == 64 * GIB


def test_memory_of_the_groups_above(tmp_path: Path) -> None:
    """As a service or a job of Slurm: a group within a group; the narrowest counts."""
    own = "sys/fs/cgroup/system.slice"
    files = {
        "proc/meminfo": f"MemAvailable: {64 * GIB // 1024} kB",
        "proc/self/cgroup": "0::/system.slice/job.scope",
        f"{own}/memory.max": 8 * GIB,
        f"{own}/memory.current": 6 * GIB,
        f"{own}/memory.stat": f"inactive_file {GIB}",
        f"{own}/job.scope/memory.max": "max",
        f"{own}/job.scope/memory.current": GIB,
        f"{own}/job.scope/memory.stat": "inactive_file 0",
    }
    assert resources.available_memory(write_system(tmp_path, files)) == 3 * GIB
    total = resources.total_memory(CPU, tmp_path / "elsewhere")
    assert resources.total_memory(CPU, tmp_path) == min(total, 8 * GIB)  # what training plans with


@pytest.mark.parametrize("place", ["", "/docker/abc"])
def test_memory_by_the_first_version_of_groups(tmp_path: Path, place: str) -> None:
    own = f"sys/fs/cgroup/memory{place}"
    files = {
        "proc/meminfo": f"MemAvailable: {64 * GIB // 1024} kB",
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:hugetlb,memory:/docker/abc\n0::/",
        f"{own}/memory.limit_in_bytes": 4 * GIB,
        f"{own}/memory.usage_in_bytes": 4 * GIB,
        f"{own}/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}\ntotal_active_file {GIB}",
    }
    assert resources.available_memory(write_system(tmp_path, files)) == 3 * GIB


def test_a_system_that_says_nothing_of_memory(tmp_path: Path) -> None:
    assert resources.available_memory(tmp_path) == resources.total_memory(CPU, tmp_path)
    broken = {"proc/meminfo": "MemAvailable: x", "sys/fs/cgroup/memory.max": "", "proc/self/cgroup": "x"}
    assert resources.available_memory(write_system(tmp_path, broken)) == resources.total_memory(CPU, tmp_path)


def test_little_memory_is_never_refused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(resources, "available_memory", lambda: 0)
    resources.check_memory(resources.MAX_WARNING_BYTES, purpose="an image")
    assert "an image needs 0.2 GiB of memory, 0.0 are free" in caplog.text
    with pytest.raises(RequestError, match=r"0\.0 are free; use a smaller size"):
        resources.check_memory(resources.MAX_WARNING_BYTES + 1, purpose="an image")


def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 8 * GIB))
    gpu = torch.device("cuda")
    resources.check_gpu_memory(GIB, gpu, purpose="training", advice="take fewer --channels")
    with pytest.raises(RequestError, match=r"training needs 2\.0 GiB of memory, 1\.0 are free; take fewer"):
        resources.check_gpu_memory(2 * GIB, gpu, purpose="training", advice="take fewer --channels")


def test_reduced_precision_products_stay_off():
    """float32 on a GPU means float32: TF32 stays off."""
    devices.choose_device("auto")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("gain", "asked", "drawn"),
    [(10, "auto", "bfloat16"), (100, "auto", "float32"), (100, "bfloat16", "bfloat16")],
)
def test_a_model_that_bfloat16_would_change_is_drawn_in_float32(
    monkeypatch: pytest.MonkeyPatch, polyinr: Run, gain: float, asked: str, drawn: str
):
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda device: True)
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(levels=2, channels=32, z_dim=8, w_dim=16)).eval()
    with torch.no_grad():
        generator.synthesis.to_rgb.weight.mul_(gain)
    save_checkpoint(Path("x.safetensors"), Checkpoint(generator=generator, resolution=16))
    image = ("--seeds", "0", "-m", "x.safetensors", "-o", "x.png")
    assert polyinr("sample", *image, "--precision", asked).code == 0
    assert read_metadata(Path("x.png"))["precision"] == drawn
