"""Checkpointed gradients against plain ones, in float64: only the order of the sums differs, so 1e-10 is ample."""

import pytest
import torch
from rounding import assert_rounded, terms_of
from torch import Tensor

from polyinr_core.errors import ConfigError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, render_checkpointed
from polyinr_core.models.layers import chunk_slices

IMAGES, SIDE = 3, 6
CPU = torch.device("cpu")


def small(form: str = "release", clamp: float | None = 0.3) -> Generator:
    """A generator whose features reach the clamp."""
    torch.manual_seed(1)
    return Generator(GeneratorConfig(form=form, levels=4, channels=16, z_dim=8, w_dim=12, clamp=clamp)).double()


def inputs(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return affine parameters large enough to reach the clamp, the coordinates, and a gradient of the images."""
    with torch.no_grad():
        affine = generator.affine(generator.w(torch.randn(IMAGES, 8, dtype=torch.float64))) * 8
    coordinates = RegularGrid(SIDE, SIDE).coordinates(dtype=torch.float64, device=CPU)
    return affine.requires_grad_(True), coordinates, torch.randn(IMAGES, SIDE * SIDE, 3, dtype=torch.float64)


def gradients(colors: Tensor, grad: Tensor, asked: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(colors, asked, grad))


@pytest.mark.parametrize("chunk", [1, 7, 36, 50, 72, 1000])
@pytest.mark.parametrize(("form", "clamp"), [("release", 0.3), ("release", None), ("paper", None)])
def test_gradients_are_the_plain_ones(form: str, clamp: float | None, chunk: int) -> None:
    generator = small(form, clamp)
    synthesis = generator.synthesis
    affine, coordinates, grad = inputs(generator)
    asked = [affine, *synthesis.parameters()]
    plain, chunked = synthesis(affine, coordinates), render_checkpointed(synthesis, affine, coordinates, chunk=chunk)
    torch.testing.assert_close(chunked, plain, atol=1e-12, rtol=0)
    for ours, expected in zip(gradients(chunked, grad, asked), gradients(plain, grad, asked), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


def test_the_clamp_is_reached() -> None:
    """The cases above would miss a wrong clamp if no feature reached it."""
    affine, coordinates, _ = inputs(small())
    assert not torch.equal(small().synthesis(affine, coordinates), small(clamp=None).synthesis(affine, coordinates))


def test_coordinates_of_each_image() -> None:
    generator = small()
    affine, _, grad = inputs(generator)
    given = torch.rand(IMAGES, SIDE * SIDE, 3, dtype=torch.float64)
    plain = generator.synthesis(affine, given)
    chunked = render_checkpointed(generator.synthesis, affine, given, chunk=10)
    for ours, expected in zip(gradients(chunked, grad, [affine]), gradients(plain, grad, [affine]), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


def test_a_gradient_of_coordinates_is_refused() -> None:
    generator = small()
    affine, coordinates, _ = inputs(generator)
    with pytest.raises(ConfigError, match=r"^coordinates have no gradient in chunks;[^\n]*$"):
        render_checkpointed(generator.synthesis, affine, coordinates.requires_grad_(), chunk=10)


@pytest.mark.parametrize("which", ["affine", "weights", "one weight"])
def test_only_some_need_gradients(which: str) -> None:
    generator = small()
    synthesis = generator.synthesis
    affine, coordinates, grad = inputs(generator)
    synthesis.requires_grad_(which == "weights")
    synthesis.products[2].bias.requires_grad_(which != "affine")
    affine.requires_grad_(which == "affine")
    asked = [t for t in (affine, *synthesis.parameters()) if t.requires_grad]
    chunked = gradients(render_checkpointed(synthesis, affine, coordinates, chunk=20), grad, asked)
    plain = gradients(synthesis(affine, coordinates), grad, asked)
    for ours, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


def test_accumulates_into_the_weights_like_any_function() -> None:
    """Through mapping and affine networks, twice, as micro-batches do."""
    generator = small()
    z = torch.randn(IMAGES, 8, dtype=torch.float64)
    _, coordinates, grad = inputs(generator)
    for chunk in (None, 11):
        generator.zero_grad()
        for _ in range(2):
            affine = generator.affine(generator.w(z))
            colors = (
                generator.synthesis(affine, coordinates)
                if chunk is None
                else render_checkpointed(generator.synthesis, affine, coordinates, chunk=chunk)
            )
            colors.backward(grad)
        found = {name: p.grad.clone() for name, p in generator.named_parameters() if p.grad is not None}
        if chunk is None:
            expected = found
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-10, rtol=1e-10, msg=name)


def test_without_gradients() -> None:
    generator = small()
    affine, coordinates, _ = inputs(generator)
    with torch.no_grad():
        colors = render_checkpointed(generator.synthesis, affine, coordinates, chunk=20)
    assert not colors.requires_grad
    torch.testing.assert_close(colors, generator.synthesis(affine, coordinates), atol=1e-12, rtol=0)


def test_weights_changed_before_the_backward_pass_are_refused() -> None:
    """As everywhere in PyTorch: the gradient would be that of another function."""
    generator = small()
    affine, coordinates, grad = inputs(generator)
    colors = render_checkpointed(generator.synthesis, affine, coordinates, chunk=20)
    with torch.no_grad():
        generator.synthesis.to_rgb.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        colors.backward(grad)


def test_autocast_applies_to_the_recomputation() -> None:
    """Products in bfloat16 forward and backward."""
    generator = small().float()
    synthesis = generator.synthesis
    affine, coordinates = torch.randn(2, 4, 3, 16, requires_grad=True), torch.rand(9, 3)
    found = []
    for render in (synthesis, lambda a, p: render_checkpointed(synthesis, a, p, chunk=2 * 9)):  # products of one shape
        with torch.autocast("cpu", torch.bfloat16):
            colors = render(affine, coordinates)
        assert colors.dtype == torch.bfloat16
        found.append(gradients(colors, torch.ones_like(colors), [affine])[0])
    assert_rounded(found[0], found[1], terms=terms_of(synthesis.config))


def test_a_chunk_bounds_the_pixels_evaluated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward."""
    generator = small()
    affine, coordinates, grad = inputs(generator)
    sizes = []
    plain = type(generator.synthesis).forward

    def counted(self: torch.nn.Module, affine: Tensor, coordinates: Tensor) -> Tensor:
        sizes.append(len(affine) * coordinates.shape[-2])
        return plain(self, affine, coordinates)

    monkeypatch.setattr(type(generator.synthesis), "forward", counted)
    render_checkpointed(generator.synthesis, affine, coordinates, chunk=10).backward(grad)
    assert max(sizes) == 10
    assert sum(sizes) == 2 * IMAGES * SIDE * SIDE


@pytest.mark.parametrize("chunk", [1, 5, 12, 13, 24, 25, 100])
def test_chunks_cover_every_pixel_once(chunk: int) -> None:
    seen = torch.zeros(4, 12)
    for images, pixels in chunk_slices(4, 12, chunk):
        assert seen[images, pixels].numel() <= chunk
        seen[images, pixels] += 1
    assert (seen == 1).all()


def test_an_empty_chunk() -> None:
    generator = small()
    affine, coordinates, _ = inputs(generator)
    with pytest.raises(ConfigError, match=r"^[^\n]*at least 1[^\n]*$"):
        render_checkpointed(generator.synthesis, affine, coordinates, chunk=0)
