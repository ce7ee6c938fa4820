"""Figures of a model by name: what each needs, by which rule it is taken, and what looks at its pictures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..inversion.choice import choose_objective
from ..inversion.objective import Objective
from ..metrics.looks import Look, load_look
from ..metrics.rules import Metric, is_network
from ..weights.lpips import cached_vgg16
from . import inverting, path, speed

Kind = Literal["ppl", "inversion", "upsampling", "speed", "params"]
FORMS = "ppl, ppl-lite2, inversion, upsampling or upsampling-X, speed, params"


@dataclass(frozen=True)
class ModelFigure:
    """One figure of a model; `network` is what looks: of path lengths lpips or lite2, of upsampling any."""

    kind: Kind
    network: str = ""

    @property
    def needs_reals(self) -> bool:
        return self.kind in ("inversion", "upsampling")

    @property
    def draws(self) -> bool:
        """Whether it is taken of so many pictures."""
        return self.kind in ("ppl", "upsampling")

    @property
    def metric(self) -> Metric:
        """The distance that upsampling takes."""
        return Metric(self.network, "frechet")


def model_figure_named(name: str) -> ModelFigure | None:
    """Return the figure of that name, None for another kind of metric, or no metric."""
    if name in ("inversion", "speed", "params"):
        return ModelFigure(name)  # type: ignore[arg-type]
    kind, dash, network = name.partition("-")
    if kind == "ppl" and (network == "lite2" or not dash):
        return ModelFigure("ppl", network or "lpips")
    if kind == "upsampling" and (is_network(network) or not dash):
        return ModelFigure("upsampling", network or "lite2")
    return None


@dataclass(frozen=True)
class Means:
    """What looks: distances for path lengths and inversion by name, and the objective of inversion."""

    looks: Mapping[str, Look]
    objective: Objective | None = None


def weights_of(figures: Iterable[ModelFigure]) -> set[str]:
    """Return the names by which a person gives weights for these figures, but for upsampling's networks."""
    names = {figure.network for figure in figures if figure.kind == "ppl"}
    return names | ({"lpips"} if any(figure.kind == "inversion" for figure in figures) else set())


def load_means(figures: Iterable[ModelFigure], files: Mapping[str, Path]) -> Means:
    """Load what the figures need, on the CPU; `files` holds weights by `weights_of`. Raises WeightsError.

    Inversion is guided by LPIPS and measured in it where VGG16 is at hand, else guided by EfficientNet-lite0.
    """
    figures = list(figures)
    inverted = any(figure.kind == "inversion" for figure in figures)
    vgg16 = files.get("lpips") or cached_vgg16()
    names = {figure.network for figure in figures if figure.kind == "ppl"}
    if inverted and vgg16 is not None:
        names.add("lpips")
    looks = {name: load_look(name, files.get(name)) for name in sorted(names)}  # type: ignore[arg-type]
    return Means(looks, choose_objective("auto", vgg16=vgg16) if inverted else None)


def rule_of(figure: ModelFigure, means: Means, *, steps: int) -> str:
    """Return what a figure is, in words, for cards."""
    if figure.kind == "inversion":
        assert means.objective is not None
        return inverting.rule_of(means.objective, steps)
    if figure.kind == "upsampling":
        return f"{figure.metric.rule}; drawn at once, and at the training resolution, then enlarged by Pillow"
    return {"ppl": path.RULE, "speed": speed.RULE, "params": speed.PARTS_RULE}[figure.kind]
