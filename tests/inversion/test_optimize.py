"""The search: the model's own images come back, the same for the same seed, from classes and spaces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_rounded, terms_to_affine

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import ConfigError, LabelError, PolyinrError
from polyinr_core.images.grid import to_uint8
from polyinr_core.inversion.invert import InversionResult, invert, render_with
from polyinr_core.inversion.loss import InversionLoss, TargetGrid, TargetImage, load_loss, target_grid
from polyinr_core.inversion.search import learning_rate, search_spaces
from polyinr_core.latents.latents import Space, from_seeds
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator

PIXELS = InversionLoss("pixels")


def grid_of(generator: Generator, side: int = 16, **options: object) -> TargetGrid:
    like = generator.mapping.w_avg
    return target_grid(generator.config, width=side, height=side, like=like, **options)  # type: ignore[arg-type]


def rendered(generator: Generator, seed: int, *, label: int | None = None, side: int = 16) -> TargetImage:
    """Return an image that the model rendered itself, as a file would hold it."""
    affine = from_seeds(generator, [seed], label=label).affine
    with torch.no_grad():
        colors = grid_of(generator, side).render(generator.synthesis, affine)[0]
    return TargetImage(f"seed {seed}", to_uint8(colors.permute(1, 2, 0)), side, side)


def inverted(
    generator: Generator,
    target: TargetImage,
    *,
    space: Space = "affine",
    steps: int = 300,
    restarts: int = 1,
    loss: InversionLoss = PIXELS,
    memory: int | None = None,
) -> InversionResult:
    return invert(Checkpoint(generator), target, space=space, steps=steps, restarts=restarts, loss=loss, memory=memory)


def test_a_image_of_the_model_comes_back_from_the_mean(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    assert inverted(generator, rendered(generator, 3), steps=150).psnr >= 40


@pytest.mark.slow
def test_a_image_of_a_larger_model_comes_back_by_features():
    """Eight levels of 64 channels, 32 pixels, by lite0 features and pixels, in affine space."""
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(levels=8, channels=64, z_dim=16, w_dim=32)).eval().requires_grad_(False)
    for parameter in generator.synthesis.parameters():
        parameter.mul_(1.7)
    generator.mapping.update_w_avg(generator.w(torch.randn(512, 16))[:, 0], None, beta=0.0)
    photo = rendered(generator, 5, side=32)
    assert photo.pixels.std() > 5
    assert inverted(generator, photo, steps=400, loss=load_loss("lite0")).psnr >= 40


def test_the_best_point_is_kept_and_a_seed_decides(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    one, two, longer = (inverted(generator, photo, steps=steps) for steps in (20, 20, 60))
    assert torch.equal(one.latents.affine, two.latents.affine)
    assert longer.loss < one.loss
    target = photo.colors(torch.zeros(()))
    start = search_spaces(generator, "affine", target, restarts=1, seed=0)[0].origin
    before = PIXELS.for_target(target)(grid_of(generator).render(generator.synthesis, start))
    assert one.loss < float(before.loss)


def test_products_in_bfloat16(tiny_checkpoint: Path):
    """Adam's steps take them, L-BFGS and the result do not, and the model keeps its own."""
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    exact = inverted(generator, photo, steps=20)
    reduced = invert(Checkpoint(generator), photo, steps=20, loss=PIXELS, product_dtype=torch.bfloat16)
    assert generator.synthesis.product_dtype is None
    assert not torch.equal(reduced.affine, exact.affine)
    again = render_with(reduced, generator.synthesis)
    assert (again.psnr, again.image.dtype) == (reduced.psnr, np.uint8)
    start = invert(Checkpoint(generator), photo, steps=1, loss=PIXELS, stop=lambda: True)
    assert reduced.psnr > start.psnr + 3


def test_a_search_that_is_stopped_keeps_its_best(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    calls = iter(range(100))
    found = invert(Checkpoint(generator), photo, steps=1000, restarts=3, loss=PIXELS, stop=lambda: next(calls) == 9)
    assert (found.is_interrupted, found.steps, found.start) == (True, 9, 0)
    assert found.loss < invert(Checkpoint(generator), photo, loss=PIXELS, stop=lambda: True).loss
    assert not inverted(generator, photo, steps=2).is_interrupted


def test_restarts_keep_the_best(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    single, several = (inverted(generator, photo, steps=15, restarts=n) for n in (1, 3))
    assert several.loss <= single.loss
    assert several.steps > 2 * single.steps


@pytest.mark.parametrize("space", ["affine", "w", "z"])
def test_each_space_holds_what_it_should(tiny_class_checkpoint: Path, space: Space):
    generator = load_checkpoint(tiny_class_checkpoint).generator
    found = inverted(generator, rendered(generator, 2, label=1), space=space, steps=12)
    latents, terms = found.latents, terms_to_affine(generator.config)
    assert latents.affine.shape == (1, 3, 3, 16)
    assert (latents.w is not None) == (space != "affine")
    assert (latents.z is not None) == (space == "z")
    if latents.w is not None:
        assert_rounded(generator.affine(latents.w), latents.affine, terms=terms)
    if latents.z is not None:
        assert_rounded(generator.w(latents.z, latents.label), latents.w, terms=terms)


def test_the_class_whose_mean_is_nearest(tiny_class_checkpoint: Path):
    generator = load_checkpoint(tiny_class_checkpoint).generator
    for label in range(4):
        affine = generator.affine(generator.mapping.w_avg[label].repeat(1, 3, 1))
        target = grid_of(generator).render(generator.synthesis, affine)
        assert search_spaces(generator, "affine", target, restarts=1, seed=0)[0].label.tolist() == [label]
    with pytest.raises(LabelError):
        search_spaces(generator, "affine", target, restarts=1, seed=0, label=7)


def test_chunks_change_nothing_that_matters(tiny_checkpoint: Path):
    """In float64, as Adam's first steps are the signs of gradients, also of what rounding leaves of nought."""
    generator = load_checkpoint(tiny_checkpoint).generator.double()
    photo = rendered(generator, 4, side=48)
    little = grid_of(generator, 48, memory=2**20)
    assert 0 < little.chunk < 48**2
    assert grid_of(generator, 48).chunk == 0
    plain, replayed = (inverted(generator, photo, steps=5, memory=m) for m in (None, 2**20))
    assert replayed.loss == pytest.approx(plain.loss, rel=1e-6)


def test_a_window_moves_the_image(tiny_checkpoint: Path):
    """A photo in the left half: there the image matches it, drawn with the same window."""
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    inside = invert(Checkpoint(generator), photo, loss=PIXELS, window=(0.0, 0.0, 0.5, 1.0), steps=150)
    outside = render_with(replace(inside, grid=grid_of(generator)), generator.synthesis)
    assert inside.psnr > outside.psnr + 5


def test_the_rate_rises_and_falls():
    rates = np.array([learning_rate(step, 100) for step in range(101)])
    assert rates.argmax() in (4, 5)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_one_pixel(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = TargetImage("dot", np.full((1, 1, 3), 100, dtype=np.uint8), 1, 1)
    value = inverted(generator, photo, steps=100)
    assert value.psnr > 40
    assert value.ssim is None


def test_no_numbers_and_no_steps(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = rendered(generator, 4)
    with pytest.raises(ConfigError, match="0 steps"):
        inverted(generator, photo, steps=0)
    generator.synthesis.to_rgb.bias.data.fill_(float("nan"))
    with pytest.raises(PolyinrError, match="NaN or Inf"):
        inverted(generator, photo, steps=3)
