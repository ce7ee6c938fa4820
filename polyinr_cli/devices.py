"""Which device and number format a command works in, and whether the work fits into memory."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from .options import Precision

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
WORDS = {"cpu": "processor", "cuda": "GPU"}
CPU_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last is ARM's word
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # what people keep oneDNN, which does the products, to
NARROW_LIMITS = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
SPARE_BYTES = 64 * 2**20
FEW_BYTES = 256 * 2**20  # for which nothing is refused: the system's account is not that exact
# a control group's limit, what it uses, and what of that it gives back when it must; by version
VERSION_2 = ("memory.max", "memory.current", "inactive_file", "active_file", "slab_reclaimable")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")


def choose_device(name: str, *, otherwise_cpu: bool = False) -> "torch.device":
    """Return the device that --device names; auto takes a GPU where there is one. Raises RequestError.

    With `otherwise_cpu` a GPU that is not there is a warning and the CPU: pictures are the same, and soon drawn.
    A training or an evaluation would not be done in a human time, and is refused.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; products have it off by default
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise RequestError(f"device {name!r} is unknown; choose from auto, cpu, cuda, cuda:N") from None
    if device.type == "cpu" and device.index in (None, 0):
        return torch.device("cpu")
    if device.type != "cuda":
        raise RequestError(f"device {name!r} is not supported; choose from auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        absent = f"device {name!r} is not there: this machine shows {count} CUDA devices"
        if not otherwise_cpu:
            raise RequestError(absent)
        logger.warning("%s; drawing on the CPU", absent)
        return torch.device("cpu")
    return device


def choose_dtype(precision: Precision, device: "torch.device", *, eight_bits: bool) -> "torch.dtype":
    """Return the dtype of --precision. auto: bfloat16 if the hardware multiplies it and 8 bits are asked."""
    import torch

    if precision is Precision.bfloat16 and not multiplies_bfloat16(device):
        logger.warning("this %s has no bfloat16 products of its own: slower than float32", WORDS[device.type])
    if precision is not Precision.auto:
        return {
            Precision.float32: torch.float32,
            Precision.bfloat16: torch.bfloat16,
            Precision.float64: torch.float64,
        }[precision]
    return torch.bfloat16 if eight_bits and multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: "torch.device") -> bool:
    """Say whether the hardware has bfloat16 products of its own, that oneDNN is free to use."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    limit = next((os.environ[name] for name in LIMITS if name in os.environ), "")
    return limit.upper() not in NARROW_LIMITS and bool(CPU_FLAGS & cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's feature names, empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    flags = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return set(flags[0].split()) if flags else set()


def available_memory(system: Path = Path("/")) -> int | None:
    """Return the bytes that can still be had, by the system's and the container's account; None if unknown.

    What the system keeps of files in spare memory can be had as well. `system` is where /proc and /sys lie.
    """
    limits = []
    try:
        for line in (system / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    for group in _groups(system):
        free = [_left_by(group, *names) for names in (VERSION_2, VERSION_1)]
        limits += [left for left in free if left is not None]
    import torch

    return min(limits) if limits else total_memory(torch.device("cpu"))


def _groups(system: Path) -> list[Path]:
    """Return the control groups that this process is in, of either version, with all groups above them."""
    root = system / "sys/fs/cgroup"
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = {root, root / "memory"}  # a container may see its own group there, under whatever name it has
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            top = root if number == "0" else root / "memory"
            own = top / name.lstrip("/")
            found |= {own, *(group for group in own.parents if group.is_relative_to(top))}
    return sorted(found)


def _left_by(group: Path, limit: str, used: str, *reclaimable: str) -> int | None:
    """Return the bytes that a control group leaves, by the names of its version's files; None without a limit."""
    try:
        most, now = ((group / name).read_text().strip() for name in (limit, used))
        if most == "max":
            return None
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
        spare = sum(int(value) for name, value in lines if name in reclaimable)
        return int(most) - max(0, int(now) - spare)
    except (OSError, ValueError):
        return None


def total_memory(device: "torch.device") -> int | None:
    """Return the bytes that a device has in all; None if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_memory(
    wanted: int, *, purpose: str, advice: str = "take a smaller size, or .npy, which is written row by row"
) -> None:
    """Raise RequestError if `wanted` bytes are more than can be had; warn if they are few all the same."""
    _check_free(wanted + SPARE_BYTES, available_memory(), wanted=wanted, purpose=purpose, advice=advice)


def check_gpu_memory(wanted: int, device: "torch.device", *, purpose: str, advice: str) -> None:
    """Raise RequestError if `wanted` bytes are more than a GPU has free."""
    import torch

    _check_free(wanted, torch.cuda.mem_get_info(device)[0], wanted=wanted, purpose=purpose, advice=advice)


def _check_free(needed: int, free: int | None, *, wanted: int, purpose: str, advice: str) -> None:
    if free is None or needed <= free:
        return
    words = f"{purpose} needs {wanted / 2**30:,.1f} GiB of memory, {max(0, free) / 2**30:,.1f} are free"
    if wanted > FEW_BYTES:
        raise RequestError(f"{words}; {advice}")
    logger.warning("%s by the system's account; going on all the same", words)
