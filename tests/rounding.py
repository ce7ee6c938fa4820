"""How far apart the same arithmetic may be in two orders: by number format and length of sums, on any machine."""

import numpy as np
import torch
from torch import Tensor

from polyinr_core.models.config import GeneratorConfig

CONDITION = 16  # how much more than its own rounding a sum may be off, as what it sums cancels


def assert_rounded(
    found: Tensor | np.ndarray,
    expected: Tensor | np.ndarray,
    *,
    terms: int,
    dtype: torch.dtype | None = None,
    scale: float | None = None,
    msg: str = "",
) -> None:
    """Assert that `found` and `expected` are one result, but for the order in which its sums were rounded.

    `terms` are the additions and products that stand one behind another; each is off by half an epsilon of
    `dtype`, by default the narrower of the two. The bound is CONDITION x terms x epsilon of `scale`, by default
    the largest magnitude expected. BLAS libraries, threads and block sizes differ in the order alone.
    """
    found, expected = torch.as_tensor(found).detach(), torch.as_tensor(expected).detach()
    assert found.shape == expected.shape, (found.shape, expected.shape)
    epsilon = torch.finfo(dtype).eps if dtype else max(torch.finfo(x.dtype).eps for x in (found, expected))
    if scale is None:
        scale = float(expected.abs().max())
    off = float((found.double() - expected.double()).abs().max()) if found.numel() else 0.0
    bound = CONDITION * terms * epsilon * scale
    assert off <= bound, f"{msg} off by {off:.3g}, more than {bound:.3g} ({terms} terms, scale {scale:.3g})"


def terms_of(config: GeneratorConfig) -> int:
    """Return the additions and products from affine maps to a color: in each level a product, a modulation."""
    return (config.levels + 1) * (config.channels + 5)


def terms_to_affine(config: GeneratorConfig) -> int:
    """Return those from z to affine maps: the mapping's layers, a style and its heads, the chain of levels."""
    mapping = config.z_dim + config.table_dim + (config.mapping_layers + 1) * config.w_dim
    return mapping + config.w_dim + config.channels + 4 * config.levels


def assert_same_pixels(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that two ways of drawing give one image; a color at the edge of two steps may come as either."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert found.shape == expected.shape
    assert difference.max(initial=0) <= 1
    assert (difference > 0).mean() < 0.01
