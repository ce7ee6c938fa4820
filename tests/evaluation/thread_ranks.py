"""Ranks that are threads of one process and communicate by a shared table."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch.distributed as dist

from polyinr_core.runtime.distributed import DistributedContext

T = TypeVar("T")


class ThreadRanks(DistributedContext):
    """DistributedContext with PyTorch's collectives, as far as evaluation calls them, among threads."""

    table: list[Any]
    barrier: Barrier

    def call(self, collective: Any, *arguments: Any, **options: Any) -> None:
        self.table[self.rank] = arguments
        self.barrier.wait()
        given = list(self.table)
        self.barrier.wait()
        if collective is dist.all_reduce:
            total = sum(row[0].clone() for row in given)
            self.barrier.wait()
            arguments[0].copy_(total)
        elif collective is dist.all_gather:
            for part, row in zip(arguments[0], given, strict=True):
                part.copy_(row[1])
        else:
            assert collective is dist.broadcast_object_list
            arguments[0][:] = given[0][0]
        self.barrier.wait()


def as_ranks(work: Callable[[DistributedContext], T], count: int) -> list[T]:
    """Return what each of so many ranks makes of the work."""
    table, barrier = [None] * count, Barrier(count, timeout=60)
    ranks = [ThreadRanks(rank, count) for rank in range(count)]
    for one in ranks:
        object.__setattr__(one, "table", table)
        object.__setattr__(one, "barrier", barrier)
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, ranks))
