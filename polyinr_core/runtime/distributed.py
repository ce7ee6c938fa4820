"""The processes of one job: what they add up, gather and agree on. Alone, nothing of it costs anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from polyinr_core.errors import RanksError

CPU = torch.device("cpu")
LOST = (  # Gloo's words
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused"),
    *("Timed out waiting", "Socket closed", "Read error", "Write error"),
)


@dataclass(frozen=True)
class Ranks:
    """This process's number among `count`, and the device through which they talk.

    With more than one, PyTorch's default process group must be there. Every method is called by all of them
    in the same order. Raises RanksError when another one has gone.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Say whether this is the one that writes files."""
        return self.rank == 0

    def share(self, items: int) -> slice:
        """Return this rank's contiguous part of so many items; parts differ by one item at most."""
        return slice(self.rank * items // self.count, (self.rank + 1) * items // self.count)

    def rows(self, batch: int, micro_batch: int) -> Tensor:
        """Return int64 [batch / count]: this rank's rows of a batch, its share of each micro-batch in turn."""
        return torch.arange(batch).view(-1, micro_batch)[:, self.share(micro_batch)].flatten()

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, the same to the last bit on each."""
        if self.count == 1:
            return tensor
        summed = tensor.detach().to(self.device, copy=True)
        self.talk(dist.all_reduce, summed)
        return summed.to(tensor.device)

    def total_of(self, tensors: list[Tensor]) -> None:
        """Sum each of the tensors over all ranks, in place, as one message."""
        if self.count == 1 or not tensors:
            return
        flat = _flatten_dense_tensors(tensors)
        for tensor, summed in zip(tensors, _unflatten_dense_tensors(self.total(flat), tensors), strict=True):
            tensor.copy_(summed)

    def gathered(self, tensor: Tensor) -> Tensor:
        """Return the ranks' tensors one after another along the first dimension, which may differ in length."""
        if self.count == 1:
            return tensor
        lengths = self.numbers(len(tensor))
        padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor.detach()
        padded = padded.to(self.device).contiguous()
        parts = [torch.empty_like(padded) for _ in lengths]
        self.talk(dist.all_gather, parts, padded)
        joined = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
        return joined.to(tensor.device)

    def numbers(self, number: int) -> list[int]:
        """Return the number that each rank gave."""
        slots = torch.zeros(self.count, dtype=torch.int64)
        slots[self.rank] = number
        return [int(slot) for slot in self.total(slots)]

    def any(self, flag: bool) -> bool:
        """Say whether at least one rank says so."""
        return sum(self.numbers(int(flag))) > 0

    def fact(self, value: Any) -> Any:
        """Return the first rank's value, which PyTorch sends as a pickle within the job."""
        if self.count == 1:
            return value
        box = [value]
        self.talk(dist.broadcast_object_list, box, src=0)
        return box[0]

    def same_as_first(self, tensors: Iterable[Tensor]) -> None:
        """Give each of the tensors, in place, the values that the first rank has."""
        if self.count == 1:
            return
        for tensor in tensors:
            sent = tensor.detach().to(self.device).contiguous()
            self.talk(dist.broadcast, sent, src=0)
            tensor.detach().copy_(sent)

    def check_agreement(self, tensors: dict[str, Tensor]) -> None:
        """Raise RanksError naming the first tensor of which the ranks hold different values."""
        if self.count == 1:
            return
        sums = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors.values()])
        rows = self.gathered(sums[None])  # [ranks, tensors]
        differ = (rows != rows[0]).any(dim=0).nonzero()
        if len(differ):
            name = list(tensors)[int(differ[0])]
            raise RanksError(
                f"the processes of this job no longer agree on {name}; go on from the last state, on machines "
                "of one kind"
            )

    def talk(self, collective: Any, *arguments: Any, **options: Any) -> None:
        """Call one of PyTorch's collectives; a lost connection becomes an error of ours."""
        try:
            collective(*arguments, **options)
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RanksError(
                f"rank {self.rank} of {self.count}: another process of this job has ended ({reason[:200]}); "
                "run the same command again to go on from the last state"
            ) from error


def is_lost_connection(error: RuntimeError) -> bool:
    """Say whether a collective failed because another process has gone; Gloo says so in words alone."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in LOST)


class SumOverRanks(torch.autograd.Function):
    """The sum over all ranks as a step of a computation: its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradients[0].contiguous()), None


ALONE = Ranks()
