"""Backends: what evaluates the synthesis network on a device, where no gradients are needed."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from polyinr_core.models.generator import Synthesis

from .cpu import CpuBackend
from .triton import TritonBackend, has_kernels

# Called like the network: affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] give colors [N, P, 3].
Backend = Callable[[Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)
MAX_REASON = 160  # characters of a compiler's message
FAILED: set[str] = set()  # names of the backends that have failed in this process


def select_backend(network: Backend, device: torch.device) -> Backend:
    """Return the fastest backend for a synthesis network on a device.

    Args:
        network: A `Synthesis`. Anything else, such as a backend selected before, is returned as it is.
        device: The device of the network's weights.

    Returns:
        Triton kernels on a GPU, with the network itself as a fallback; preallocated buffers on a CPU.
    """
    if not isinstance(network, Synthesis) or network.product_dtype is not None:
        return network
    if device.type == "cpu":
        return CpuBackend(network)
    return Fallback(TritonBackend(network), network, name="Triton") if has_kernels(network, device) else network


class Fallback:
    """Evaluate with a fast backend; after its first failure in this process with a plain one.

    An input on which the plain backend fails as well does not count as a failure of the fast one.
    """

    def __init__(self, fast: Backend, plain: Backend, *, name: str) -> None:
        self.fast, self.plain, self.name = fast, plain, name

    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]."""
        if self.name not in FAILED:
            try:
                return self.fast(affine, coordinates)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # compilers have no common base class of errors
                colors = self.plain(affine, coordinates)
                FAILED.add(self.name)
                logger.warning("%s does not work here (%s); continuing without it", self.name, summarize(error))
                return colors
        return self.plain(affine, coordinates)


def summarize(error: Exception) -> str:
    """Return an error's class and the first line of its message, at most MAX_REASON characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = ": ".join([type(error).__name__, *lines[:1]])
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
