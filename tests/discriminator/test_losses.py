"""The hinge losses against the golden ones."""

import json

import pytest
import torch
from released_disc import REFERENCE
from rounding import assert_rounded
from safetensors.torch import load_file

from polyinr_core.discriminator.losses import generator_loss, hinge_disc_fake, hinge_disc_real

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
