"""The training configuration."""

import json
from dataclasses import replace

import pytest

from polyinr_core.errors import ConfigError
from polyinr_core.training.config import PRESETS, Stage, format_stages, parse_stages
from polyinr_core.training.step import ema_half_life


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_any_preset_is_written_as_json(preset: str) -> None:
    config = PRESETS[preset]
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert config.discriminator(3).classes == config.generator(3).classes == 3


def test_stages() -> None:
    stages = parse_stages("16:0.2,32:400")
    assert stages == (Stage(16, 0.2), Stage(32, 400))
    assert [stage.images for stage in stages] == [200, 400_000]
    assert format_stages(stages) == "16:0.2,32:400"
    assert parse_stages(format_stages((Stage(32, 12345.678),))) == (Stage(32, 12345.678),)


def test_a_run_sees_whole_batches() -> None:
    """Two stages of 10 and 9 images, four at a time."""
    assert replace(PRESETS["tiny"], stages=parse_stages("16:0.01,32:0.009"), batch=4).images == 12 + 12


def test_a_stage_has_settings_of_its_own() -> None:
    text = "32:20,64:10.5:batch=32:g_lr=0.0001:d_lr=0.0002:mirror=yes:guidance=8"
    config = replace(PRESETS["tiny"], stages=parse_stages(text), mirror=False)
    plain, own = (config.at(stage) for stage in config.stages)
    assert plain == config
    assert (own.batch, own.g_lr, own.d_lr, own.mirror, own.guidance) == (32, 1e-4, 2e-4, True, 8.0)
    assert format_stages(config.stages) == text
    assert (
        replace(config, mirror=True, stages=parse_stages("32:1:mirror=no")).at(Stage(32, 1, mirror=False)).mirror
        is False
    )


@pytest.mark.parametrize(
    "text",
    ["", "32", "32:", "x:1", "32:-1", "32:0", "2:1", "32:1,", "32:nan", "32:inf", "9999:1"]
    + [f"32:1:{own}" for own in ("", "batch", "batch=x", "batch=1", "g_lr=2", "mirror=maybe", "guidance=-1", "a=1")],
)
def test_bad_stages(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$"):
        parse_stages(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 1},
        {"batch": 8, "micro_batch": 3},
        {"batch": 8, "micro_batch": 1},
        {"seed": -1},
        {"g_lr": 0.0},
        {"state_every": 0.0},
        {"metric_every": -1.0},
        {"start": "warm"},
        {"precision": "half"},
        {"classifier": "vgg"},
        {"metrics": ()},
        {"metrics": ("fd-lite2", "fd-lite2")},
        {"metrics": ("fd",)},
        {"chunk": -1},
        {"workers": 1000},
        {"auto_advance": 3},
        {"guidance": -1.0},
        {"micro_batch": 4, "batch": 8, "stages": parse_stages("32:1:batch=6")},
        {"stages": ()},
    ],
)
def test_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$"):
        replace(PRESETS["tiny"], **wrong)


def test_the_release_s_rates() -> None:
    """lr and beta2 as the lazy-regularization correction leaves them: x 4/5 and x 16/17."""
    config = PRESETS["imagenet"]
    assert config.g_lr == pytest.approx(1e-4 * 4 / 5)
    assert config.d_lr == pytest.approx(2e-4 * 16 / 17, rel=1e-5)
    assert config.g_beta2 == pytest.approx(0.99 ** (4 / 5), rel=1e-6)
    assert config.d_beta2 == pytest.approx(0.99 ** (16 / 17), rel=1e-6)
    assert ema_half_life(config.batch) == 20_000
    assert config.backbones == ("deit-base", "lite0")


def test_blur_fades_within_a_stage() -> None:
    config, stage = PRESETS["imagenet"], Stage(32, 10000)
    assert config.blur_at(0, stage) == 2.0
    assert config.blur_at(150_000, stage) == pytest.approx(1.0)
    assert config.blur_at(300_000, stage) == 0.0
    assert config.blur_at(2000, Stage(32, 4)) == pytest.approx(1.0)  # a short stage: over the whole of it
