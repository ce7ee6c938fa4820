"""The search: the model's own images come back, the same for the same seed, from classes and spaces."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_rounded, terms_to_affine

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import ConfigError, LabelError, PolyinrError
from polyinr_core.images.quantize import to_uint8
from polyinr_core.inversion.invert import Found, Space, charts, rate_at, search
from polyinr_core.inversion.loss import Objective, Score, choose_objective, score
from polyinr_core.inversion.target import Canvas, Photo, canvas_for
from polyinr_core.latents.latents import from_seeds
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator

PIXELS = Objective("pixels")


def canvas_of(generator: Generator, side: int = 16, **options: object) -> Canvas:
    like = generator.mapping.w_avg
    return canvas_for(generator.config, width=side, height=side, like=like, **options)  # type: ignore[arg-type]


def drawn(generator: Generator, seed: int, *, label: int | None = None, side: int = 16) -> Photo:
    """Return an image that the model drew itself, as a file would hold it."""
    affine = from_seeds(generator, [seed], label=label).affine
    with torch.no_grad():
        colors = canvas_of(generator, side).draw(generator.synthesis, affine)[0]
    return Photo(f"seed {seed}", to_uint8(colors.permute(1, 2, 0)), side, side)


def inverted(
    generator: Generator,
    photo: Photo,
    *,
    space: Space = "affine",
    steps: int = 300,
    restarts: int = 1,
    objective: Objective = PIXELS,
    **options: object,
) -> tuple[Found, Score]:
    target = photo.target(generator.mapping.w_avg)
    canvas, aim = canvas_of(generator, photo.width, **options), objective.aim(target)
    starts = charts(generator, space, target, restarts=restarts, seed=0)
    found = search(starts, canvas, aim, steps=steps)
    return found, score(generator.synthesis, found.latents.affine, photo, canvas, aim)[0]


def test_a_image_of_the_model_comes_back_from_the_mean(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    _, value = inverted(generator, drawn(generator, 3), steps=150)
    assert value.psnr >= 40


@pytest.mark.slow
def test_a_image_of_a_larger_model_comes_back_by_features():
    """Eight levels of 64 channels, 32 pixels, by lite0 features and pixels, in affine space."""
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(levels=8, channels=64, z_dim=16, w_dim=32)).eval().requires_grad_(False)
    for parameter in generator.synthesis.parameters():
        parameter.mul_(1.7)
    generator.mapping.update_w_avg(generator.w(torch.randn(512, 16))[:, 0], None, beta=0.0)
    photo = drawn(generator, 5, side=32)
    assert photo.pixels.std() > 5
    _, value = inverted(generator, photo, steps=400, objective=choose_objective("lite0"))
    assert value.psnr >= 40


def test_the_best_point_is_kept_and_a_seed_decides(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = drawn(generator, 4)
    one, two, longer = (inverted(generator, photo, steps=steps)[0] for steps in (20, 20, 60))
    assert torch.equal(one.latents.affine, two.latents.affine)
    assert longer.loss < one.loss
    far = charts(generator, "affine", photo.target(torch.zeros(())), restarts=1, seed=0)
    before = PIXELS.aim(photo.target(torch.zeros(()))).terms(
        canvas_of(generator).draw(generator.synthesis, far[0].origin)
    )
    assert one.loss < float(before.loss)


def test_restarts_keep_the_best(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = drawn(generator, 4)
    single, several = (inverted(generator, photo, steps=15, restarts=n)[0] for n in (1, 3))
    assert several.loss <= single.loss
    assert several.steps > 2 * single.steps


@pytest.mark.parametrize("space", ["affine", "w", "z"])
def test_each_space_holds_what_it_should(tiny_class_checkpoint: Path, space: Space):
    generator = load_checkpoint(tiny_class_checkpoint).generator
    found, _ = inverted(generator, drawn(generator, 2, label=1), space=space, steps=12)
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
        target = canvas_of(generator).draw(generator.synthesis, affine)
        assert charts(generator, "affine", target, restarts=1, seed=0)[0].label.tolist() == [label]
    with pytest.raises(LabelError):
        charts(generator, "affine", target, restarts=1, seed=0, label=7)


def test_chunks_change_nothing_that_matters(tiny_checkpoint: Path):
    """In float64, as Adam's first steps are the signs of gradients, also of what rounding leaves of nought."""
    generator = load_checkpoint(tiny_checkpoint).generator.double()
    photo = drawn(generator, 4, side=48)
    little = canvas_of(generator, 48, memory=2**20)
    assert 0 < little.chunk < 48**2
    assert canvas_of(generator, 48).chunk == 0
    plain, replayed = (inverted(generator, photo, steps=5, memory=m)[0] for m in (None, 2**20))
    assert replayed.loss == pytest.approx(plain.loss, rel=1e-6)


def test_a_window_moves_the_image(tiny_checkpoint: Path):
    """A photo in the left half: there the image matches it, drawn with the same window."""
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = drawn(generator, 4)
    target = photo.target(torch.zeros(()))
    bounds = (0.0, 0.0, 0.5, 1.0)
    canvas = canvas_of(generator, bounds=bounds)
    starts = charts(generator, "affine", target, restarts=1, seed=0, bounds=bounds)
    found = search(starts, canvas, PIXELS.aim(target), steps=150)
    inside = score(generator.synthesis, found.latents.affine, photo, canvas, PIXELS.aim(target))[0]
    outside = score(generator.synthesis, found.latents.affine, photo, canvas_of(generator), PIXELS.aim(target))[0]
    assert inside.psnr > outside.psnr + 5


def test_the_rate_rises_and_falls():
    rates = np.array([rate_at(step, 100) for step in range(101)])
    assert rates.argmax() in (4, 5)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_one_pixel(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = Photo("dot", np.full((1, 1, 3), 100, dtype=np.uint8), 1, 1)
    _, value = inverted(generator, photo, steps=100)
    assert value.psnr > 40
    assert value.ssim is None


def test_no_numbers_and_no_steps(tiny_checkpoint: Path):
    generator = load_checkpoint(tiny_checkpoint).generator
    photo = drawn(generator, 4)
    with pytest.raises(ConfigError, match="0 steps"):
        inverted(generator, photo, steps=0)
    generator.synthesis.to_rgb.bias.data.fill_(float("nan"))
    with pytest.raises(PolyinrError, match="no numbers"):
        inverted(generator, photo, steps=3)
