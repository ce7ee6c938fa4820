"""The numbers that a page draws from: laid out as said, and all that an image needs."""

import base64
import json

import numpy as np
import pytest
import torch
from rounding import assert_rounded, terms_of

from polyinr_core.gallery.page import export_webgl, fits_webgl, inline_json
from polyinr_core.latents.latents import from_seeds
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.render import render_rows


def drawn_from(network: dict, image: int, points: np.ndarray) -> np.ndarray:
    """Draw points [P, 3] in float64, by the layout alone."""
    numbers = np.frombuffer(base64.b64decode(network["numbers"]), "<f4").astype(np.float64)
    n, levels = network["channels"], network["levels"]

    def take(*shape: int) -> np.ndarray:
        nonlocal numbers
        values, numbers = numbers[: np.prod(shape)].reshape(shape), numbers[np.prod(shape) :]
        return values

    def leaky_relu(v: np.ndarray) -> np.ndarray:
        return np.where(v < 0, network["slope"] * v, v)

    products = [(take(n, n), take(n)) for _ in range(levels - 1)]
    colors, bias = take(3, n), take(4)
    maps = [take(levels, 3, n) for _ in range(network["images"])][image]
    assert len(numbers) == 0
    limit = network["clamp"]
    x = leaky_relu(points @ maps[0]).clip(-limit, limit)
    for (weight, own), matrix in zip(products, maps[1:], strict=True):
        m = points @ matrix
        x = leaky_relu((x * (leaky_relu(m) if network["leaky"] else m)) @ weight.T + own).clip(-limit, limit)
    assert not x[:, 6:].any()
    return x @ colors.T + bias[:3]


@pytest.mark.parametrize(("form", "levels"), [("release", 3), ("release", 1), ("paper", 4)])
def test_the_numbers_draw_the_image(form: str, levels: int) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(form=form, levels=levels, channels=6, z_dim=4, w_dim=5)
    generator = Generator(config)
    images = [from_seeds(generator, [seed]) for seed in (0, 1)]
    network = export_webgl(generator, images)
    assert (network["channels"], network["images"]) == (8, 2)
    grid = RegularGrid(5, 5)
    points = grid.coordinates(dtype=torch.float64).numpy()
    expected = torch.cat(list(render_rows(generator.synthesis, images[1].affine[0], grid))).flatten(0, 1)
    assert expected.std() > 1e-3
    assert_rounded(drawn_from(network, 1, points), expected, terms=terms_of(config), dtype=torch.float32)


def test_large_models_stay_outside() -> None:
    assert fits_webgl(Generator(GeneratorConfig(levels=10, channels=256, w_dim=4)))
    assert not fits_webgl(Generator(GeneratorConfig(levels=10, channels=512, w_dim=4)))


def test_json_ends_no_element() -> None:
    text = inline_json({"a": "</script><!--"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--"}
