"""Poly-INR, an implicit generative image model: load, sample, render, edit, invert, evaluate, train.

The names of `__all__` are imported on first use, so that `import polyinr_core` loads no torch:

    import polyinr_core as polyinr

    model = polyinr.load()
    images = model.sample(seeds=range(8), psi=0.7, resolution=256)

The library does not print, exit or read environment variables; docs/api.md describes it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from polyinr_core.data.prepare import prepare
    from polyinr_core.errors import PolyinrError
    from polyinr_core.evaluation.evaluate import evaluate
    from polyinr_core.gallery.builder import build_gallery
    from polyinr_core.inversion.invert import invert
    from polyinr_core.latents.directions import Directions, find_directions, move
    from polyinr_core.latents.interpolation import interpolate, mix, zoom
    from polyinr_core.latents.latents import Latents
    from polyinr_core.models.config import GeneratorConfig
    from polyinr_core.models.generator import Generator
    from polyinr_core.rendering.heatmap import heatmap
    from polyinr_core.rendering.model import Model, load
    from polyinr_core.rendering.viewport import Viewport
    from polyinr_core.report.page import build_report
    from polyinr_core.training.config import TrainingConfig
    from polyinr_core.training.loop import train

_MODULES = {
    "Checkpoint": "checkpoints.checkpoint",
    "Directions": "latents.directions",
    "Generator": "models.generator",
    "GeneratorConfig": "models.config",
    "Latents": "latents.latents",
    "Model": "rendering.model",
    "PolyinrError": "errors",
    "TrainingConfig": "training.config",
    "Viewport": "rendering.viewport",
    "build_gallery": "gallery.builder",
    "build_report": "report.page",
    "evaluate": "evaluation.evaluate",
    "find_directions": "latents.directions",
    "heatmap": "rendering.heatmap",
    "interpolate": "latents.interpolation",
    "invert": "inversion.invert",
    "load": "rendering.model",
    "load_checkpoint": "checkpoints.checkpoint",
    "mix": "latents.interpolation",
    "move": "latents.directions",
    "prepare": "data.prepare",
    "save_checkpoint": "checkpoints.checkpoint",
    "train": "training.loop",
    "zoom": "latents.interpolation",
}
__all__ = [
    "Checkpoint",
    "Directions",
    "Generator",
    "GeneratorConfig",
    "Latents",
    "Model",
    "PolyinrError",
    "TrainingConfig",
    "Viewport",
    "build_gallery",
    "build_report",
    "evaluate",
    "find_directions",
    "heatmap",
    "interpolate",
    "invert",
    "load",
    "load_checkpoint",
    "mix",
    "move",
    "prepare",
    "save_checkpoint",
    "train",
    "zoom",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use. Raises AttributeError."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
