"""Where a run computes: this process's rank, collectives over torch.distributed, copies to a GPU, its convolutions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor
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

    def all_reduce_coalesced(self, tensors: list[Tensor]) -> None:
        """Sum each tensor over all ranks, in place, in messages of about BUCKET_BYTES that travel at the same time."""
        if self.world_size == 1:
            return
        sent = []
        for bucket in _take_tensors(tensors, BUCKET_BYTES):  # of one dtype each
            flat = _flatten_dense_tensors(bucket).to(self.device)
            sent.append((bucket, flat, self.call(torch.distributed.all_reduce, flat, async_op=True)))
        for bucket, flat, work in sent:
            self.call(work.wait)  # on a GPU the stream waits, not the host
            for tensor, summed in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                tensor.copy_(summed)

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


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device, in `dtype` if given.

    From the host to a GPU it goes through page-locked memory, which PyTorch keeps until it has been read, so that
    neither the host nor the GPU's queue waits. A copy in the other direction has to wait and is not made here.
    """
    is_on_host = tensor.device.type == "cpu"
    if is_on_host and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=is_on_host)


def measure_convolutions(device: torch.device) -> None:
    """Let cuDNN time its algorithms at the first convolution of each shape in this process, and keep the fastest.

    Training has few shapes and meets each of them again and again. Nothing changes on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
