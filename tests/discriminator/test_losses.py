"""The hinge losses against the golden ones; the others against their formulas in float64."""

import json

import numpy as np
import pytest
import torch
from released_disc import REFERENCE
from rounding import assert_rounded
from safetensors.torch import load_file

from polyinr_core.discriminator.losses import (
    finite_difference_penalty,
    generator_loss,
    hinge_disc_fake,
    hinge_disc_real,
    lecam_penalty,
    relativistic_loss,
)

CASES = [
    (generator_loss, "G", "fake", "G_phase", "loss_G"),
    (hinge_disc_fake, "D", "fake", "D_phase", "loss_fake"),
    (hinge_disc_real, "D", "real", "D_phase", "loss_real"),
]


@pytest.mark.parametrize(("loss", "network", "kind", "phase", "key"), CASES)
def test_values_and_gradients_are_the_release_s(loss, network: str, kind: str, phase: str, key: str) -> None:
    """Eight rows are two backbones of four samples; float32, softplus in some units of the last place."""
    golden = load_file(REFERENCE / "loss_golden.safetensors")
    note = json.loads((REFERENCE / "loss_golden.json").read_text())
    logits = golden[f"input.{network}.logits_{kind}"].requires_grad_()
    value = 4 * loss(logits.split(4))  # the release sums over samples
    value.backward()
    assert value.item() == pytest.approx(note[phase][key], rel=1e-5)
    torch.testing.assert_close(logits.grad, golden[f"output.{network}.grad_logits_{kind}"], atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("loss", [generator_loss, hinge_disc_fake, hinge_disc_real])
def test_the_mean_does_not_grow_with_the_batch_but_with_the_backbones(loss) -> None:
    logits = torch.randn(4, 10)
    once = loss([logits])
    for found, expected in (
        (loss([torch.cat([logits, logits])]), once),
        (loss([logits, logits]), 2 * once),
    ):
        assert_rounded(found, expected, terms=80)


def two_backbones(seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(4, patches, generator=rng, dtype=torch.float64) for patches in (5, 9)]


def test_relativistic_loss_is_its_formula() -> None:
    """-log sigmoid(D(x_r) - D(x_f)) of each pair of patches; the generator's is the same with the players swapped."""
    reals, fakes = two_backbones(0), two_backbones(1)
    differences = [(r - f).numpy() for r, f in zip(reals, fakes, strict=True)]
    expected = sum(np.mean(-np.log(1 / (1 + np.exp(-d)))) for d in differences)
    assert float(relativistic_loss(reals, fakes)) == pytest.approx(expected, rel=1e-12)
    swapped = sum(np.mean(-np.log(1 / (1 + np.exp(d)))) for d in differences)
    assert float(generator_loss(fakes, reals)) == pytest.approx(swapped, rel=1e-12)


def test_lecam_penalty_is_its_formula() -> None:
    reals, fakes = two_backbones(0), two_backbones(1)
    expected = sum(np.mean((r.numpy() + 0.7) ** 2) for r in reals) + sum(np.mean((f.numpy() - 1.2) ** 2) for f in fakes)
    assert float(lecam_penalty(reals, fakes, means=(1.2, -0.7))) == pytest.approx(expected, rel=1e-12)


def test_finite_differences_of_a_linear_function_are_its_gradient() -> None:
    """D(x) = A x: each patch's difference is its row times the noise; on average the row's squared length."""
    rng = torch.Generator().manual_seed(0)
    rows, x = torch.randn(7, 40, generator=rng, dtype=torch.float64), torch.zeros(20_000, 40, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    sigma = 0.05
    found = float(finite_difference_penalty([x @ rows.mT], [(x + sigma * noise) @ rows.mT], sigma=sigma))
    lengths = rows.square().sum(dim=1)
    standard_error = float((2 * lengths.square()).mean().sqrt()) / 20_000**0.5  # of a chi-square of one degree
    assert found == pytest.approx(float(lengths.mean()), abs=5 * standard_error)
