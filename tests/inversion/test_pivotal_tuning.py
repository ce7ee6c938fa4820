"""Pivotal tuning: nearer to the photo, little change elsewhere, the delta is what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.checkpoints.delta import apply_delta, save_delta
from polyinr_core.errors import ConfigError
from polyinr_core.inversion import pivotal_tuning
from polyinr_core.inversion.invert import InversionResult
from polyinr_core.inversion.loss import InversionLoss, TargetImage, target_grid
from polyinr_core.inversion.pivotal_tuning import locality_psnr, tune
from polyinr_core.inversion.search import psnr_of
from polyinr_core.latents.latents import Latents


@pytest.fixture
def stripes() -> TargetImage:
    """An image that the tiny model cannot render."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, 4:9] = (250, 40, 90)
    return TargetImage("stripes", pixels, 16, 16)


def result_of(checkpoint: Checkpoint, target: TargetImage) -> InversionResult:
    """Return the mean image as the inversion of a target."""
    generator = checkpoint.generator
    like = generator.mapping.w_avg
    return InversionResult(
        latents=Latents(affine=generator.affine(like.repeat(1, 3, 1))),
        image=target.pixels,
        psnr=0.0,
        ssim=None,
        perceptual=None,
        loss=0.0,
        steps=0,
        start=0,
        seconds=0.0,
        target=target,
        grid=target_grid(generator.config, width=16, height=16, like=like),
        target_loss=InversionLoss("pixels").for_target(target.colors(like)),
    )


def test_nearer_and_exactly_what_the_delta_holds(tiny_checkpoint: Path, stripes: TargetImage, tmp_path: Path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    result = result_of(checkpoint, stripes)
    reported: list[float] = []
    delta = tune(
        checkpoint, [result], rank=4, steps=40, seed=0, progress=lambda done, total, psnr: reported.append(psnr)
    )
    delta = save_delta(tmp_path / "d.safetensors", delta)
    tuned = apply_delta(checkpoint, delta, source=tmp_path / "d.safetensors").generator
    assert delta.rank == 4
    with torch.no_grad():
        before, after = (
            psnr_of(result.target_loss(result.grid.render(g.synthesis, result.affine)).pixels)
            for g in (checkpoint.generator, tuned)
        )
    assert after > before + 0.5
    assert after == pytest.approx(reported[-1], abs=1e-2)  # of float32 colors: off by 5e-5 where the error is 0.1
    assert torch.equal(
        load_checkpoint(tiny_checkpoint).generator.synthesis.to_rgb.weight, checkpoint.generator.synthesis.to_rgb.weight
    )


def test_others_are_held_and_a_seed_decides(
    tiny_checkpoint: Path, stripes: TargetImage, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = load_checkpoint(tiny_checkpoint)

    def tuned(weight: float) -> tuple[torch.Tensor, float]:
        monkeypatch.setattr(pivotal_tuning, "LOCALITY_WEIGHT", weight)
        delta = tune(checkpoint, [result_of(checkpoint, stripes)], rank=4, steps=40, seed=0)
        after = apply_delta(checkpoint, replace(delta, sha256="x"), source=Path("d"))
        return delta.up, locality_psnr(checkpoint.generator, after.generator, seed=1)

    (one, held), (two, _), (_, free) = tuned(10.0), tuned(10.0), tuned(0.0)
    assert torch.equal(one, two)
    assert held > free + 1
    assert locality_psnr(checkpoint.generator, checkpoint.generator, seed=1) == 99.0


def test_ranks_and_steps_that_make_no_sense(tiny_checkpoint: Path, stripes: TargetImage):
    checkpoint = load_checkpoint(tiny_checkpoint)
    result = result_of(checkpoint, stripes)
    for rank, steps, words in ((0, 5, "out of range 1-16"), (17, 5, "out of range 1-16"), (2, 0, "0 steps")):
        with pytest.raises(ConfigError, match=words):
            tune(checkpoint, [result], rank=rank, steps=steps, seed=0)
