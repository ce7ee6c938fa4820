"""From z to w to affine maps."""

import copy
from pathlib import Path

import pytest
import torch
from rounding import assert_rounded, terms_to_affine

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import FileError, LabelError, RequestError
from polyinr_core.latents.latents import Latents, check_latents, from_seeds, to_affine, with_label
from polyinr_core.models.generator import Generator


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> Generator:
    return load_checkpoint(tiny_checkpoint).generator


@pytest.fixture(scope="module")
def conditional(tiny_class_checkpoint: Path) -> Generator:
    return load_checkpoint(tiny_class_checkpoint).generator


def test_a_seed_in_all_three_spaces(plain: Generator):
    """Oracle: the generator's own two steps, in float64."""
    latents = from_seeds(plain, [7], psi=0.7)
    wide, terms = copy.deepcopy(plain).double(), terms_to_affine(plain.config)
    assert_rounded(latents.w, wide.w(latents.z.double(), psi=0.7), terms=terms)
    assert_rounded(latents.affine, wide.affine(latents.w.double()), terms=terms)
    assert (latents.seeds, latents.psi, latents.label) == ((7,), 0.7, None)


def test_psi_zero_is_the_mean_of_the_class(conditional: Generator):
    for label in range(4):
        latents = from_seeds(conditional, [3], label=label, psi=0.0)
        assert torch.equal(latents.w, conditional.mapping.w_avg[label].expand(1, 3, -1))


def test_a_seed_draws_its_class(conditional: Generator):
    labels = {int(from_seeds(conditional, [seed]).label) for seed in range(20)}
    assert labels == {0, 1, 2, 3}


def test_no_label_where_no_classes_are(plain: Generator):
    with pytest.raises(LabelError, match="no classes"):
        from_seeds(plain, [0], label=1)


def test_kept_latents_stay_as_kept(plain: Generator):
    latents = from_seeds(plain, [7], psi=0.7)
    assert to_affine(plain, latents) is latents
    without_maps = Latents(z=latents.z, w=latents.w, psi=0.7)
    assert torch.equal(to_affine(plain, without_maps).affine, latents.affine)
    from_z = Latents(z=latents.z, psi=0.7)
    assert torch.equal(to_affine(plain, from_z).affine, latents.affine)


def test_psi_starts_from_z_or_from_w(plain: Generator):
    """Oracle: truncating twice multiplies psi."""
    latents = from_seeds(plain, [7], psi=0.7)
    anew = to_affine(plain, latents, psi=0.5)
    assert torch.equal(anew.w, from_seeds(plain, [7], psi=0.5).w)
    twice = to_affine(plain, Latents(w=latents.w, psi=0.7), psi=0.5)
    assert_rounded(twice.w, from_seeds(plain, [7], psi=0.35).w, terms=6)
    assert twice.psi == pytest.approx(0.35)


@pytest.mark.parametrize("psi", [float("nan"), float("inf"), 1e9])
def test_psi_that_is_no_number(plain: Generator, psi: float):
    with pytest.raises(RequestError, match="psi"):
        from_seeds(plain, [0], psi=psi)


def test_maps_alone_cannot_be_truncated(plain: Generator):
    maps = Latents(affine=from_seeds(plain, [1]).affine)
    with pytest.raises(RequestError, match="truncated"):
        to_affine(plain, maps, psi=0.5)


def test_another_class_from_z(conditional: Generator):
    kept = from_seeds(conditional, [5], label=1)
    moved = to_affine(conditional, with_label(conditional, kept, 2))
    assert torch.equal(moved.affine, from_seeds(conditional, [5], label=2).affine)
    with pytest.raises(LabelError, match="class in them"):
        with_label(conditional, Latents(w=kept.w), 2)


def test_z_without_a_class(conditional: Generator):
    z = from_seeds(conditional, [5]).z
    drawn = with_label(conditional, Latents(z=z, seeds=(5,)), None)
    assert torch.equal(drawn.label, from_seeds(conditional, [5]).label)
    with pytest.raises(LabelError, match="give a label"):
        with_label(conditional, Latents(z=z), None)


def test_latents_of_another_shape(plain: Generator, conditional: Generator):
    with pytest.raises(FileError, match=r"z is \[9\]"):
        check_latents(plain, Latents(z=torch.zeros(1, 9)), source="x")
    with pytest.raises(FileError, match="affine"):
        check_latents(plain, Latents(affine=torch.zeros(1, 3, 3, 17)), source="x")
    with pytest.raises(LabelError, match="outside 0-3"):
        check_latents(conditional, Latents(z=torch.zeros(1, 8), label=torch.tensor([4])), source="x")
