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
CHECK_PIXELS = 200  # compared at the first use: more than one tile, and not a multiple of it
MAX_DIFFERENCE = {
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
}  # of the colors' norm; a wrong kernel gives about 1
FAILED: set[str] = set()  # names of the backends that have failed in this process
CHECKED: set[tuple[object, ...]] = set()  # name, device, limit and sizes of those compared with the plain one


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
    if not has_kernels(network, device):
        return network
    fast = TritonBackend(network)
    return Fallback(fast, network, name="Triton", max_difference=MAX_DIFFERENCE[fast.weights.dtype])


class Fallback:
    """Evaluate with a fast backend; after its first failure in this process with a plain one.

    With `max_difference`, the first use for a device, a dtype and a network's sizes compares some pixels with the plain
    backend, and colors that differ by more, relative to their norm, count as a failure. An input on which the plain
    backend fails as well does not.
    """

    def __init__(self, fast: Backend, plain: Backend, *, name: str, max_difference: float | None = None) -> None:
        self.fast, self.plain, self.name, self.max_difference = fast, plain, name, max_difference

    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]."""
        if self.name not in FAILED:
            try:
                self.check(affine, coordinates)
                return self.fast(affine, coordinates)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # compilers have no common base class of errors
                colors = self.plain(affine, coordinates)
                FAILED.add(self.name)
                logger.warning("%s does not work here (%s); continuing without it", self.name, summarize(error))
                return colors
        return self.plain(affine, coordinates)

    def check(self, affine: Tensor, coordinates: Tensor) -> None:
        """Compare some pixels of the first image with the plain backend, once in a process. Raises WrongColorsError."""
        key = (self.name, affine.device, self.max_difference, *affine.shape[1:])
        if self.max_difference is None or key in CHECKED or not affine.numel():
            return
        logger.info("%s: compiling kernels for %s", self.name, affine.device)
        some = coordinates[:CHECK_PIXELS] if coordinates.dim() == 2 else coordinates[:1, :CHECK_PIXELS]
        expected = self.plain(affine[:1], some)
        difference = float((self.fast(affine[:1], some) - expected).norm() / expected.norm().clamp_min(1e-6))
        is_comparable = bool(expected.isfinite().all())  # weights that overflow are no fault of the kernels
        if is_comparable and not difference <= self.max_difference:
            raise WrongColorsError(f"its colors differ from PyTorch's by {difference:.2g} of their norm")
        CHECKED.add(key)


class WrongColorsError(Exception):
    """A fast backend that gives other colors than the plain one."""


def summarize(error: Exception) -> str:
    """Return an error's class and the first line of its message, at most MAX_REASON characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = ": ".join([type(error).__name__, *lines[:1]])
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
