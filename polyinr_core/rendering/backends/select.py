"""What draws a network's images where no gradients are wanted."""

from collections.abc import Callable

import torch
from torch import Tensor

from polyinr_core.models.generator import Synthesis

from .compiled import Compiled
from .cpu import Lean
from .cuda_graph import Recorded
from .fallback import Tried
from .triton import Fused, has_kernels

# Called like the network, with affine [N, L, 3, n] and points [P, 3] or [N, P, 3], for colors [N, P, 3].
Drawer = Callable[[Tensor, Tensor], Tensor]


def drawer_for(network: Drawer, device: torch.device, *, compiled: bool | None = None) -> Drawer:
    """Return what draws a network's images fastest on a device; a drawer that was chosen before stays.

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
