"""Figures of a model one after another, those that no distance of sets of pictures is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import RequestError
from ..results.scales import base_of
from ..weights.pretrained import SOURCES, Packaged
from .drawn import DrawnPictures
from .figures import Row
from .inputs import Pictures
from .inverting import inversion_rows, invert_pictures
from .looking import Progress
from .model_figures import Means, ModelFigure, rule_of
from .path import model_path_lengths, path_row
from .speed import parameter_rows, speed_row

STEPS = 400  # of inversion, as `polyinr invert`


@dataclass(frozen=True)
class ModelSettings:
    """`steps` of inversion; `memory` in bytes, None for any."""

    steps: int = STEPS
    memory: int | None = None


def check_looks(figures: Mapping[str, ModelFigure], model: DrawnPictures, means: Means) -> None:
    """Raise RequestError if pictures are too small for what looks at them."""
    for name, figure in figures.items():
        if figure.kind == "ppl" and model.side < means.looks[figure.network].least:
            least = means.looks[figure.network].least
            raise RequestError(
                f"{name} looks at {least} pixels or more, the model draws {model.side}: give --res"
            )


def model_rows(
    figures: Mapping[str, ModelFigure],
    model: DrawnPictures,
    reals: Pictures | None,
    means: Means,
    settings: ModelSettings,
    *,
    resamples: int,
    device: torch.device,
    progress: Callable[[str], Progress],
) -> tuple[dict[str, Row], dict[str, list[dict[str, Any]]]]:
    """Return the rows of path lengths, inversion, speed and parameters, and what was found picture by picture.

    Intervals are of so many `resamples`, 0 for none. `progress` makes a callback for a description. Inversion
    takes the `reals`, in their order. Raises PolyinrError.
    """
    rows: dict[str, Row] = {}
    pictures: dict[str, list[dict[str, Any]]] = {}
    looks = {name: look.to(device) for name, look in means.looks.items()}
    how: dict[str, Any] = {"side": model.side, "psi": model.psi, "labels": model.labels}
    for name, figure in figures.items():
        if figure.kind == "ppl":
            lengths = model_path_lengths(
                model.snapshot, looks[figure.network], count=len(model), progress=progress("paths"), **how
            )
            rows[name] = path_row(lengths, resamples=resamples)
        elif figure.kind == "inversion":
            assert reals is not None
            assert means.objective is not None
            lpips = looks.get("lpips")
            pictures[name] = invert_pictures(
                reals,
                model.snapshot,
                means.objective.to(device),
                steps=settings.steps,
                lpips=lpips if lpips is not None and reals.side >= lpips.least else None,
                label=model.labels.label,
                memory=settings.memory,
                progress=progress("inverting"),
            )
            rows |= inversion_rows(pictures[name], resamples=resamples)
        elif figure.kind == "speed":
            rows[name] = speed_row(model.snapshot, progress=progress("timing"), **how)
        elif figure.kind == "params":
            rows |= parameter_rows(model.snapshot)
    return rows, pictures


def card_facts(
    figures: Mapping[str, ModelFigure], model: DrawnPictures, means: Means, settings: ModelSettings
) -> dict[str, dict[str, Any]]:
    """Return what a card says of these figures: their protocols, and the networks that looked."""
    protocols: dict[str, Any] = {}
    networks = {name: {"sha256": look.sha256, "resize": look.resize} for name, look in means.looks.items()}
    for name, figure in figures.items():
        facts: dict[str, Any] = {"rule": rule_of(figure, means, steps=settings.steps)}
        if figure.kind == "ppl":
            facts |= {"network": figure.network, "tap": "several depths", "paths": len(model)}
        elif figure.kind == "upsampling":
            facts |= {"network": figure.network, "tap": "pooled", "trained_resolution": model.snapshot.resolution}
        elif figure.kind == "inversion":
            assert means.objective is not None
            facts |= {"network": means.objective.name, "tap": "several depths"}
            guide = SOURCES.get(means.objective.name)
            if isinstance(guide, Packaged):
                networks[means.objective.name] = {"sha256": guide.sha256, "resize": "none"}
        protocols[name] = facts
    return {"protocols": protocols, "networks": networks}


def with_figures(
    result: Mapping[str, Any],
    rows: Mapping[str, Row],
    pictures: Mapping[str, list[dict[str, Any]]],
    facts: Mapping[str, dict[str, Any]],
    *,
    drawn: bool,
) -> dict[str, Any]:
    """Return a result with more figures, and with their facts on its card.

    Where no figure is of many pictures, `drawn` false, the card says nothing of how many and which.
    """
    card = dict(result["card"])
    for part, more in facts.items():
        card[part] = {
            **more,
            **{name: fact for name, fact in card[part].items() if base_of(name) not in more},
        }
    if not drawn:
        card["fakes"] = {name: fact for name, fact in card["fakes"].items() if name not in ("count", "seeds")}
    joined = {**result, "figures": {**result["figures"], **rows}, "card": card}
    return {**joined, "pictures": dict(pictures)} if pictures else joined
