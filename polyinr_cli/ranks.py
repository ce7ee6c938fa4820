"""The processes of a job that torchrun has started: who we are among them, and how they talk."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from . import streams

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # all of which torchrun sets
MEETING = {"MASTER_ADDR": r"\S+", "MASTER_PORT": "[0-9]{1,5}"}  # where the processes find each other
PATIENCE = timedelta(hours=1)  # with the first process, which reads and writes files while the others wait

if TYPE_CHECKING:
    import torch

    from polyinr_core.ranks import Ranks


@dataclass(frozen=True)
class Job:
    """This process's place among those that torchrun has started, on this machine and on all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def job() -> Job:
    """Return this process's place, by what torchrun has set. Raises RequestError for what is no place.

    WORLD_SIZE alone makes no job: schedulers of clusters set it, and RANK, for commands that work alone.
    """
    if not all(os.environ.get(name) for name in NUMBERS):
        return Job()
    numbers = {}
    for name in NUMBERS:
        if not (text := os.environ[name].strip()).isdecimal():
            raise RequestError(f"${name} is {text!r}, no number as torchrun sets it; unset it, or use torchrun")
        numbers[name] = int(text)
    rank, world_size, local_rank = (numbers[name] for name in NUMBERS)
    if rank >= max(1, world_size):
        raise RequestError(f"$RANK is {rank} of $WORLD_SIZE {world_size}; unset them, or use torchrun")
    return Job(rank, world_size, local_rank) if world_size > 1 else Job()


def own_rank() -> int:
    """Return this process's number in its job, 0 where torchrun has started none."""
    return job().rank


def rank_or_first() -> int:
    """Return this process's number in its job, 0 also where the environment is no help."""
    try:
        return own_rank()
    except RequestError:
        return 0


def several() -> bool:
    """Say whether torchrun has started more than one process."""
    return job().world_size > 1


def own_share(items: int) -> range:
    """Return which of so many items are this process's: of N processes, number n has n, n + N, ..."""
    own = job()
    return range(own.rank, items, own.world_size)


def say_if_alone() -> None:
    """Say so if the environment speaks of several processes and this one works alone all the same."""
    world_size = os.environ.get("WORLD_SIZE", "").strip()
    if several() or world_size in ("", "1"):
        return
    missing = ", ".join(f"${name}" for name in NUMBERS if not os.environ.get(name))
    if missing:
        streams.say(
            f"polyinr: $WORLD_SIZE is {world_size!r} without {missing}: no job of torchrun; working alone",
            always=True,
        )


def own_device(device: "torch.device") -> "torch.device":
    """Return the GPU that this process of a job has for itself. Raises RequestError."""
    if device.type != "cuda" or not several():
        return device
    import torch

    number, there = job().local_rank, torch.cuda.device_count()
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
        say_if_alone()
        yield ALONE
        return
    for name, form in MEETING.items():
        if not re.fullmatch(form, value := os.environ.get(name, "")):
            raise RequestError(f"${name} is {value!r}, not as torchrun sets it; start the job with torchrun")
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    dist.destroy_process_group()  # not after an error: it would wait for the others
