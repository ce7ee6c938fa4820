"""The generator's configuration."""

import pytest

from polyinr_core.errors import ConfigError
from polyinr_core.models.config import PRESETS, GeneratorConfig


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_round_trip(preset: str) -> None:
    assert GeneratorConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "official"},
        {"levels": 0},
        {"channels": -1},
        {"z_dim": 2.5},
        {"classes": -1},
        {"classes": 10, "table_rows": 3},
        {"clamp": 0.0},
    ],
)
def test_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$"):
        GeneratorConfig(**wrong)


def test_unknown_and_missing_fields_are_named() -> None:
    values = GeneratorConfig().to_dict()
    values["width"] = values.pop("channels")
    with pytest.raises(ConfigError, match="channels, width"):
        GeneratorConfig.from_dict(values)


def test_the_paper_s_form_has_no_clamp() -> None:
    assert GeneratorConfig(form="paper").clamp is None
