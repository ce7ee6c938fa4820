"""The delta file: what it keeps, what it is refused for, what it makes of a model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rounding import assert_rounded
from safetensors.torch import save_file

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.checkpoints.delta import AXES, Delta, apply_delta, combined_sha256, is_delta, load_delta, save_delta
from polyinr_core.errors import CheckpointError


def random_delta(checkpoint: Checkpoint, *, rank: int = 2) -> Delta:
    levels, n = checkpoint.generator.config.levels, checkpoint.generator.config.channels
    rng = torch.Generator().manual_seed(0)
    shapes = ((levels, n, rank), (levels, rank, n), (levels, n), (3, n), (3,))
    tensors = {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in zip(AXES, shapes, strict=True)}
    return Delta(**tensors, model_sha256=checkpoint.sha256, origin={"steps": 3})


def test_written_and_read_back(tiny_checkpoint: Path, tmp_path: Path):
    delta = save_delta(tmp_path / "d.safetensors", random_delta(load_checkpoint(tiny_checkpoint)))
    back = load_delta(tmp_path / "d.safetensors")
    assert all(torch.equal(getattr(back, name), getattr(delta, name)) for name in AXES)
    kept = (back.model_sha256, back.origin, back.sha256, back.rank)
    assert kept == (delta.model_sha256, {"steps": 3}, delta.sha256, 2)
    assert is_delta(tmp_path / "d.safetensors")
    assert not is_delta(tiny_checkpoint)


def test_applied_it_is_a_sum_and_another_model(tiny_checkpoint: Path):
    base = load_checkpoint(tiny_checkpoint)
    delta = replace(random_delta(base), sha256="cd" * 32)
    tuned = apply_delta(base, delta, source=Path("d"))
    again = load_checkpoint(tiny_checkpoint)
    for level in range(3):
        before, after = (s.generator.synthesis.products[level] for s in (again, tuned))
        assert_rounded(after.weight, before.weight + delta.up[level] @ delta.down[level], terms=4)
        assert_rounded(after.bias, before.bias + delta.bias[level], terms=1)
        assert torch.equal(base.generator.synthesis.products[level].weight, before.weight)  # left as it was
    before, after = again.generator.synthesis.to_rgb, tuned.generator.synthesis.to_rgb
    assert_rounded(after.weight, before.weight + delta.rgb_weight, terms=1)
    assert_rounded(after.bias, before.bias + delta.rgb_bias, terms=1)
    assert tuned.sha256 == combined_sha256(base.sha256, delta.sha256) != base.sha256
    assert tuned.origin["delta"] == {"steps": 3}


def test_another_model_is_refused(tiny_checkpoint: Path):
    base = load_checkpoint(tiny_checkpoint)
    with pytest.raises(CheckpointError, match="take the model that it was tuned from"):
        apply_delta(base, replace(random_delta(base), model_sha256="ab" * 32), source=Path("d"))


@pytest.mark.parametrize("name", AXES)
def test_wrong_shapes_are_refused(tiny_checkpoint: Path, name: str):
    base = load_checkpoint(tiny_checkpoint)
    delta = replace(random_delta(base), **{name: torch.zeros(5)})
    with pytest.raises(CheckpointError, match="the model needs"):
        apply_delta(base, delta, source=Path("d"))


def test_no_finite_numbers_are_refused(tiny_checkpoint: Path, tmp_path: Path):
    delta = random_delta(load_checkpoint(tiny_checkpoint))
    delta.bias[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="bias holds NaN or Inf"):
        save_delta(tmp_path / "d.safetensors", delta)
    tensors = {name: getattr(delta, name) for name in AXES}
    facts = {"format": 1, "origin": {}, "model_sha256": ""}
    save_file(tensors, tmp_path / "d.safetensors", metadata={"polyinr_delta": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="bias holds NaN or Inf"):
        load_delta(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "not a delta"),
        ({"polyinr_delta": "["}, "a damaged delta"),
        ({"polyinr_delta": "[]"}, "delta format None"),
        ({"polyinr_delta": '{"format": 9}'}, "delta format 9"),
        ({"polyinr_delta": '{"format": 1, "origin": {}}'}, "it holds up"),
    ],
)
def test_damaged_files(tmp_path: Path, metadata: dict[str, str], words: str):
    save_file({"up": torch.zeros(1)}, tmp_path / "d.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=words):
        load_delta(tmp_path / "d.safetensors")
