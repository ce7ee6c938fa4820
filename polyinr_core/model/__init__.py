"""The polynomial generator: pure mathematics on tensors."""

from .config import PRESETS, GeneratorConfig
from .drawing import draw_rows
from .generator import Generator
from .grid import UNIT, Bounds, Grid, LearnedGrid, RegularGrid

__all__ = [
    "PRESETS",
    "UNIT",
    "Bounds",
    "Generator",
    "GeneratorConfig",
    "Grid",
    "LearnedGrid",
    "RegularGrid",
    "draw_rows",
]
