"""What draws a network's pictures where no gradients are wanted."""

from collections.abc import Callable

import torch
from torch import Tensor

from .compiled import Compiled
from .fused import Fused, has_kernels
from .graphs import Recorded
from .lean import Lean
from .synthesis import Synthesis
from .tried import Tried

# Called like the network, with affine [N, L, 3, n] and points [P, 3] or [N, P, 3], for colours [N, P, 3].
Drawer = Callable[[Tensor, Tensor], Tensor]


def drawer_for(network: Drawer, device: torch.device, *, compiled: bool | None = None) -> Drawer:
    """Return what draws a network's pictures fastest on a device; a drawer that was chosen before stays.

    On a GPU that is Triton, where it has kernels for the network. With `compiled` torch.compile takes its place
    elsewhere, which starts slowly; `compiled` false is neither. What a compiler cannot do is drawn plainly.
    """
    if not isinstance(network, Synthesis) or network.product_dtype is not None:
        return network
    plain = Lean(network) if device.type == "cpu" else network
    if compiled is not False and has_kernels(network, device):
        return Tried(Recorded(Fused(network)), plain, name="Triton")
    if compiled:
        return Tried(Compiled(network), plain, name="torch.compile")
    return plain
