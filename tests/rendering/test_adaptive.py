"""Coarse to fine: off by no more than was allowed, from few points, the same whatever is drawn of it."""

import pytest
import torch
from rounding import assert_rounded, terms_of
from torch import Tensor

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import BlendGrid, Grid, RegularGrid, SubGrid
from polyinr_core.models.generator import Generator, Synthesis
from polyinr_core.rendering.adaptive import MAX_PITCH, PROBES, TILE_SIZE, probes, tiled
from polyinr_core.rendering.backends import Backend
from polyinr_core.rendering.render import render_rows
from polyinr_core.rendering.viewport import Viewport

CPU = torch.device("cpu")


def lively(form: str) -> tuple[Synthesis, Tensor]:
    """A network whose colors fill the range, with kinks, and an image's affine maps."""
    torch.manual_seed(1)
    generator = Generator(GeneratorConfig(form=form, levels=4, channels=16, z_dim=8, w_dim=12)).eval()
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(2)
        affine = generator.affine(generator.w(torch.randn(1, 8)))[0]
    return generator.synthesis, affine * (4 if form == "release" else 1.2)


@pytest.fixture(scope="module", params=["release", "paper"])
def drawn(request: pytest.FixtureRequest) -> tuple[Synthesis, Tensor]:
    return lively(request.param)


def image(drawn: tuple[Backend, Tensor], grid: Grid, **how) -> Tensor:
    return torch.cat(list(render_rows(*drawn, grid, **how)))


def counted(backend: Backend, points: list[int]) -> Backend:
    """Draw as others do, and count the points."""

    def draw(affine: Tensor, some: Tensor) -> Tensor:
        points.append(len(some))
        return backend(affine, some)

    return draw


def assert_within(tolerance: float, found: Tensor, exact: Tensor) -> None:
    off = 127.5 * (found - exact).abs().amax(dim=-1).flatten()
    assert (off > tolerance).float().mean() <= 0.001
    assert off.max() <= 5 * tolerance


@pytest.mark.parametrize("tolerance", [0.25, 1, 4])
@pytest.mark.parametrize(
    ("width", "height", "bounds"),
    [(300, 300, (0, 0, 1, 1)), (65, 200, (-0.5, 0.1, 1.5, 0.9)), (257, 129, (0.75, 0.25, 0.25, 0.5))],
)
def test_all_but_a_thousandth_of_the_pixels_are_within_the_tolerance(drawn, width, height, bounds, tolerance):
    grid = RegularGrid(width, height, bounds)
    exact = image(drawn, grid)
    assert exact.std() > 0.05
    assert_within(tolerance, image(drawn, grid, tolerance=tolerance), exact)


def test_few_points_are_drawn_of_a_large_image_and_fewer_for_a_larger_tolerance(drawn):
    shares = []
    for tolerance in (0.25, 1, 4):
        points: list[int] = []
        image((counted(drawn[0], points), drawn[1]), RegularGrid(400, 400), tolerance=tolerance)
        shares.append(sum(points) / 400**2)
    assert 0.5 > shares[0] > shares[1] > shares[2] > 1 / MAX_PITCH**2


@pytest.mark.parametrize("rows", [1, 50, 200])
def test_bands_change_no_pixel(drawn, rows: int):
    grid = RegularGrid(150, 200)
    whole = image(drawn, grid, tolerance=1)
    assert torch.equal(image(drawn, grid, tolerance=1, rows=rows), whole)


@pytest.mark.parametrize("corner", [(0, 0), (64, 64), (37, 101), (139, 199)])
@pytest.mark.parametrize("size", [(1, 1), (11, 1), (3, 70)])
def test_a_part_has_the_whole_s_pixels(drawn, corner, size):
    grid = RegularGrid(150, 300)
    whole = image(drawn, grid, tolerance=1)
    (left, top), (width, height) = corner, size
    part = image(drawn, SubGrid(grid, left, top, width, height), tolerance=1)
    assert torch.equal(part, whole[top : top + height, left : left + width])
    part = image(drawn, SubGrid(SubGrid(grid, left, 0, width, 300), 0, top, width, height), tolerance=1)
    assert torch.equal(part, whole[top : top + height, left : left + width])


def test_groups_of_tiles_change_no_pixel(drawn, monkeypatch: pytest.MonkeyPatch):
    grid = RegularGrid(200, 200)
    whole = image(drawn, grid, tolerance=1)
    monkeypatch.setattr("polyinr_core.rendering.adaptive.TILES_AT_ONCE", 1)
    assert torch.equal(image(drawn, grid, tolerance=1), whole)


@pytest.mark.parametrize("size", [(TILE_SIZE, 500), (500, TILE_SIZE), (1, 1)])
def test_narrow_images_are_exact(drawn, size):
    grid = RegularGrid(*size)
    assert torch.equal(image(drawn, grid, tolerance=4), image(drawn, grid))
    part = SubGrid(grid, 0, 0, 1, 1)
    assert torch.equal(image(drawn, part, tolerance=4), image(drawn, part))


def test_no_tolerance_is_the_exact_form(drawn):
    grid = RegularGrid(100, 100)
    points: list[int] = []
    exact = image((counted(drawn[0], points), drawn[1]), grid, tolerance=0)
    assert set(points) == {2048}
    assert_rounded(exact, image(drawn, grid), terms=terms_of(drawn[0].config))  # another backend's


def test_hardly_any_tolerance_draws_every_point(drawn):
    grid = RegularGrid(130, 130)
    found = image(drawn, grid, tolerance=1e-30)
    assert_rounded(found, image(drawn, grid), terms=terms_of(drawn[0].config))  # other product shapes


def test_several_points_a_pixel(drawn):
    view = Viewport(90, 70, supersample=3)
    exact = image(drawn, view.grid(), supersample=3)
    assert_within(1, image(drawn, view.grid(), supersample=3, tolerance=1), exact)


def test_turned_and_warped_views(drawn):
    for view in (
        Viewport(120, 120, matrix=((0.8, -0.6, 0.3), (0.6, 0.8, 0), (0, 0, 1))),
        Viewport(120, 120, warp="polar"),
    ):
        exact = image(drawn, view.grid())
        assert_within(1, image(drawn, view.grid(), tolerance=1), exact)


def test_blends():
    """Halves of two images, with an edge between them that no lattice may miss."""
    synthesis, first = lively("release")
    affine = torch.cat([first, first.flip(-1)], dim=1)
    shares = torch.zeros(2, 120, 120)
    shares[0, :, :50], shares[1, :, 50:] = 1, 1
    grid = BlendGrid(RegularGrid(120, 120), shares)
    exact = image((synthesis, affine), grid)
    assert_within(1, image((synthesis, affine), grid, tolerance=1), exact)


def test_parabolas_are_foretold_by_the_first_lattices():
    """Oracle: a polynomial of second degree goes through three of its points. 2 x 3 tiles."""
    asked = []

    def values(grid: Grid, index: Tensor) -> Tensor:
        asked.append(len(index))
        x, y = grid.at(index, dtype=torch.float64)[:, :2].unbind(1)
        return torch.stack([x * y, 2 * x**2 - y, 1 + y**2], dim=1)

    grid = RegularGrid(129, 140)
    found = torch.cat(list(tiled(values, grid, tolerance=1e-9, device=CPU)))
    exact = values(grid, torch.arange(129 * 140))
    torch.testing.assert_close(found, exact, atol=1e-13, rtol=0)
    assert sum(asked[:-1]) <= 6 * (9**2 + PROBES)


@pytest.mark.parametrize("probe", range(0, PROBES, 3))
def test_a_tile_whose_probe_fails_is_drawn_exactly(probe: int):
    """A dot between the points of the second lattice, about a probe; the tile beside it has none."""
    grid, asked = RegularGrid(129, 65), torch.zeros(65, 129, dtype=torch.long)
    row, column = probes().nonzero()[probe].tolist()
    assert row % 8 or column % 8

    def values(grid: Grid, index: Tensor) -> Tensor:
        y, x = index // 129, index % 129
        asked[y, x] += 1
        dot = ((x - column).abs() <= 1) & ((y - row).abs() <= 1) & ~((x % 8 == 0) & (y % 8 == 0))
        return dot.double().unsqueeze(1)

    found = torch.cat(list(tiled(values, grid, tolerance=1, device=CPU)))
    assert (asked[:, :64] == 1).all()
    assert (asked[:, 65:] > 0).sum() <= 8 * 9 + PROBES
    assert torch.equal(found, values(grid, torch.arange(129 * 65)))


def test_what_is_no_number_does_not_pass():
    def values(grid: Grid, index: Tensor) -> Tensor:
        return torch.where(index % 65 > 32, torch.nan, 1.0).unsqueeze(1)

    found = torch.cat(list(tiled(values, RegularGrid(65, 65), tolerance=1, device=CPU))).view(65, 65)
    assert found[:, 33:].isnan().all()
    assert (found[:, :33] == 1).all()
