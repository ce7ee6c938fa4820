"""A small model and some pictures as text that a page draws from by itself: weights, biases, affine maps."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..latents.file import Latents
from ..latents.spaces import held_in
from ..model import Generator
from ..model.layers import SLOPE

MOST_NUMBERS = 750_000  # of weights: 3 MB, 4 MB as text
GROUP = 4  # channels to a texel; their number is filled up with zeros


def fits_in_page(generator: Generator) -> bool:
    """Say whether a model is small enough."""
    return sum(parameter.numel() for parameter in generator.synthesis.parameters()) <= MOST_NUMBERS


@torch.no_grad()
def model_in_page(generator: Generator, pictures: Sequence[Latents]) -> dict[str, Any]:
    """Return what a page needs to draw pictures (completed latents, N = 1), as plain values.

    `numbers` is float32 in base64, little-endian: weights [n, n] and biases [n] of each level above 0; the
    colours' weights [3, n] and biases [4]; then a picture's maps [L, 3, n] after another, level 0's folded with
    its product. n is a multiple of 4.
    """
    config, synthesis = generator.config, generator.synthesis
    n = -(-config.channels // GROUP) * GROUP
    parts = []
    for product in list(synthesis.products)[1:]:
        assert isinstance(product, nn.Linear)
        parts += [filled(product.weight, n, n), filled(product.bias, n)]
    parts += [filled(synthesis.to_rgb.weight, 3, n), filled(synthesis.to_rgb.bias, GROUP)]
    for picture in pictures:
        maps = held_in(picture, "affine").to(synthesis.to_rgb.weight)
        folded = torch.cat([synthesis.fold_first(maps[:, 0])[:, None], maps[:, 1:]], dim=1)
        parts.append(filled(folded[0], config.levels, 3, n))
    numbers = torch.cat([part.flatten() for part in parts]).cpu().numpy().astype("<f4")
    return {
        "channels": n,
        "levels": config.levels,
        "bent": config.form == "release",
        "slope": SLOPE,
        "clamp": config.clamp or 3e38,
        "pictures": len(pictures),
        "numbers": base64.b64encode(numbers.tobytes()).decode(),
    }


def filled(values: Tensor, *shape: int) -> Tensor:
    """Return float32 values with zeros after them, up to a shape."""
    missing = [extra for old, new in zip(values.shape, shape, strict=True) for extra in (new - old, 0)]
    return functional.pad(values.float(), missing[::-1])


def json_in_page(value: Any) -> str:
    """Return JSON that ends no element of HTML."""
    return json.dumps(value).replace("<", "\\u003c")
