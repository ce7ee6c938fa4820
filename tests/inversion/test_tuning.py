"""Pivotal tuning: nearer to the photo, little change elsewhere, the delta is what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.checkpoints.delta import apply_delta, save_delta
from polyinr_core.errors import ConfigError
from polyinr_core.inversion import pivotal_tuning as tuning
from polyinr_core.inversion.loss import Objective
from polyinr_core.inversion.pivotal_tuning import Match, drift, tune
from polyinr_core.inversion.target import Photo, canvas_for


@pytest.fixture
def stripes() -> Photo:
    """An image that the tiny model knows nothing of."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, 4:9] = (250, 40, 90)
    return Photo("stripes", pixels, 16, 16)


def match_of(checkpoint: Checkpoint, photo: Photo) -> Match:
    generator = checkpoint.generator
    like = generator.mapping.w_avg
    canvas = canvas_for(generator.config, width=16, height=16, like=like)
    affine = generator.affine(generator.mapping.w_avg.repeat(1, 3, 1))
    return Match(affine, canvas, Objective("pixels").aim(photo.target(like)))


def test_nearer_and_exactly_what_the_delta_holds(tiny_checkpoint: Path, stripes: Photo, tmp_path: Path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    match = match_of(checkpoint, stripes)
    told: list[float] = []
    delta = tune(
        checkpoint.generator,
        [match],
        model_sha256=checkpoint.sha256,
        rank=4,
        steps=40,
        seed=0,
        report=lambda done, total, psnr: told.append(psnr),
    )
    delta = save_delta(tmp_path / "d.safetensors", delta)
    tuned = apply_delta(checkpoint, delta, source=tmp_path / "d.safetensors").generator
    assert delta.rank == 4
    with torch.no_grad():
        before, after = (
            tuning.decibels(match.aim.terms(match.canvas.draw(g.synthesis, match.affine)))
            for g in (checkpoint.generator, tuned)
        )
    assert after > before + 0.5
    assert after == pytest.approx(told[-1], abs=1e-2)  # of float32 colors: off by 5e-5 where the error is 0.1
    assert torch.equal(
        load_checkpoint(tiny_checkpoint).generator.synthesis.to_rgb.weight, checkpoint.generator.synthesis.to_rgb.weight
    )


def test_others_are_held_and_a_seed_decides(tiny_checkpoint: Path, stripes: Photo, monkeypatch: pytest.MonkeyPatch):
    checkpoint = load_checkpoint(tiny_checkpoint)

    def tuned(kept: float) -> tuple[torch.Tensor, float]:
        monkeypatch.setattr(tuning, "KEPT", kept)
        match = match_of(checkpoint, stripes)
        delta = tune(checkpoint.generator, [match], model_sha256=checkpoint.sha256, rank=4, steps=40, seed=0)
        after = apply_delta(checkpoint, replace(delta, sha256="x"), source=Path("d"))
        return delta.up, drift(checkpoint.generator, after.generator, seed=1)

    (one, held), (two, _), (_, free) = tuned(10.0), tuned(10.0), tuned(0.0)
    assert torch.equal(one, two)
    assert held > free + 1
    assert drift(checkpoint.generator, checkpoint.generator, seed=1) == 99.0


def test_ranks_and_steps_that_make_no_sense(tiny_checkpoint: Path, stripes: Photo):
    checkpoint = load_checkpoint(tiny_checkpoint)
    match = match_of(checkpoint, stripes)
    for rank, steps, words in ((0, 5, "outside 1-16"), (17, 5, "outside 1-16"), (2, 0, "0 steps")):
        with pytest.raises(ConfigError, match=words):
            tune(checkpoint.generator, [match], model_sha256="", rank=rank, steps=steps, seed=0)
