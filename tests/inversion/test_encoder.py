"""The encoder: it learns, comes back from its file, starts a search, and refuses what it cannot serve."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_checkpoint
from PIL import Image

import polyinr_core as polyinr
from polyinr_core.checkpoints.locate import is_bundled
from polyinr_core.errors import CheckpointError, ConfigError, DatasetError, RequestError
from polyinr_core.inversion.encoder import (
    METADATA_KEY,
    Encoder,
    EncoderConfig,
    bundled_encoder,
    describe_encoder,
    directions_of_images,
    is_encoder,
    load_encoder,
    save_encoder,
    train_encoder,
)
from polyinr_core.inversion.invert import invert
from polyinr_core.inversion.loss import TargetImage, load_target
from polyinr_core.latents.latents import Latents
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


@pytest.mark.parametrize("space", ["affine", "w"])
def test_a_start_that_is_farther_than_the_mean_is_not_taken(model: Model, encoder: Encoder, space):
    """Of an encoder that says nonsense; one that helps is taken."""
    target = load_target(model.sample([5])[0])
    broken = Encoder(encoder.config, model_sha256=model.sha256)
    broken.load_state_dict({name: tensor * 100 for name, tensor in encoder.state_dict().items()})
    options = {"space": space, "steps": 1, "loss": "pixels", "stop": lambda: True}
    mean = invert(model, target, encoder=None, **options)
    assert torch.equal(invert(model, target, encoder=broken, **options).affine, mean.affine)
    assert invert(model, target, encoder=encoder, **options).loss < mean.loss


def test_the_bundled_encoder_is_that_of_the_bundled_model() -> None:
    """After the model is replaced, the encoder is trained anew (docs/models.md), or removed."""
    if not bundled_encoder().is_file():
        pytest.skip("no encoder is bundled")
    encoder = load_encoder(bundled_encoder())
    assert is_bundled(encoder.model_sha256)
    assert encoder.facts["psnr"] > encoder.facts["psnr_of_mean"] + 1
    assert bundled_encoder().stat().st_size < 2e6


@pytest.fixture
def bright_and_dark(model: Model, tmp_path: Path) -> Path:
    """Forty samples in the class folders dark and light, by the mean of their pixels, and a table of both."""
    images = model.sample(range(40))
    limit = sorted(image.mean() for image in images)[20]
    rows = ["file_name,index,Shade,one"]
    for index, image in enumerate(images):
        shade = "light" if image.mean() >= limit else "dark"
        (tmp_path / "set" / shade).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / shade / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,{index},{shade},x")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path


class PerfectEncoder(Encoder):
    """Says the very latents of the seeds 0 to 39: what is learned from them depends on no training."""

    def encode_all(self, model: Model, targets: Sequence[TargetImage]) -> Latents:
        images = model.sample(range(40))
        return model.latents([np.abs(images - target.pixels.astype(int)).sum((1, 2, 3)).argmin() for target in targets])


@pytest.mark.parametrize(("space", "kind"), [("w", "perfect"), ("affine", "perfect"), ("affine", "trained")])
def test_a_direction_of_labels_changes_other_images(
    model: Model, encoder: Encoder, bright_and_dark: Path, space: str, kind: str
):
    """A short training gives no w that is good enough."""
    chosen = PerfectEncoder(encoder.config, model_sha256=model.sha256) if kind == "perfect" else encoder
    found = directions_of_images(model, chosen, bright_and_dark / "set", space=space)
    assert (found.names, found.samples, found.model_sha256) == (("light",), 40, model.sha256)
    others = model.latents(range(100, 400))
    moved = [polyinr.move(others, found, {0: amount}) for amount in (-2, 0, 2)]
    means = [float(model.render(latents).clamp(-1, 1).mean()) for latents in moved]
    assert means[0] < means[1] < means[2]


def test_labels_of_folders_sources_and_tables_give_the_same(model: Model, encoder: Encoder, bright_and_dark: Path):
    root = bright_and_dark
    counts: list[tuple[int, int]] = []
    one = directions_of_images(model, encoder, root / "set", progress=lambda *count: counts.append(count))
    assert counts == [(done, 40) for done in range(1, 41)]
    two = directions_of_images(model, encoder, [root / "set" / "dark", root / "set" / "light"])
    table = directions_of_images(model, encoder, root / "set", labels=root / "table.csv", column="shade")
    assert (one.names, two.names, table.names) == (("light",),) * 3
    for other in (two, table):
        assert torch.equal(other.components, one.components)
    lines = (root / "table.csv").read_text().splitlines()
    shades = [line.replace("light", "a").replace("dark", "b" if index % 2 else "c") for index, line in enumerate(lines)]
    (root / "table.csv").write_text("\n".join(shades[:31]))  # ten images are left out
    three = directions_of_images(model, encoder, root / "set", labels=root / "table.csv", column="Shade")
    assert (three.names, three.samples, len(three)) == (("a", "b", "c"), 30, 3)


def test_labels_refused(model: Model, encoder: Encoder, bright_and_dark: Path):
    root = bright_and_dark
    with pytest.raises(RequestError, match="1 different labels"):
        directions_of_images(model, encoder, root / "set", labels=root / "table.csv", column="one")
    with pytest.raises(DatasetError, match="no column 'hue'"):
        directions_of_images(model, encoder, root / "set", labels=root / "table.csv", column="hue")
    with pytest.raises(RequestError, match="its images have no labels"):
        directions_of_images(model, encoder, root / "set" / "dark")
    with pytest.raises(RequestError, match="one source of images with labels"):
        directions_of_images(model, encoder, [root / "set"] * 3)


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
