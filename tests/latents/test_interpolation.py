"""Walks: where the frames stand, their ends, the sphere, and the zoom on the way."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rounding import assert_rounded, terms_to_affine

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.latents.interpolation import (
    FramePosition,
    LatentPath,
    frame_positions,
    interpolate,
    slerp,
    zoom,
    zoom_at,
)
from polyinr_core.latents.latents import Latents, concatenate, from_seeds, to_affine
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator


@pytest.fixture(scope="module")
def generator(tiny_class_checkpoint: Path) -> Generator:
    return load_checkpoint(tiny_class_checkpoint).generator


def test_a_walk_goes_from_end_to_end():
    steps = frame_positions(3, 5)
    assert [(s.first, s.second, s.fraction) for s in steps] == [
        (0, 1, 0.0),
        (0, 1, 0.5),
        (1, 2, 0.0),
        (1, 2, 0.5),
        (1, 2, 1.0),
    ]
    assert [s.progress for s in steps] == [0, 0.25, 0.5, 0.75, 1]


def test_a_loop_returns_and_doubles_no_frame():
    steps = frame_positions(2, 6, loop=True)
    assert [(s.first, s.second) for s in steps] == [(0, 1)] * 3 + [(1, 0)] * 3
    assert [s.fraction for s in steps] == pytest.approx([0, 1 / 3, 2 / 3] * 2)
    assert len(set(steps)) == 6


@pytest.mark.parametrize("frames", [2, 3, 7, 60, 997])
@pytest.mark.parametrize("loop", [False, True])
def test_frames_in_all(frames: int, loop: bool):
    steps = frame_positions(2, frames, loop=loop)
    assert len(steps) == frames
    assert steps[0].fraction == 0
    assert (steps[-1].fraction == 1) == (not loop)


def test_smooth_easing_rises_and_rests_at_the_images():
    parts = [s.fraction for s in frame_positions(2, 101, easing="smooth")]
    steps = [b - a for a, b in pairwise(parts)]
    assert min(steps) > 0
    assert (parts[0], parts[50], parts[100]) == (0, pytest.approx(0.5), 1)
    assert max(steps[0], steps[-1]) < 0.05 * max(steps)
    assert parts == pytest.approx([1 - part for part in reversed(parts)])


@pytest.mark.parametrize(("images", "frames"), [(1, 5), (0, 5), (3, 2), (2, 0)])
def test_too_few(images: int, frames: int):
    with pytest.raises(RequestError, match=r"too few|two images"):
        frame_positions(images, frames)


@pytest.mark.parametrize(
    ("space", "curve"), [("z", "spherical"), ("z", "linear"), ("w", "linear"), ("affine", "linear")]
)
def test_ends_are_the_images(generator: Generator, space, curve):
    """To the last bit, from both sides."""
    images = [from_seeds(generator, [seed], label=1, psi=0.7) for seed in (3, 8)]
    walk = LatentPath.through(images, space=space, curve=curve)
    for image, part in zip(images, (0.0, 1.0), strict=True):
        frame = to_affine(generator, walk.at(FramePosition(0, 1, part, part)))
        assert torch.equal(frame.affine, image.affine)
        assert int(frame.label) == 1


def test_halfway(generator: Generator):
    """Oracle: the mean, in the space walked through."""
    a, b = (from_seeds(generator, [seed]) for seed in (0, 1))
    step = FramePosition(0, 1, 0.5, 0.5)
    affine = to_affine(generator, LatentPath.through([a, b], space="affine", curve="linear").at(step))
    assert_rounded(affine.affine, (a.affine + b.affine) / 2, terms=3)
    w = to_affine(generator, LatentPath.through([a, b], space="w", curve="linear").at(step))
    assert_rounded(w.w, (a.w + b.w) / 2, terms=3)
    assert torch.equal(w.affine, generator.affine_each(w.w))
    assert not torch.allclose(w.affine, affine.affine)


def test_classes(generator: Generator):
    """z alone has no way between classes; elsewhere a frame between two has none."""
    images = [from_seeds(generator, [seed], label=seed) for seed in (0, 1)]
    with pytest.raises(RequestError, match=r"classes 0, 1.*in w"):
        LatentPath.through(images, space="z", curve="spherical")
    walk = LatentPath.through(images, space="w", curve="linear")
    assert walk.at(FramePosition(0, 1, 0.3, 0.3)).label is None


def test_what_is_not_held(generator: Generator):
    whole = from_seeds(generator, [0])
    with pytest.raises(RequestError, match="hold affine, not w; choose the space affine"):
        LatentPath.through([whole, Latents(affine=whole.affine)], space="w", curve="linear")
    with pytest.raises(RequestError, match="spherical"):
        LatentPath.through([whole, whole], space="w", curve="spherical")


def test_truncation_goes_along_in_z(generator: Generator):
    """A walk between an image's psi 1 and psi 0 is the walk of psi."""
    a, b = (from_seeds(generator, [4], label=2, psi=psi) for psi in (1.0, 0.0))
    frame = to_affine(
        generator, LatentPath.through([a, b], space="z", curve="linear").at(FramePosition(0, 1, 0.25, 0.25))
    )
    expected = from_seeds(generator, [4], label=2, psi=0.75).affine
    assert_rounded(frame.affine, expected, terms=terms_to_affine(generator.config))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_spherical_keeps_the_length_and_turns_evenly(part: float):
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 64, generator=rng, dtype=torch.float64) for _ in range(2))
    a, b = a / a.norm(dim=1, keepdim=True), 3 * b / b.norm(dim=1, keepdim=True)
    between = slerp(a, b, part)
    assert between.norm(dim=1) == pytest.approx(torch.full((4,), 1 + 2 * part, dtype=torch.float64), rel=1e-12)
    whole = torch.acos((a * b).sum(dim=1) / 3)
    turned = torch.acos(((a * between).sum(dim=1) / between.norm(dim=1)).clamp(-1, 1))
    assert turned == pytest.approx(part * whole, abs=2e-8)


def test_spherical_at_its_limits():
    a = torch.tensor([[1.0, 0.0]])
    assert torch.equal(slerp(a, a, 0.3), a)
    assert slerp(a, 2 * a, 0.5) == pytest.approx(1.5 * a)
    nearly = torch.tensor([[1.0, 1e-5]])
    assert slerp(a, nearly, 0.5) == pytest.approx((a + nearly) / 2, abs=1e-7)
    with pytest.raises(RequestError, match="opposite"):
        slerp(a, -a, 0.5)


def test_zoom_is_folded_into_the_maps_exactly(generator: Generator):
    """Oracle: the same maps drawn over the zoomed window; float64, 1e-12."""
    generator = load_like(generator).double()
    image = from_seeds(generator, [2])
    center, factor = (0.3, 0.8), 3.0
    x, y = center
    bounds = (x - x / factor, y - y / factor, x + (1 - x) / factor, y + (1 - y) / factor)
    drawn = [
        generator.synthesis(latents.affine, grid.coordinates(dtype=torch.float64))
        for latents, grid in (
            (zoom(image, factor, center), RegularGrid(8, 8)),
            (image, RegularGrid(8, 8, bounds)),
        )
    ]
    assert (drawn[0] - drawn[1]).abs().max() < 1e-12
    assert zoom(image, 1.0, center) is image


def load_like(generator: Generator) -> Generator:
    other = Generator(generator.config)
    other.load_state_dict(generator.state_dict())
    return other.requires_grad_(False)


def test_zoom_rises_by_one_factor():
    factors = [zoom_at(step, 0.5, 8.0) for step in frame_positions(2, 9)]
    assert (factors[0], factors[-1]) == (0.5, pytest.approx(8))
    assert [math.log(b / a) for a, b in pairwise(factors)] == pytest.approx([math.log(16) / 8] * 8)


def test_images_of_two_dtypes(generator: Generator):
    """The wider one, and the generator's after `Latents.to`."""
    a = from_seeds(generator, [0])
    b = replace(from_seeds(generator, [1]), affine=from_seeds(generator, [1]).affine.double())
    position = FramePosition(0, 1, 0.5, 0.5)
    assert LatentPath.through([a, b], space="affine").at(position).affine.dtype == torch.float64
    images = [image.to(generator.mapping.w_avg) for image in (a, b)]
    assert LatentPath.through(images, space="affine").at(position).affine.dtype == torch.float32


@pytest.mark.parametrize("space", ["z", "w", "affine"])
def test_interpolate(generator: Generator, space):
    """All frames at once, from latents of several images or from a list of them."""
    images = from_seeds(generator, [3, 8, 5], label=1)
    frames = interpolate(images, steps=7, space=space)
    assert len(frames) == 7
    assert frames.space == space
    assert torch.equal(to_affine(generator, frames[3]).affine, images[1].affine)
    again = interpolate([images[i] for i in range(3)], steps=7, space=space)
    assert torch.equal(again.tensor, frames.tensor)
    looped = interpolate(images, steps=9, space=space, loop=True, easing="smooth")
    assert torch.equal(looped[3].tensor, getattr(images[1], space))


def test_interpolate_does_not_lose_psi(generator: Generator):
    images = [from_seeds(generator, [seed], label=1, psi=psi) for seed, psi in ((1, 0.5), (2, 1.0))]
    assert interpolate(concatenate([images[0]] * 2), steps=2, space="z").psi == 0.5
    with pytest.raises(RequestError, match="psi"):
        interpolate(images, steps=5, space="z")
