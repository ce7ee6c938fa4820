"""Pivotal tuning: nearer to the photo, little change elsewhere, the delta is what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polyinr_core.errors import ConfigError
from polyinr_core.inversion import tuning
from polyinr_core.inversion.canvas import canvas_for
from polyinr_core.inversion.objective import Objective
from polyinr_core.inversion.photo import Photo
from polyinr_core.inversion.tuning import Match, drift, tune
from polyinr_core.snapshots.delta import apply_delta, write_delta
from polyinr_core.snapshots.snapshot import Snapshot, load_snapshot


@pytest.fixture
def stripes() -> Photo:
    """A picture that the tiny model knows nothing of."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, 4:9] = (250, 40, 90)
    return Photo("stripes", pixels, 16, 16)


def match_of(snapshot: Snapshot, photo: Photo) -> Match:
    generator = snapshot.generator
    like = generator.mapping.w_avg
    canvas = canvas_for(generator.config, width=16, height=16, like=like)
    affine = generator.affine(generator.mapping.w_avg.repeat(1, 3, 1))
    return Match(affine, canvas, Objective("pixels").aim(photo.target(like)))


def test_nearer_and_exactly_what_the_delta_holds(tiny_snapshot: Path, stripes: Photo, tmp_path: Path):
    snapshot = load_snapshot(tiny_snapshot)
    match = match_of(snapshot, stripes)
    told: list[float] = []
    delta = tune(
        snapshot.generator,
        [match],
        model_sha256=snapshot.sha256,
        rank=4,
        steps=40,
        seed=0,
        report=lambda done, total, psnr: told.append(psnr),
    )
    delta = write_delta(tmp_path / "d.safetensors", delta)
    tuned = apply_delta(snapshot, delta, source=tmp_path / "d.safetensors").generator
    assert delta.rank == 4
    with torch.no_grad():
        before, after = (
            tuning.decibels(match.aim.terms(match.canvas.draw(g.synthesis, match.affine)))
            for g in (snapshot.generator, tuned)
        )
    assert after > before + 0.5
    assert after == pytest.approx(told[-1], abs=1e-2)  # of float32 colours: off by 5e-5 where the error is 0.1
    assert torch.equal(
        load_snapshot(tiny_snapshot).generator.synthesis.to_rgb.weight, snapshot.generator.synthesis.to_rgb.weight
    )


def test_others_are_held_and_a_seed_decides(tiny_snapshot: Path, stripes: Photo, monkeypatch: pytest.MonkeyPatch):
    snapshot = load_snapshot(tiny_snapshot)

    def tuned(kept: float) -> tuple[torch.Tensor, float]:
        monkeypatch.setattr(tuning, "KEPT", kept)
        match = match_of(snapshot, stripes)
        delta = tune(snapshot.generator, [match], model_sha256=snapshot.sha256, rank=4, steps=40, seed=0)
        after = apply_delta(snapshot, replace(delta, sha256="x"), source=Path("d"))
        return delta.up, drift(snapshot.generator, after.generator, seed=1)

    (one, held), (two, _), (_, free) = tuned(10.0), tuned(10.0), tuned(0.0)
    assert torch.equal(one, two)
    assert held > free + 1
    assert drift(snapshot.generator, snapshot.generator, seed=1) == 99.0


def test_ranks_and_steps_that_make_no_sense(tiny_snapshot: Path, stripes: Photo):
    snapshot = load_snapshot(tiny_snapshot)
    match = match_of(snapshot, stripes)
    for rank, steps, words in ((0, 5, "outside 1-16"), (17, 5, "outside 1-16"), (2, 0, "0 steps")):
        with pytest.raises(ConfigError, match=words):
            tune(snapshot.generator, [match], model_sha256="", rank=rank, steps=steps, seed=0)
