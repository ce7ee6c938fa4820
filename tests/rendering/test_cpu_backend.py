"""The CPU backend against the definition in float64, and against the network in any format."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rounding import assert_rounded, terms_of
from test_forms import literal
from torch import Tensor

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import cpu as cpu_backend
from polyinr_core.rendering.backends import in_precision, select_backend
from polyinr_core.rendering.backends.cpu import CpuBackend
from polyinr_core.rendering.render import render_rows

CPU = torch.device("cpu")


def lively(form: str = "release", *, clamp: float | None = 256.0, levels: int = 4) -> tuple[Generator, Tensor]:
    """A network whose colors fill the range, and the w of two images."""
    torch.manual_seed(1)
    config = GeneratorConfig(form=form, levels=levels, channels=16, z_dim=8, w_dim=12, clamp=clamp)
    generator = Generator(config).eval()
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2)
        return generator, generator.w(3 * torch.randn(2, 8))


def some_points(count: int = 101) -> Tensor:
    return torch.cat([3 * torch.rand(count, 2) - 1, torch.ones(count, 1)], dim=1)


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("form", ["release", "paper"])
def test_draws_the_definition(form: str, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 points, stripes of 8, and what is left; 1e-12 leaves room for another order of additions."""
    monkeypatch.setattr(cpu_backend, "CHUNK_NUMBERS", 32 * 16)
    monkeypatch.setattr(cpu_backend, "STRIPE_NUMBERS", 8 * 16 // torch.get_num_threads())
    generator, w = lively(form, levels=levels)
    generator, w, points = generator.double(), w.double(), some_points().double()
    with torch.no_grad():
        expected = literal(generator, w, points)
        found = select_backend(generator.synthesis, CPU)(generator.affine(w), points)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("form", "clamp"), [("release", 256.0), ("release", 0.05), ("release", None), ("paper", None)])
def test_draws_what_the_network_draws(form: str, clamp: float | None, dtype: torch.dtype) -> None:
    """float32 has 24 bits, bfloat16 8: 4 levels in another order of roundings."""
    generator, w = lively(form, clamp=clamp)
    network, points = in_precision(generator.synthesis, dtype), some_points()
    with torch.no_grad():
        affine = generator.affine(w)
        expected = network(affine, points)
        unclamped = lively(form, clamp=None)[0].synthesis(affine, points)
    found = CpuBackend(network)(affine, points)
    assert (clamp == 0.05) == ((expected - unclamped).norm() > 0.1 * unclamped.norm())
    if dtype == torch.float32:
        assert_rounded(found, expected, terms=terms_of(generator.config))
    else:  # a product takes 8 bits and leaves 8: where a sum is near the middle of two, either may come out
        torch.testing.assert_close(found, expected, atol=2**-6 * float(expected.abs().max()), rtol=0)


def test_points_of_their_own_and_blends() -> None:
    generator, w = lively()
    own = torch.stack([some_points(), some_points()])
    with torch.no_grad():
        affine = generator.affine(w)
        terms = terms_of(generator.config)
        assert_rounded(CpuBackend(generator.synthesis)(affine, own), generator.synthesis(affine, own), terms=terms)
        blend, shares = affine.transpose(0, 1).flatten(1, 2)[None], torch.rand(len(own[0]), 1)
        points = torch.cat([shares * own[0], (1 - shares) * own[0]], dim=1)  # [P, 6]
        found, expected = (draw(blend, points) for draw in (CpuBackend(generator.synthesis), generator.synthesis))
    assert_rounded(found, expected, terms=2 * terms)
    assert not torch.allclose(found[0], expected.new_zeros(3), atol=0.1)


@pytest.mark.parametrize(("images", "count"), [(2, 0), (0, 5), (1, 1)])
def test_nothing_to_draw_and_a_single_point(images: int, count: int) -> None:
    generator, w = lively()
    points = some_points(count)
    with torch.no_grad():
        affine = generator.affine(w)[:images]
        expected = generator.synthesis(affine, points)
    found = CpuBackend(generator.synthesis)(affine, points)
    assert found.shape == (images, count, 3)
    assert_rounded(found, expected, terms=terms_of(generator.config), scale=1.0)


def test_a_change_of_the_weights_shows() -> None:
    """A backend that is kept looks at the network as it is."""
    generator, w = lively()
    backend, points = CpuBackend(generator.synthesis), some_points()
    with torch.no_grad():
        affine = generator.affine(w)
        before = backend(affine, points)
        generator.synthesis.products[2].weight.neg_()
        assert not torch.allclose(backend(affine, points), before, atol=0.1)
        assert_rounded(backend(affine, points), generator.synthesis(affine, points), terms=terms_of(generator.config))


def test_threads_do_not_draw_over_each_other() -> None:
    generator, w = lively()
    backend, points = CpuBackend(generator.synthesis), some_points(5000)
    with torch.no_grad():
        images = generator.affine(w).split(1)
    alone = [backend(image, points) for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(backend, images * 4, [points] * 8))
    assert not torch.equal(*alone)
    assert all(torch.equal(one, other) for one, other in zip(alone * 4, together, strict=True))


def test_what_is_chosen() -> None:
    network = lively()[0].synthesis
    chosen = select_backend(network, CPU)
    assert isinstance(chosen, CpuBackend)
    assert select_backend(chosen, CPU) is chosen
    assert select_backend(network, torch.device("meta")) is network
    network.product_dtype = torch.bfloat16
    assert select_backend(network, CPU) is network


def test_rendering_uses_the_cpu_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, w = lively()
    with torch.no_grad():
        affine = generator.affine(w)[0]
    monkeypatch.setattr(type(generator.synthesis), "forward", None)
    assert len(torch.cat(list(render_rows(generator.synthesis, affine, RegularGrid(5, 4))))) == 4
