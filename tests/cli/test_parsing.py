"""Sizes and windows as typed."""

import pytest

from polyinr_cli.parsing import parse_size, parse_window
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_window


@pytest.mark.parametrize(
    ("text", "size"), [("256", (256, 256)), ("640x360", (640, 360)), (" 5X7 ", (5, 7)), ("1048576x1", (2**20, 1))]
)
def test_sizes(text: str, size: tuple[int, int]):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "x", "1x", "x1", "1x2x3", "0x5", "1000000000", "9" * 5000, "٣", "nan", "1e3"]
)
def test_nonsense_sizes(text: str):
    with pytest.raises(RequestError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("0:1", (0, 0, 1, 1)),
        ("-0.25:1.25", (-0.25, -0.25, 1.25, 1.25)),
        ("0:2,-1:.5", (0, -1, 2, 0.5)),
        ("1:0", (1, 1, 0, 0)),
        (" 0 : 1e-3 ", (0, 0, 1e-3, 1e-3)),
    ],
)
def test_windows(text: str, bounds: tuple[float, ...]):
    assert parse_window(text) == bounds


@pytest.mark.parametrize(
    "text",
    ["", "1", ":", "0:", "1:1", "0:1,2:2", "nan:1", "0:inf", "0:1e7", "0:1:2", "0:1,0:1,0:1", "a:b", "0:1,"],
)
def test_nonsense_windows(text: str):
    with pytest.raises(RequestError, match="window"):
        parse_window(text)


@pytest.mark.parametrize("bounds", [(0.1, 0.1, 0.3, 0.3), (-1 / 3, 1e-17, 2 / 3, 0.1 + 0.2)])
def test_a_window_is_written_to_the_last_bit(bounds: tuple[float, float, float, float]):
    assert parse_window(format_window(bounds)) == bounds
