"""How much memory and disk space is left, and errors for requests that need more."""

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
SPARE_BYTES = 64 * 2**20
MAX_WARNING_BYTES = 256 * 2**20  # up to which a shortage is only a warning: the system's figures are not that exact
# a control group's limit, its usage, and what of that is reclaimable; by version
VERSION_2 = ("memory.max", "memory.current", "inactive_file", "active_file", "slab_reclaimable")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")


def available_memory(system: Path = Path("/")) -> int | None:
    """Return the bytes that the system and the container can still allocate, None if unknown.

    Page cache that the system would give back counts as available. `system` is where /proc and /sys are.
    """
    limits = []
    try:
        for line in (system / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    for group in _control_groups(system):
        free = [_remaining(group, *names) for names in (VERSION_2, VERSION_1)]
        limits += [left for left in free if left is not None]
    return min(limits) if limits else _physical_memory()


def _control_groups(system: Path) -> list[Path]:
    """Return the control groups of this process, of either version, and all their parents."""
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


def _remaining(group: Path, limit: str, used: str, *reclaimable: str) -> int | None:
    """Return the bytes that a control group leaves, given its version's file names; None without a limit."""
    try:
        limit_text, used_text = ((group / name).read_text().strip() for name in (limit, used))
        if limit_text == "max":
            return None
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
        spare = sum(int(value) for name, value in lines if name in reclaimable)
        return int(limit_text) - max(0, int(used_text) - spare)
    except (OSError, ValueError):
        return None


def total_memory(device: "torch.device") -> int | None:
    """Return the total memory of a device in bytes, None if unknown."""
    if device.type != "cuda":
        return _physical_memory()
    import torch

    return torch.cuda.get_device_properties(device).total_memory


def working_memory(device: "torch.device") -> int | None:
    """Return the bytes that a computation may plan with: all of a GPU's, of the system what is available."""
    return total_memory(device) if device.type == "cuda" else available_memory()


def _physical_memory() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(
    needed: int, *, purpose: str, advice: str = "use a smaller size, or .npy, which is written row by row"
) -> None:
    """Raise RequestError if `needed` bytes are more than is available; only warn if they are few."""
    _check_free(needed, available_memory(), spare=SPARE_BYTES, purpose=purpose, advice=advice)


def check_gpu_memory(needed: int, device: "torch.device", *, purpose: str, advice: str) -> None:
    """Raise RequestError if `needed` bytes are more than a GPU has free."""
    import torch

    _check_free(needed, torch.cuda.mem_get_info(device)[0], spare=0, purpose=purpose, advice=advice)


def _check_free(needed: int, free: int | None, *, spare: int, purpose: str, advice: str) -> None:
    if free is None or needed + spare <= free:
        return
    shortage = f"{purpose} needs {needed / 2**30:,.1f} GiB of memory, {max(0, free) / 2**30:,.1f} are free"
    if needed > MAX_WARNING_BYTES:
        raise RequestError(f"{shortage}; {advice}")
    logger.warning("%s according to the system; continuing", shortage)


def check_disk(path: Path, needed: int) -> None:
    """Raise FileError if the disk of a path cannot hold `needed` bytes more."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        unit, name = (2**30, "GiB") if needed >= 2**30 else (2**20, "MiB")
        raise FileError(path, f"needs {needed / unit:,.2f} {name}, the disk has {free / unit:,.2f}; render less")
