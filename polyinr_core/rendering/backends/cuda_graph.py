"""Drawing few pixels on a GPU: a drawer's launches recorded once a shape and then replayed together."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .select import Drawer

MAX_PIXELS = 2**14  # of all images drawn at once; with more, launches cost next to nothing
MAX_SHAPES = 4  # recorded, as each keeps its own memory


@dataclass(frozen=True)
class Recording:
    """A CUDA graph with the tensors that it reads and writes."""

    graph: "torch.cuda.CUDAGraph"
    affine: Tensor
    points: Tensor
    colors: Tensor


class Recorded:
    """Draw what a drawer on a GPU draws; the second call of a shape is recorded, later ones replay it.

    The first call is the drawer's own, in which it compiles and times whatever it wants. A recording holds on to
    the drawer's weights as they are: a network that changes needs a new one.
    """

    def __init__(self, drawer: "Drawer") -> None:
        self.drawer = drawer
        self.seen: set[tuple[object, ...]] = set()
        self.recordings: dict[tuple[object, ...], Recording] = {}
        self.lock = threading.Lock()  # a recording's tensors are for one call at a time

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3]."""
        shape = affine.shape, points.shape, affine.dtype
        if shape not in self.seen or len(affine) * points.shape[-2] > MAX_PIXELS:
            self.seen.add(shape)
            return self.drawer(affine, points)
        with self.lock, torch.cuda.device_of(affine):
            if shape not in self.recordings:
                if len(self.recordings) == MAX_SHAPES:
                    return self.drawer(affine, points)
                self.recordings[shape] = record(self.drawer, affine, points)
            recording = self.recordings[shape]
            recording.affine.copy_(affine)
            recording.points.copy_(points)
            recording.graph.replay()
            return recording.colors.clone()


def record(drawer: "Drawer", affine: Tensor, points: Tensor) -> Recording:
    """Record what a drawer launches for images of these shapes."""
    affine, points = affine.clone(), points.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        drawer(affine, points)  # libraries set up what they keep for a stream
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):  # not the one of PyTorch's own, which is for the first GPU used
        colors = drawer(affine, points)
    return Recording(graph, affine, points, colors)
