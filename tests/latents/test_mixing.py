"""Mixing levels, and images stacked for a blend."""

from pathlib import Path

import pytest
import torch
from rounding import assert_rounded

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.latents.interpolation import mix, stack_affine
from polyinr_core.latents.latents import Latents, from_seeds, to_affine
from polyinr_core.models.generator import Generator


@pytest.fixture(scope="module")
def generator(tiny_class_checkpoint: Path) -> Generator:
    return load_checkpoint(tiny_class_checkpoint).generator


@pytest.fixture(scope="module")
def pair(generator: Generator) -> tuple[Latents, Latents]:
    return from_seeds(generator, [5], label=0), from_seeds(generator, [6], label=2)


@pytest.mark.parametrize("space", ["affine", "w"])
def test_all_levels_are_the_source_and_strength_0_the_target(generator: Generator, pair, space):
    source, target = pair
    everything = to_affine(generator, mix(target, source, levels=range(3), space=space))
    assert torch.equal(everything.affine, source.affine)
    nothing = to_affine(generator, mix(target, source, levels=range(3), strength=0.0, space=space))
    assert torch.equal(nothing.affine, target.affine)


def test_affine_levels_are_independent(generator: Generator, pair):
    source, target = pair
    result = mix(target, source, levels=[1])
    assert torch.equal(result.affine[:, 1], source.affine[:, 1])
    assert torch.equal(result.affine[:, [0, 2]], target.affine[:, [0, 2]])
    assert result.w is None


def test_w_changes_later_levels(generator: Generator, pair):
    """The release's chain hands level 1's coordinates on to level 2."""
    source, target = pair
    result = to_affine(generator, mix(target, source, levels=[1], space="w"))
    assert torch.equal(result.w[:, 1], source.w[:, 1])
    assert torch.equal(result.affine, generator.affine_each(result.w))
    assert torch.equal(result.affine[:, 0], target.affine[:, 0])
    assert not torch.allclose(result.affine[:, 2], target.affine[:, 2])


def test_strength(generator: Generator, pair):
    """Oracle: target + strength (source - target); beyond 1 it goes on."""
    source, target = pair
    for strength in (0.25, 1.5, -0.5):
        result = mix(target, source, levels=[0, 2], strength=strength)
        expected = target.affine + strength * (source.affine - target.affine)
        assert_rounded(result.affine[:, [0, 2]], expected[:, [0, 2]], terms=3)


def test_the_class_stays_if_both_have_it(generator: Generator, pair):
    source, target = pair
    assert mix(target, source, levels=[0]).label is None
    same = from_seeds(generator, [7], label=2)
    assert int(mix(target, same, levels=[0]).label) == 2


def test_refusals(generator: Generator, pair):
    source, target = pair
    with pytest.raises(RequestError, match="not w"):
        mix(target, Latents(affine=source.affine), levels=[0], space="w")
    for strength in (float("nan"), float("inf")):
        with pytest.raises(RequestError, match="strength"):
            mix(target, source, levels=[0], strength=strength)


def test_stack_affine(pair):
    source, target = pair
    maps = stack_affine([source, target]).affine
    assert maps.shape == (1, 3, 6, 16)
    assert torch.equal(maps[:, :, :3], source.affine)
    assert torch.equal(maps[:, :, 3:], target.affine)
