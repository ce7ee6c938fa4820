"""BatchNorm whose statistics are those of a micro-batch that lies in pieces on several processes."""

import torch
from torch import Tensor, nn

from ..ranks import ALONE, Ranks, SumOverRanks


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the pictures of all `ranks` together; alone it is PyTorch's own.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    """

    ranks: Ranks = ALONE
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if self.ranks.count == 1 or not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = self.ranks.count * x.numel() // x.shape[1]  # the pieces are of one size
        mean = SumOverRanks.apply(wide.sum(dim=(0, 2, 3)), self.ranks) / count  # [C]
        centred = wide - mean[:, None, None]
        variance = SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3)), self.ranks) / count
        self.remember(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as PyTorch does, and count the batch."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)
