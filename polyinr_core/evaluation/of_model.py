"""Figures of a model one after another, those that no distance of sets of pictures is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import RequestError
from .drawn import DrawnPictures
from .figures import Row
from .inputs import Pictures
from .inverting import inversion_rows, invert_pictures
from .looking import Progress
from .model_figures import Means, ModelFigure
from .path import model_path_lengths, path_row
from .speed import parameter_rows, speed_row

STEPS = 400  # of inversion, as `polyinr invert`


@dataclass(frozen=True)
class ModelSettings:
    """`steps` of inversion; `bootstrap` resamples, 0 for none; `memory` in bytes, None for any."""

    steps: int = STEPS
    bootstrap: int = 0
    memory: int | None = None


def check_figures(
    figures: Mapping[str, ModelFigure], model: DrawnPictures, reals: Pictures | None, settings: ModelSettings
) -> None:
    """Raise RequestError before anything is computed, if these figures cannot be taken."""
    for name, figure in figures.items():
        if figure.kind == "inversion" and settings.bootstrap and reals is not None and len(reals) < 2:
            raise RequestError(f"{name} with intervals needs 2 reals or more; {reals.name} gives {len(reals)}")
        if figure.kind == "ppl" and settings.bootstrap and len(model) < 2:
            raise RequestError(f"{name} with intervals needs 2 fakes or more; {model.name} gives {len(model)}")


def model_rows(
    figures: Mapping[str, ModelFigure],
    model: DrawnPictures,
    reals: Pictures | None,
    means: Means,
    settings: ModelSettings,
    *,
    device: torch.device,
    progress: Callable[[str], Progress],
) -> tuple[dict[str, Row], dict[str, list[dict[str, Any]]]]:
    """Return the rows of path lengths, inversion, speed and parameters, and what was found picture by picture.

    `progress` makes a callback for a description. Inversion takes the `reals`, in their order. Raises
    PolyinrError.
    """
    rows: dict[str, Row] = {}
    pictures: dict[str, list[dict[str, Any]]] = {}
    looks = {name: look.to(device) for name, look in means.looks.items()}
    how: dict[str, Any] = {"side": model.side, "psi": model.psi, "label": model.label}
    for name, figure in figures.items():
        if figure.kind == "ppl":
            lengths = model_path_lengths(
                model.snapshot, looks[figure.network], count=len(model), progress=progress("paths"), **how
            )
            rows[name] = path_row(lengths, resamples=settings.bootstrap)
        elif figure.kind == "inversion":
            assert reals is not None
            assert means.objective is not None
            pictures[name] = invert_pictures(
                reals,
                model.snapshot,
                means.objective.to(device),
                steps=settings.steps,
                lpips=looks.get("lpips"),
                label=model.label,
                memory=settings.memory,
                progress=progress("inverting"),
            )
            rows |= inversion_rows(pictures[name], resamples=settings.bootstrap)
        elif figure.kind == "speed":
            rows[name] = speed_row(model.snapshot, progress=progress("timing"), **how)
        elif figure.kind == "params":
            rows |= parameter_rows(model.snapshot)
    return rows, pictures
