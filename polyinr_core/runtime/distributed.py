"""Distributed training: this process's rank, and the collectives that a run needs, over torch.distributed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _take_tensors, _unflatten_dense_tensors

from polyinr_core.errors import DistributedError, first_line

CPU = torch.device("cpu")
BUCKET_BYTES = 25 * 2**20  # of gradients a message, as in PyTorch's DistributedDataParallel
LOST_CONNECTION = (  # Gloo reports a lost peer by these words alone
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused"),
    *("Timed out waiting", "Socket closed", "Read error", "Write error"),
)


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process among `world_size`, and the device of the process group's backend.

    With more than one process, torch.distributed's default process group must be initialized, and all ranks must
    call every collective in the same order. With one process, collectives return their argument. They raise
    DistributedError when a peer has exited.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that writes files."""
        return self.rank == 0

    def local_slice(self, count: int) -> slice:
        """Return this rank's contiguous part of `count` items; the parts of two ranks differ by at most one."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def local_rows(self, batch: int, micro_batch: int) -> Tensor:
        """Return int64 [batch / world_size]: this rank's rows of a batch, its part of each micro-batch in turn."""
        return torch.arange(batch).view(-1, micro_batch)[:, self.local_slice(micro_batch)].flatten()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, bit-identical on each, on the tensor's own device."""
        if self.world_size == 1:
            return tensor
        summed = tensor.detach().to(self.device, copy=True)
        self.call(torch.distributed.all_reduce, summed)
        return summed.to(tensor.device)

    def all_gather(self, tensor: Tensor, *, equal: bool = False) -> Tensor:
        """Return the ranks' tensors concatenated along dimension 0, where their lengths may differ.

        If they are known to be `equal`, they are not exchanged, for which the host would wait.
        """
        if self.world_size == 1:
            return tensor
        lengths = [len(tensor)] * self.world_size if equal else self.all_gather_int(len(tensor))
        padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor.detach()
        padded = padded.to(self.device).contiguous()
        parts = [torch.empty_like(padded) for _ in lengths]
        self.call(torch.distributed.all_gather, parts, padded)
        joined = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
        return joined.to(tensor.device)

    def all_gather_int(self, value: int) -> list[int]:
        """Return the value of each rank."""
        slots = torch.zeros(self.world_size, dtype=torch.int64)
        slots[self.rank] = value
        return [int(slot) for slot in self.all_reduce(slots)]

    def broadcast_object(self, value: Any) -> Any:
        """Return the value of rank 0; torch.distributed pickles it within the job."""
        if self.world_size == 1:
            return value
        box = [value]
        self.call(torch.distributed.broadcast_object_list, box, src=0)
        return box[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy the tensors of rank 0 to all ranks, in place."""
        if self.world_size == 1:
            return
        for tensor in tensors:
            sent = tensor.detach().to(self.device).contiguous()
            self.call(torch.distributed.broadcast, sent, src=0)
            tensor.detach().copy_(sent)

    def check_replicas(self, tensors: dict[str, Tensor]) -> None:
        """Raise DistributedError naming the first tensor whose values differ between ranks."""
        if self.world_size == 1:
            return
        sums = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors.values()])
        rows = self.all_gather(sums[None])  # [world_size, tensors]
        differ = (rows != rows[0]).any(dim=0).nonzero()
        if len(differ):
            name = list(tensors)[int(differ[0])]
            raise DistributedError(
                f"the replicas diverged at {name}; resume from the last training state, on identical machines"
            )

    def call(self, collective: Any, *arguments: Any, **options: Any) -> Any:
        """Call a collective of torch.distributed; raise DistributedError if a connection is lost."""
        try:
            return collective(*arguments, **options)
        except RuntimeError as error:
            is_lost = isinstance(error, torch.distributed.DistError)
            if not is_lost and not any(words in str(error) for words in LOST_CONNECTION):
                raise
            raise DistributedError(
                f"rank {self.rank} of {self.world_size}: another process of this job has exited "
                f"({first_line(error)[:200]}); run the same command again to resume from the last training state"
            ) from error


class GradientSum:
    """Sums the gradients of parameters over all ranks while the backward pass within its `with` block still runs.

    They travel in messages of about BUCKET_BYTES, from the last layer to the first as the pass reaches them. One starts
    when it is complete and those before it have started, so that all ranks send in the same order. PyTorch's
    DistributedDataParallel does this for modules whose forward pass is one call.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], dist: DistributedContext) -> None:
        self.dist = dist
        last_first = [] if dist.world_size == 1 else list(parameters)[::-1]
        self.buckets = list(_take_tensors(last_first, BUCKET_BYTES))  # of one dtype each
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[list[Tensor], Tensor, Any]] = []

    def __enter__(self) -> None:
        self.handles = [
            parameter.register_post_accumulate_grad_hook(partial(self.send_complete, index))
            for index, bucket in enumerate(self.buckets)
            for parameter in bucket
        ]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        if kind is not None:
            return
        while len(self.sent) < len(self.buckets):  # of parameters that have no gradient
            self.send()
        for gradients, flat, work in self.sent:
            self.dist.call(work.wait)  # on a GPU the stream waits, not the host
            for gradient, summed in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
                gradient.copy_(summed)

    def send_complete(self, index: int, _: Tensor) -> None:
        """Note one more gradient of bucket `index`, and send what is complete."""
        self.missing[index] -= 1
        while len(self.sent) < len(self.buckets) and not self.missing[len(self.sent)]:
            self.send()

    def send(self) -> None:
        """Start to sum the gradients of the next bucket."""
        bucket = self.buckets[len(self.sent)]
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None] or [bucket[0].new_zeros(1)]
        flat = _flatten_dense_tensors(gradients).to(self.dist.device)
        self.sent.append((gradients, flat, self.dist.call(torch.distributed.all_reduce, flat, async_op=True)))


class AllReduce(torch.autograd.Function):
    """A differentiable sum over all ranks: its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dist: DistributedContext) -> Tensor:
        ctx.dist = dist
        return dist.all_reduce(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.dist.all_reduce(gradients[0].contiguous()), None


SINGLE_PROCESS = DistributedContext()
