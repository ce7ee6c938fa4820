"""The polynomial generator: pure mathematics on tensors."""

from .config import PRESETS, GeneratorConfig
from .drawing import draw_rows
from .generator import Generator
from .grid import UNIT, Blend, Bounds, Grid, LearnedGrid, Part, RegularGrid
from .view import View

__all__ = [
    "PRESETS",
    "UNIT",
    "Blend",
    "Bounds",
    "Generator",
    "GeneratorConfig",
    "Grid",
    "LearnedGrid",
    "Part",
    "RegularGrid",
    "View",
    "draw_rows",
]
