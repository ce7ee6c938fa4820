"""Training from Python: on a Dataset of the user's own, with fields as keywords, and the step called by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.data.dataset import TorchImageDataset
from polyinr_core.errors import ConfigError, DatasetError, TrainingError
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training.config import PRESETS, Stage, TrainingConfig, make_config
from polyinr_core.training.loop import train
from polyinr_core.training.state import create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step

SETTINGS = {"preset": "tiny", "channels": 16, "batch": 4, "disc_channels": 8, "head_divisor": 16}


class Stripes(Dataset):
    """Twelve images of 16 px with labels, as a user writes a dataset."""

    def __init__(self, *, channels_last: bool = False, labels: bool = True) -> None:
        self.images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator())
        self.channels_last = channels_last
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | None]:
        image = self.images[index]
        return image.permute(1, 2, 0) if self.channels_last else image, index % 3 if self.labels else None


def test_a_dataset_of_the_user_s_own(tmp_path: Path) -> None:
    """Trained on in two parts and as a whole, it gives the same model; the labels make it conditional."""
    settings = {**SETTINGS, "stages": "8:0.008,16:0.004"}
    seen: list[int] = []
    assert train(Stripes(), run_dir=tmp_path / "whole", progress=lambda at: seen.append(at.total_images), **settings)
    assert seen == [4, 8, 12]
    assert not train(Stripes(), run_dir=tmp_path / "parts", stop=lambda: True, **settings)
    assert train(Stripes(), run_dir=str(tmp_path / "parts"), **settings)
    names = [tmp_path / run / "checkpoints/000000012.safetensors" for run in ("whole", "parts")]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert load_checkpoint(names[0]).generator.config.classes == 3


def test_another_dataset_is_another_run(tmp_path: Path) -> None:
    settings = {**SETTINGS, "stages": "8:0.004"}
    assert train(Stripes(labels=False), run_dir=tmp_path, **settings)
    with pytest.raises(TrainingError, match="started with data of SHA-256"):
        train(Stripes(), run_dir=tmp_path, **settings)


def test_both_layouts_are_read() -> None:
    first, last = TorchImageDataset(Stripes()), TorchImageDataset(Stripes(channels_last=True))
    assert first.sha256 == last.sha256
    assert np.array_equal(first.read(3), Stripes().images[3].permute(1, 2, 0).numpy())
    assert (first.resolution, first.classes, len(first)) == (16, 3, 12)
    assert first.labels.tolist() == [0, 1, 2] * 4
    unlabeled = TorchImageDataset(Stripes(labels=False))
    assert (unlabeled.labels, unlabeled.classes) == (None, 0)


class Items(Dataset):
    """The items that are given; `targets`, if there are any, as torchvision's datasets have them."""

    def __init__(self, items: list, targets: list | None = None) -> None:
        self.items = items
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


def image(size: int = 8, **changes: object) -> torch.Tensor:
    return torch.zeros(3, size, size, **{"dtype": torch.uint8, **changes})


def test_targets_are_the_labels() -> None:
    assert TorchImageDataset(Items([image(), image()], targets=[1, 0])).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "no images"),
        ([image(dtype=torch.float32)], r"image 0 is no image but float32 of shape \[8, 8, 3\]"),
        ([image(), image(9)], "image 1 is 9x9, not 8x8 as the first"),
        ([image()[:, :4]], "image 0"),
        ([image()[:2]], "image 0"),
        ([torch.tensor(3)], "image 0"),
        ([(image(), "cat")], "one integer label"),
        ([(image(), -1)], "0 or more"),
    ],
)
def test_what_is_no_dataset_of_images(items: list, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        TorchImageDataset(Items(items))


def test_the_step_by_hand() -> None:
    """As a researcher calls it, in a loop of their own."""
    config, weights = make_config(**SETTINGS), {"lite0": load_pretrained("lite0")}
    state = start_stage(config, create_generator(config, classes=0), weights=weights, device=torch.device("cpu"))
    coordinates = RegularGrid(8, 8).coordinates()
    options = StepOptions(coordinates, micro_batch=4)
    reals, g_fakes, d_fakes = (Batch(data, None) for data in (torch.rand(4, 3, 8, 8), *torch.randn(2, 4, 64)))
    before = state.generator.synthesis.to_rgb.bias.clone()
    stats = train_step(state, options, reals=reals, g_fakes=g_fakes, d_fakes=d_fakes, ema_beta=0.0).read()
    assert np.isfinite([stats.loss_g, stats.loss_d]).all()
    assert not torch.equal(state.generator.synthesis.to_rgb.bias, before)
    assert torch.equal(state.ema.synthesis.to_rgb.bias, state.generator.synthesis.to_rgb.bias)


def test_a_configuration_from_keywords() -> None:
    assert make_config() == PRESETS["small"]
    config = make_config("tiny", stages="32:1,64:2", backbones="lite0,deit-base", metric_every=1.0, metrics=["fid"])
    assert config.stages == (Stage(32, 1), Stage(64, 2))
    assert (config.backbones, config.metrics) == (("lite0", "deit-base"), ("fid",))
    assert make_config("tiny", stages=[Stage(8, 1)]).stages == (Stage(8, 1),)
    guided = make_config("imagenet", guidance=2.0)  # instead of what the preset's stages have
    assert {guided.at(stage).guidance for stage in guided.stages} == {2.0}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "cats"}, "preset 'cats' is unknown"),
        ({"width": 3}, "no field width"),
        ({"preset": "tiny", "metrics": "fid"}, "metric_every"),
        ({"batch": 1}, "batch 1 is outside"),
    ],
)
def test_what_is_no_configuration(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_config(**settings)


def test_a_config_excludes_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either a config"):
        train(Stripes(), run_dir=tmp_path / "run", config=TrainingConfig(), batch=4)
    assert not (tmp_path / "run").exists()
