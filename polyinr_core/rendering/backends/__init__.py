"""What evaluates the synthesis network on a device, where no gradients are needed; and in reduced precision."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.coordinates import homogeneous
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.rng import generator_for

from .cpu import CpuBackend
from .triton import TritonBackend, has_kernels

# Called like the network: affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] give colors [N, P, 3].
Backend = Callable[[Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)
MAX_REASON = 160  # characters of a compiler's message
MIN_PIXELS = 256  # of a product that is halved where memory runs out
CHECK_PIXELS = 200  # compared at the first use: more than one tile, and not a multiple of it
MAX_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the colors' norm; wrong kernels give about 1
FAILED: set[str] = set()  # names of the backends that have failed in this process
CHECKED: set[tuple[object, ...]] = set()  # name, device, limit and sizes of those compared with the plain one
COMPARED_PIXELS = 256  # of each image, at random coordinates
MAX_STEPS, MIN_SHARE, MAX_RELATIVE = 2.0, 0.999, 0.01  # of the error of reduced precision


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
    backend fails as well does not. Where a GPU's memory runs out, the pixels are evaluated in halves.
    """

    def __init__(self, fast: Backend, plain: Backend, *, name: str, max_difference: float | None = None) -> None:
        self.fast, self.plain, self.name, self.max_difference = fast, plain, name, max_difference

    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]."""
        try:
            return self.evaluate(affine, coordinates)
        except torch.OutOfMemoryError:
            if coordinates.dim() < 2 or coordinates.shape[-2] <= MIN_PIXELS:
                raise
        # not within `except`, where the error still holds the memory of its frames
        return torch.cat([self(affine, half) for half in coordinates.chunk(2, dim=-2)], dim=1)

    def evaluate(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Evaluate with the fast backend, or with the plain one if that has failed."""
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


class ReducedLinear(nn.Module):
    """A linear layer in reduced precision: its input is rounded to the weight's dtype."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(dtype))
        self.register_buffer("bias", linear.bias.detach().to(dtype))

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def in_precision(synthesis: Synthesis, dtype: torch.dtype) -> Synthesis:
    """Convert the network to a dtype: in place to float32 or float64, as a copy to bfloat16.

    In bfloat16 only the n x n products are reduced. Coordinates and affine parameters stay float32, as 8 bits of
    mantissa do not distinguish the pixels of a row.
    """
    if dtype in (torch.float32, torch.float64):
        return synthesis.to(dtype)
    synthesis = copy.deepcopy(synthesis)
    for level in range(1, len(synthesis.products)):
        synthesis.products[level] = ReducedLinear(synthesis.products[level], dtype)  # type: ignore[arg-type]
    return synthesis


@torch.no_grad()
def is_faithful(reduced: Synthesis, exact: Synthesis, affine: Tensor) -> bool:
    """Return whether a network in reduced precision renders visually identical images, by random pixels of some.

    `affine` [N, L, 3, n] holds the images' parameters. Colors may be off by 2 steps of 255 on 99.9 % of the
    pixels, and by 1 % in norm. Rounding errors grow from level to level, so the result depends on the weights.
    """
    xy = torch.rand(COMPARED_PIXELS, 2, generator=generator_for("precision", "points"))
    coordinates = homogeneous(xy).to(affine)  # [P, 3]
    expected, rounded = (network(affine, coordinates).clamp(-1, 1) for network in (exact, reduced))
    error = 127.5 * (rounded - expected).abs().amax(dim=-1)  # [N, P], in steps of 255
    is_near = (error <= MAX_STEPS).double().mean() >= MIN_SHARE
    return bool(is_near and (rounded - expected).norm() <= MAX_RELATIVE * expected.norm())
