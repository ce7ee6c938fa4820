"""How much memory this process holds."""

import os
import sys
from pathlib import Path

import torch

MIB = 2**20
STATM = Path("/proc/self/statm")  # Linux: sizes in pages, the resident one second


def memory_facts(device: torch.device) -> dict[str, float]:
    """Return `resident_mib` and, on a CUDA device, `cuda_mib`: the most that tensors have taken there so far.

    Where the system does not tell the resident size of the moment, its highest; where it tells none, nothing.
    """
    facts = {}
    if (resident := resident_bytes()) is not None:
        facts["resident_mib"] = round(resident / MIB, 1)
    if device.type == "cuda":
        facts["cuda_mib"] = round(torch.cuda.max_memory_allocated(device) / MIB, 1)
    return facts


def resident_bytes() -> int | None:
    """Return the bytes of this process that lie in memory, as far as the system tells."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
