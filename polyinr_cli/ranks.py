"""The processes of a job that torchrun has started: who we are among them, and how they talk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

PATIENCE = timedelta(hours=1)  # with the first process, which reads and writes files while the others wait

if TYPE_CHECKING:
    import torch

    from polyinr_core.ranks import Ranks


def own_rank() -> int:
    """Return this process's number in its job, 0 where torchrun has started none."""
    return int(os.environ.get("RANK", "0")) if several() else 0


def several() -> bool:
    """Say whether torchrun has started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_share(items: int) -> range:
    """Return which of so many items are this process's: of N processes, number n has n, n + N, ..."""
    return range(own_rank(), items, int(os.environ.get("WORLD_SIZE", "1")))


def own_device(device: "torch.device") -> "torch.device":
    """Return the GPU that this process of a job has for itself. Raises RequestError."""
    if device.type != "cuda" or not several():
        return device
    import torch

    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        raise RequestError(
            f"process {number} of this machine has no GPU of its own, there are {there}; "
            f"start at most {there} with --nproc-per-node, or give --device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def joined(device: "torch.device") -> Iterator["Ranks"]:
    """Join the other processes of the job: NCCL between GPUs, Gloo otherwise. Alone where there are none."""
    from polyinr_core.ranks import ALONE, Ranks

    if not several():
        yield ALONE
        return
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    dist.destroy_process_group()  # not after an error: it would wait for the others
