"""The encoder: it learns, comes back from its file, starts a search, and refuses what it cannot serve."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import small_checkpoint

import polyinr_core as polyinr
from polyinr_core.errors import CheckpointError, ConfigError
from polyinr_core.inversion.encoder import (
    METADATA_KEY,
    Encoder,
    EncoderConfig,
    describe_encoder,
    is_encoder,
    load_encoder,
    save_encoder,
    train_encoder,
)
from polyinr_core.inversion.invert import invert
from polyinr_core.inversion.loss import load_target
from polyinr_core.rendering.model import Model
from polyinr_core.runtime.tensor_files import encode_tensors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return polyinr.load(small_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def encoder(model: Model) -> Encoder:
    return train_encoder(model, steps=150, batch=8, resolution=16)


def test_an_encoder_starts_nearer_than_the_mean(encoder: Encoder) -> None:
    assert encoder.facts["psnr"] > encoder.facts["psnr_of_mean"] + 1
    assert encoder.facts["steps"] == 150


def test_its_file_gives_the_same_latents(model: Model, encoder: Encoder, tmp_path: Path) -> None:
    target = load_target(model.sample([3])[0])
    save_encoder(tmp_path / "e.safetensors", encoder)
    again = load_encoder(tmp_path / "e.safetensors")
    assert (again.config, again.model_sha256, again.facts) == (encoder.config, model.sha256, encoder.facts)
    one, two = (each.encode(model, target).affine for each in (encoder, again))
    # weights in float16: 11 bits, over sums whose terms are of the size of the result
    assert float((one - two).norm() / one.norm()) < 1e-2
    assert (tmp_path / "e.safetensors").stat().st_size < 2e6
    assert is_encoder(tmp_path / "e.safetensors")
    described = describe_encoder(again)
    assert (described["kind"], described["model"], described["steps"]) == ("encoder", model.sha256, 150)


def test_a_search_starts_there(model: Model, encoder: Encoder) -> None:
    """Without a step the result is what the encoder says; with some it is no farther from the target."""
    target = load_target(model.sample([5])[0])
    start = encoder.encode(model, target)
    nothing, some = (invert(model, target, steps=steps, start=start, loss="pixels") for steps in (0, 20))
    assert torch.allclose(nothing.affine, start.affine)
    assert nothing.steps == 0
    assert some.loss < nothing.loss
    with pytest.raises(ConfigError, match="0 steps"):
        invert(model, target, steps=0, loss="pixels")


def test_any_size_and_a_stop(model: Model) -> None:
    encoder = train_encoder(model, steps=50, batch=2, resolution=24, stop=lambda: True)
    assert encoder.facts["steps"] == 1
    wide = load_target(model.sample([5], size=(40, 9))[0])
    assert encoder.encode(model, wide).affine.shape == (1, 3, 3, 16)


@pytest.mark.parametrize("resolution", [0, 4, 20, 264])
def test_resolutions_refused(model: Model, resolution: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        train_encoder(model, steps=1, resolution=resolution)


def test_another_model_is_refused(model: Model, encoder: Encoder) -> None:
    other = replace(model.checkpoint, sha256="ab" * 32)
    with pytest.raises(CheckpointError, match="was trained on the model"):
        encoder.encode(other, load_target(model.sample([5])[0]))


def test_damaged_files_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    """Also one that claims sizes beyond any memory, which it does not hold."""
    path = tmp_path / "e.safetensors"
    sizes = {"resolution": 16, "w_dim": 2**16, "levels": 2**16, "channels": 2**16}
    good = {"format": 1, "config": vars(encoder.config), "model_sha256": "", "facts": {}}
    for facts in (
        good | {"config": sizes},
        good | {"config": {}},
        good | {"format": 2},
        good | {"facts": None},
        good | {"config": sizes | {"resolution": 7}},
    ):
        path.write_bytes(encode_tensors(encoder.state_dict(), key=METADATA_KEY, facts=facts))
        with pytest.raises(CheckpointError, match="cannot be used as an encoder"):
            load_encoder(path)
    path.write_bytes(encode_tensors({"x": torch.zeros(1)}, key="other", facts={}))
    with pytest.raises(CheckpointError, match="it is not an encoder"):
        load_encoder(path)


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        EncoderConfig(16, w_dim=0, levels=1, channels=1)
