"""All that is wanted of images and of a model, in one result with one card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from polyinr_core.errors import RequestError
from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_pass import Progress
from polyinr_core.metrics.feature_statistics import Seen
from polyinr_core.metrics.registry import Metric, Sense
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .generated_images import DrawnImages
from .model_metrics import Means, ModelSettings, card_facts, check_looks, model_rows, with_figures
from .protocols import Wanted
from .set_metrics import Settings, Side, check, evaluate
from .statistics_io import SavedStatistics
from .upsampling import drawn_at_once, enlarged_rows, small_of


@dataclass(frozen=True)
class Subject:
    """What is measured: `reals` where a metric looks at them; `fakes`, a model where figures are of one."""

    wanted: Wanted
    reals: Side | None
    fakes: Side

    @property
    def upsampling(self) -> dict[str, Metric]:
        """The distances of enlarged images, by the names of the figures that want them."""
        return {name: figure.metric for name, figure in self.wanted.figures.items() if figure.kind == "upsampling"}

    @property
    def metrics(self) -> dict[str, Metric]:
        """All distances of the reals from the fakes as they are."""
        return {
            **self.wanted.metrics,
            **{drawn_at_once(name): metric for name, metric in self.upsampling.items()},
        }

    @property
    def model(self) -> DrawnImages:
        """The model that draws. Raises RequestError where none does."""
        if not isinstance(self.fakes, DrawnImages):
            raise RequestError(f"{next(iter(self.wanted.figures))} is a figure of a model; {self.fakes.name} is none")
        return self.fakes

    def check(self, settings: Settings) -> None:
        """Raise RequestError before any network is loaded, if the figures cannot be taken."""
        check(self.reals, self.fakes, self.metrics, settings)
        if self.upsampling:
            small_of(self.model)
        for name, figure in self.wanted.figures.items() if settings.bootstrap else ():
            kind, side = ("reals", self.reals) if figure.kind == "inversion" else ("fakes", self.fakes)
            if figure.kind in ("ppl", "inversion") and side is not None and len(side) == 1:
                raise RequestError(f"{name} with intervals needs 2 {kind} or more; {side.name} gives 1")
        if "inversion" in self.wanted.figures and isinstance(self.reals, SavedStatistics):
            raise RequestError(f"{self.reals.name} holds statistics; inversion needs the images")


def measure(
    subject: Subject,
    networks: Mapping[str, FeatureNetwork],
    means: Means,
    settings: Settings,
    model_settings: ModelSettings,
    *,
    device: torch.device,
    progress: Callable[[str], Progress],
    ranks: DistributedContext = SINGLE_PROCESS,
    warn: Callable[[str], None] | None = None,
    keep_reals: Callable[[Mapping[Sense, Seen]], None] | None = None,
) -> dict[str, Any]:
    """Return {"format", "figures", "card"} and, of inversion, "images", on the leading rank; each must call it.

    Paths, inversion and times are the leading rank's alone. `progress`, `warn` and `keep_reals` are those of
    `measure.evaluate`. Raises PolyinrError.
    """
    subject.check(settings)
    figures, reals = subject.wanted.figures, subject.reals
    if figures:
        images = None if isinstance(reals, SavedStatistics) else reals
        check_looks(figures, subject.model, means)
    seen_reals: dict[Sense, Seen] = {}

    def keep(seen: Mapping[Sense, Seen]) -> None:
        seen_reals.update(seen)
        if keep_reals is not None:
            keep_reals(seen)

    result = evaluate(
        reals,
        subject.fakes,
        subject.metrics,
        networks,
        device=device,
        settings=settings,
        progress=progress,
        ranks=ranks,
        warn=warn,
        keep_reals=keep,
    )
    if not figures:
        return result
    rows = {}
    if subject.upsampling:
        rows = enlarged_rows(
            subject.upsampling,
            subject.model,
            seen_reals,
            networks,
            settings,
            device=device,
            progress=progress("small fakes"),
            ranks=ranks,
        )
    if not ranks.is_main:
        return {}
    more, by_image = model_rows(
        figures,
        subject.model,
        images,
        means,
        model_settings,
        resamples=settings.bootstrap,
        device=device,
        progress=progress,
    )
    facts = card_facts(figures, subject.model, means, model_settings)
    return with_figures(result, rows | more, by_image, facts, drawn=bool(subject.wanted.of_many))
