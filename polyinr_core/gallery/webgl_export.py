"""Export a small model for the gallery's live rendering in WebGL2 or JavaScript."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.latents.latents import Latents, in_space
from polyinr_core.models.generator import Generator
from polyinr_core.models.layers import SLOPE

MAX_WEIGHTS = 750_000  # of the synthesis network: 3 MB, 4 MB in base64
CHANNELS_PER_TEXEL = 4


def fits_webgl(generator: Generator) -> bool:
    """Return whether a model is small enough to be part of a page."""
    return sum(parameter.numel() for parameter in generator.synthesis.parameters()) <= MAX_WEIGHTS


@torch.no_grad()
def export_webgl(generator: Generator, images: Sequence[Latents]) -> dict[str, Any]:
    """Return a model and images (latents of N = 1 with affine) as JSON values, which assets/gallery_render.js reads.

    `numbers` is little-endian float32 in base64: weights [n, n] and biases [n] of each level above 0; to_rgb's weights
    [3, n] and biases [4]; then the affine parameters [L, 3, n] of each image, with the linear layer of level 0 folded
    into its affine parameters. n is padded with zeros to a multiple of 4.
    """
    config, synthesis = generator.config, generator.synthesis
    n = -(-config.channels // CHANNELS_PER_TEXEL) * CHANNELS_PER_TEXEL
    tensors = []
    for product in list(synthesis.products)[1:]:
        assert isinstance(product, nn.Linear)
        tensors += [_padded(product.weight, n, n), _padded(product.bias, n)]
    tensors += [_padded(synthesis.to_rgb.weight, 3, n), _padded(synthesis.to_rgb.bias, CHANNELS_PER_TEXEL)]
    for image in images:
        affine = in_space(image, "affine").to(synthesis.to_rgb.weight)
        folded = torch.cat([synthesis.fold_first(affine[:, 0])[:, None], affine[:, 1:]], dim=1)
        tensors.append(_padded(folded[0], config.levels, 3, n))
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy().astype("<f4")
    return {
        "channels": n,
        "levels": config.levels,
        "leaky": config.form == "release",
        "slope": SLOPE,
        "clamp": config.clamp or 3e38,
        "images": len(images),
        "numbers": base64.b64encode(numbers.tobytes()).decode(),
    }


def _padded(values: Tensor, *shape: int) -> Tensor:
    """Return values in float32, padded with zeros to a shape."""
    padding = [extra for old, new in zip(values.shape, shape, strict=True) for extra in (new - old, 0)]
    return functional.pad(values.float(), padding[::-1])
