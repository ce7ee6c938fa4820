"""Recorded launches: when they are recorded and replayed. A graph of the CPU's stands for a GPU's."""

import pytest
import torch
from torch import Tensor

from polyinr_core.rendering.backends import cuda_graph as graphs
from polyinr_core.rendering.backends.cuda_graph import Recorded, Recording


class Counted:
    """A drawer that counts how often it draws."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        self.calls += 1
        return affine.sum(dim=(1, 2, 3))[:, None, None] * points.expand(len(affine), *points.shape[-2:])


class Replayed:
    """Draws into its tensors whatever stands in them, as a CUDA graph does."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.colors.copy_(Counted()(self.affine, self.points))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """The graphs that were recorded."""
    made: list[Replayed] = []

    def record(drawer: object, affine: Tensor, points: Tensor) -> Recording:
        graph = Replayed()
        graph.affine, graph.points = torch.zeros_like(affine), torch.zeros_like(points)
        graph.colors = torch.zeros(len(affine), points.shape[-2], 3)
        made.append(graph)
        return Recording(graph, graph.affine, graph.points, graph.colors)

    monkeypatch.setattr(graphs, "record", record)
    return made


def test_the_second_call_of_a_shape_is_recorded(recorded: list[Replayed]) -> None:
    counted, points = Counted(), torch.rand(5, 3)
    drawer = Recorded(counted)
    maps = [torch.rand(1, 2, 3, 4) for _ in range(3)]
    drawn = [drawer(affine, points) for affine in maps]
    for affine, colors in zip(maps, drawn, strict=True):  # each its own, not what was replayed last
        torch.testing.assert_close(colors, Counted()(affine, points))
    assert (counted.calls, len(recorded), recorded[0].replays) == (1, 1, 2)
    moved = points + 1
    torch.testing.assert_close(drawer(maps[0], moved), Counted()(maps[0], moved))


def test_many_pixels_and_many_shapes_are_not_recorded(
    recorded: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MAX_PIXELS", 10)
    monkeypatch.setattr(graphs, "MAX_SHAPES", 2)
    counted = Counted()
    drawer = Recorded(counted)
    for count in (11, 1, 2, 3):
        for _ in range(2):
            drawer(torch.rand(1, 2, 3, 4), torch.rand(count, 3))
    assert len(recorded) == 2
    assert counted.calls == 2 + 1 + 1 + 2
