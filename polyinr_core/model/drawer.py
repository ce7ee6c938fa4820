"""What draws a network's pictures where no gradients are wanted."""

from collections.abc import Callable

import torch
from torch import Tensor

from .lean import Lean
from .synthesis import Synthesis

# Called like the network, with affine [N, L, 3, n] and points [P, 3] or [N, P, 3], for colours [N, P, 3].
Drawer = Callable[[Tensor, Tensor], Tensor]


def drawer_for(network: Drawer, device: torch.device) -> Drawer:
    """Return what draws a network's pictures fastest on a device; a drawer that was chosen before stays."""
    if isinstance(network, Synthesis) and device.type == "cpu" and network.product_dtype is None:
        return Lean(network)
    return network
