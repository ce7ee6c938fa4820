"""A discriminator that cannot work is refused before it is built."""

import pytest

from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.errors import ConfigError

BAD = [
    ({"backbones": ()}, "at least one"),
    ({"backbones": ("lite0", "lite0")}, "once"),
    ({"backbones": ("vgg",)}, "lite0, deit-base"),
    ({"taps": 0}, "outside 1-4"),
    ({"taps": 5}, "outside 1-4"),
    ({"channels": 0}, "outside"),
    ({"channels": 1.5}, "outside"),
    ({"resolution": 100}, "multiple of 32, at least 128"),
    ({"resolution": 96}, "at least 128"),
    ({"resolution": 0}, "at least 128"),
    ({"resolution": 224.0}, "cannot take an input"),
    ({"resolution": 136, "taps": 1, "backbones": ("deit-tiny",)}, "multiple of 16"),
    ({"head_resolution": 200}, "power of two"),
    ({"head_resolution": 64}, "fewer taps or at least 128"),
    ({"head_divisor": 0}, "outside"),
    ({"classes": 10, "table_rows": 9}, "cannot hold 10 classes"),
    ({"classes": -1}, "outside"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_bad_values_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiscriminatorConfig(**values)


def test_fewer_taps_or_shallower_heads_look_at_less() -> None:
    assert DiscriminatorConfig(resolution=136, taps=2).input_resolution("lite0", 32) == 136
    assert DiscriminatorConfig(resolution=64, head_resolution=128).input_resolution("lite0", 32) == 64


@pytest.mark.parametrize(
    ("backbone", "resolution", "size", "expected"),
    [
        ("lite0", 224, 32, 224),
        ("lite0", 224, 256, 256),  # never looks at less than the image has
        ("lite0", None, 128, 128),
        ("deit-tiny", 224, 32, 224),
        ("deit-tiny", 224, 256, 224),  # always looks at the discriminator's resolution
    ],
)
def test_where_a_backbone_looks(backbone: str, resolution: int | None, size: int, expected: int) -> None:
    assert (
        DiscriminatorConfig(backbones=(backbone,), resolution=resolution).input_resolution(backbone, size) == expected
    )


def test_a_image_too_small_to_look_at_unresized_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot take an input of 64 pixels"):
        DiscriminatorConfig(resolution=None).input_resolution("lite0", 64)


def test_a_view_too_small_for_the_heads_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"at least 128, at most 4096; or use --head-resolution 128$"):
        DiscriminatorConfig(resolution=64)
    DiscriminatorConfig(resolution=64, head_resolution=128)
    with pytest.raises(ConfigError, match=r"at most 4096$"):
        DiscriminatorConfig(resolution=32)  # no depth of four taps fits
