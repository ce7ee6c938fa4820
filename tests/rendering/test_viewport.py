"""Views against plain formulas in float64: where every pixel looks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import UNIT, BlendGrid, LearnedGrid, RegularGrid, SubGrid
from polyinr_core.rendering.viewport import IDENTITY, Axis, Viewport, compose, rotation, shear

WINDOW = (-0.5, 0.25, 1.5, 1.25)


def points(view: Viewport) -> torch.Tensor:
    """Return the points (x, y) of a view, [H k, W k, 2] in float64."""
    grid = view.grid()
    found = grid.at(torch.arange(grid.width * grid.height), dtype=torch.float64)
    assert (found[:, 2] == 1).all()
    return found[:, :2].unflatten(0, (grid.height, grid.width))


def expected(view: Viewport, look: Callable[[float, float], tuple[float, float]]) -> torch.Tensor:
    """Return look(x, y) of every pixel's own place in the window, [H, W, 2]."""
    x0, y0, x1, y1 = view.window
    rows = []
    for j in range(view.height):
        y = y0 + j * (y1 - y0) / (view.height - 1)
        rows.append([look(x0 + i * (x1 - x0) / (view.width - 1), y) for i in range(view.width)])
    return torch.tensor(rows, dtype=torch.float64)


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_plain_view_is_its_window():
    view = Viewport(7, 5, WINDOW)
    assert view.is_axis_aligned
    assert isinstance(view.grid(), RegularGrid)
    near(points(view), expected(view, lambda x, y: (x, y)))


@pytest.mark.parametrize("degrees", [30.0, -90.0, 400.0])
def test_turned(degrees: float):
    """What is right of the middle comes to stand below it for 90 degrees: y runs down, so that is clockwise."""
    center, angle = (0.5, 0.75), math.radians(degrees)
    view = Viewport(7, 5, WINDOW, matrix=rotation(degrees, center))

    def look(x: float, y: float) -> tuple[float, float]:
        radius, direction = math.hypot(x - 0.5, y - 0.75), math.atan2(y - 0.75, x - 0.5)
        return 0.5 + radius * math.cos(direction - angle), 0.75 + radius * math.sin(direction - angle)

    near(points(view), expected(view, look))
    assert not view.is_axis_aligned


@pytest.mark.parametrize(("across", "down"), [(0.5, 0.0), (0.0, -0.3), (0.5, 0.4)])
def test_sheared(across: float, down: float):
    """The point that a pixel shows, sheared, is the pixel's place."""
    view = Viewport(7, 5, WINDOW, matrix=shear(across, down, (0.5, 0.75)))
    dx, dy = (points(view) - torch.tensor([0.5, 0.75], dtype=torch.float64)).unbind(dim=-1)
    shown = torch.stack([0.5 + dx + across * dy, 0.75 + dy + down * dx], dim=-1)
    near(shown, expected(view, lambda x, y: (x, y)))


def test_projected():
    view = Viewport(7, 5, WINDOW, matrix=((1.0, 0.2, 0.1), (0.0, 2.0, -0.5), (0.1, 0.3, 1.0)))
    near(
        points(view),
        expected(
            view,
            lambda x, y: (
                (x + 0.2 * y + 0.1) / (0.1 * x + 0.3 * y + 1),
                (2 * y - 0.5) / (0.1 * x + 0.3 * y + 1),
            ),
        ),
    )


def test_products_do_the_first_first():
    first, then = ((1.0, 2.0, 3.0), (0.0, 1.0, 4.0), (0.0, 0.0, 1.0)), rotation(20, (0.0, 0.0))
    wanted = torch.tensor(then, dtype=torch.float64) @ torch.tensor(first, dtype=torch.float64)
    near(torch.tensor(compose(first, then), dtype=torch.float64), wanted)
    assert compose(IDENTITY, first) == first


def test_fisheye():
    """A lens: what is seen at an angle of a degrees stands a / 45 of the way to the nearer border."""
    view = Viewport(9, 5, (0.0, 0.0, 2.0, 1.0), warp="fisheye")  # 9 x 5 pixels: the aspect is that of the pixels

    def look(x: float, y: float) -> tuple[float, float]:
        u, v = (x - 1) * 9 / 5, (y - 0.5) / 0.5
        radius = math.hypot(u, v)
        scale = math.tan(min(math.radians(45) * radius, math.radians(85))) / radius if radius else 1.0
        return 1 + u * scale * 5 / 9, 0.5 + 0.5 * v * scale

    near(points(view), expected(view, look))
    found = points(view)
    near(found[2, 4], torch.tensor([1.0, 0.5], dtype=torch.float64))
    near(found[0, 4], torch.tensor([1.0, 0.0], dtype=torch.float64))  # the nearer borders stay
    assert found[2, 8, 0] > 2  # the farther ones look beyond


def test_polar():
    """From the middle outwards down the window, clockwise from straight below through its width."""
    view = Viewport(9, 9, WINDOW, warp="polar")
    found = points(view)
    x0, y0, x1, y1 = WINDOW
    middle = (x0 + x1) / 2
    assert found[4, 4, 1] == pytest.approx(y0)
    assert found[0, 4].tolist() == pytest.approx([middle, y1])  # straight above
    assert found[4, 8].tolist() == pytest.approx([middle + (x1 - x0) / 4, y1])  # right
    assert found[4, 0].tolist() == pytest.approx([middle - (x1 - x0) / 4, y1])
    assert found[4, 6].tolist() == pytest.approx([middle + (x1 - x0) / 4, (y0 + y1) / 2])  # half way
    assert abs(found[8, 4, 0] - middle) == pytest.approx((x1 - x0) / 2)  # straight below: left and right meet


def test_a_map_says_where_each_pixel_looks():
    torch.manual_seed(0)
    places = torch.randn(5, 7, 2, dtype=torch.float64)
    near(points(Viewport(7, 5, coordinate_map=places)), places)
    near(points(Viewport(7, 5, WINDOW, coordinate_map=places)), places)  # whatever the window
    larger = points(Viewport(13, 9, coordinate_map=places))
    near(larger[::2, ::2], places)
    near(larger[::2, 1::2], (places[:, 1:] + places[:, :-1]) / 2)
    near(larger[1::2, ::2], (places[1:] + places[:-1]) / 2)
    single = torch.tensor([[[0.25, 0.75]]], dtype=torch.float64)
    near(points(Viewport(3, 2, coordinate_map=single)), single.expand(2, 3, 2))


@pytest.mark.parametrize("warp", [None, "fisheye"])
def test_fine_points_cover_their_pixels(warp: str | None):
    """Each pixel's k x k points are evenly spread over it, at the edges as within; the warp bends them after."""
    view = Viewport(6, 4, WINDOW, warp=warp, supersample=3)
    found = points(view)
    assert found.shape == (12, 18, 2)
    plain = points(Viewport(6, 4, WINDOW))
    wide, high = 2.0 / 5, 1.0 / 3  # of a pixel
    if warp is None:
        for j in range(3):
            for i in range(3):
                shift = torch.tensor([(i - 1) * wide / 3, (j - 1) * high / 3], dtype=torch.float64)
                near(found[j::3, i::3], plain + shift)
    else:
        near(found[1::3, 1::3], points(Viewport(6, 4, WINDOW, warp=warp)))  # the middle ones
        assert found[0, 0, 0] < WINDOW[0]


@pytest.mark.parametrize("warp", [None, "fisheye", "polar", "map"])
@pytest.mark.parametrize(("level", "supersample"), [(1, 1), (2, 3)])
def test_reduced_views_look_where_the_full_one_does(warp: str | None, level: int, supersample: int):
    """Large pixels in as many parts as they hold small ones are the small ones, whatever bends or turns them."""
    torch.manual_seed(0)
    places = torch.randn(3, 4, 2, dtype=torch.float64).cumsum(1) if warp == "map" else None
    named = None if warp == "map" else warp
    view = Viewport(16, 12, WINDOW, rotation(20, (0.5, 0.5)), named, places, supersample)  # type: ignore[arg-type]
    small = view.downscaled(level)
    assert (small.width, small.height) == (16 >> level, 12 >> level)
    near(points(replace(small, supersample=supersample * 2**level)), points(view))
    assert small.downscaled(1).window == pytest.approx(view.downscaled(level + 1).window)


def test_reduced_sides_are_rounded_up():
    view = Viewport(13, 9).downscaled(2)
    assert (view.width, view.height) == (4, 3)
    x = points(Viewport(13, 9))[0, :, 0]
    near(points(view)[0, :3, 0], x[:12].view(3, 4).mean(dim=1))
    assert Viewport(13, 9).downscaled(0) == Viewport(13, 9)


def test_axes():
    assert Axis.between(0, 1, 1) == Axis(0.5, 1, 1)
    assert Axis.between(0, 1, 5).divided(2) == Axis(-0.0625, 0.125, 10)
    assert Axis.between(0, 1, 1).ends == (0.0, 1.0)
    assert Axis.between(1, 0, 3).ends == (1.0, 0.0)


def test_parts_and_blends_of_views():
    view = Viewport(8, 6, WINDOW, rotation(10, (0.0, 0.0)), supersample=2)
    grid = view.grid()
    part = SubGrid(grid, 4, 2, 6, 8)
    found = part.at(torch.arange(48), dtype=torch.float64)[:, :2].unflatten(0, (8, 6))
    assert torch.equal(found, points(view)[2:10, 4:10])
    shares = torch.rand(2, 6, 8, dtype=torch.float64)
    blended = BlendGrid(grid, shares, 2).at(torch.arange(16 * 12), dtype=torch.float64)
    own = shares.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1)  # [2, P]
    plain = grid.at(torch.arange(16 * 12), dtype=torch.float64)
    near(blended[:, :3], plain * own[0][:, None])
    near(blended[:, 3:], plain * own[1][:, None])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "is empty"),
        ({"window": (0, 0, 0, 1)}, "no extent"),
        ({"supersample": 0}, "less than 1"),
        ({"matrix": ((1, 0, 0), (0, 0, 0), (0, 0, 1))}, "determinant is 0"),
        ({"matrix": ((1, 0, math.nan), (0, 1, 0), (0, 0, 1))}, "NaN or Inf"),
    ],
)
def test_views_of_nothing(changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        Viewport(**{"width": 4, "height": 3, "window": UNIT, **changes})


def test_a_shear_onto_a_line():
    with pytest.raises(ConfigError, match="onto a line"):
        Viewport(4, 3, matrix=shear(0.5, 2.0, (0.0, 0.0)))


def test_a_pixel_at_infinity():
    view = Viewport(3, 3, matrix=((1, 0, 0), (0, 1, 0), (1, 0, -0.5)))  # the middle column is the horizon
    with pytest.raises(ConfigError, match="infinity"):
        points(view)
    assert points(replace(view, width=4)).isfinite().all()


class Copies(TorchDispatchMode):
    """Counts copies of at least as many numbers as a map has, to a device or to a dtype."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "_to_copy" and args[0].numel() >= self.numel
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the second in place of a GPU
def test_masks_and_maps_are_uploaded_once(device: str) -> None:
    """However many tiles and chunks there are, and their dtype is changed once."""
    coordinate_map = torch.rand(40, 30, 2)
    grids = [
        Viewport(20, 20, UNIT, coordinate_map=coordinate_map).grid(),
        BlendGrid(RegularGrid(20, 20), torch.rand(6, 20, 20)),
        LearnedGrid(torch.rand(400, 2), 20, 20),
    ]
    for grid, uploads in zip(grids, (1, device != "cpu", device != "cpu"), strict=True):
        with Copies(800) as copies:
            for left in (0, 10):
                part = SubGrid(grid, left, 0, 10, 20)
                for start in range(0, 200, 50):
                    part.at(torch.arange(start, start + 50, device=device), dtype=torch.float32)
        assert copies.count == uploads
