"""Figures of a model by name: what each needs, by which rule it is taken, and what looks at its images."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.images.grid import Pixels
from polyinr_core.inversion.invert import InversionResult, invert
from polyinr_core.inversion.loss import LOSS_DESCRIPTIONS, InversionLoss, load_loss
from polyinr_core.inversion.target import TargetImage
from polyinr_core.latents.latents import UNIFORM, LabelDistribution
from polyinr_core.metrics.bootstrap import bootstrap
from polyinr_core.metrics.feature_pass import Images, Progress
from polyinr_core.metrics.lpips import Look, cached_vgg16, load_look
from polyinr_core.metrics.ppl import EPSILON, PPL_RESOLUTION, path_length, path_lengths
from polyinr_core.metrics.registry import Metric, is_network
from polyinr_core.models.generator import count_parameters
from polyinr_core.rendering.render import pixels_per_batch
from polyinr_core.runtime.pretrained import SOURCES, Packaged

from .generated_images import DrawnImages, paint, w_of
from .results import base_of
from .set_metrics import Row

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
        """Whether it is taken of so many images."""
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
    objective: InversionLoss | None = None


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
    return Means(looks, load_loss("auto", vgg16=vgg16) if inverted else None)


def rule_of(figure: ModelFigure, means: Means, *, steps: int) -> str:
    """Return what a figure is, in words, for cards."""
    if figure.kind == "inversion":
        assert means.objective is not None
        return inversion_rule(means.objective, steps)
    if figure.kind == "upsampling":
        return f"{figure.metric.rule}; drawn at once, and at the training resolution, then enlarged by Pillow"
    return {"ppl": PATH_RULE, "speed": SPEED_RULE, "params": PARTS_RULE}[figure.kind]


PATH_RULE = (
    f"in w, at the start of the way from seed 2i to seed 2i + 1 in the class of seed 2i, a step of {EPSILON:g}; "
    f"drawn colors, above {PPL_RESOLUTION} px block means; mean between the 1st and 99th percentile"
)


@torch.no_grad()
def model_path_lengths(
    checkpoint: Checkpoint,
    look: Look,
    *,
    count: int,
    side: int,
    psi: float = 1.0,
    labels: LabelDistribution = UNIFORM,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the lengths [N], float64, of `count` paths between what seeds 0, 1, ... are in w.

    Path i leads from seed 2 i to seed 2 i + 1, both in the class that the first draws. Raises PolyinrError.
    """
    device = checkpoint.generator.mapping.w_avg.device
    step = max(1, pixels_per_batch(device) // (2 * side**2))
    found = []
    for start in range(0, count, step):
        stop = min(start + step, count)
        own = range(2 * start, 2 * stop, 2)
        starts, ends = (
            w_of(checkpoint, seeds, psi=psi, labels=labels, classes_of=own)
            for seeds in (own, range(2 * start + 1, 2 * stop, 2))
        )
        found.append(path_lengths(starts, ends, lambda w: paint(checkpoint, w, side=side), look).cpu())
        if progress is not None:
            progress(stop, count)
    return torch.cat(found)


def path_row(lengths: Tensor, *, resamples: int = 0) -> dict[str, float | int]:
    """Return the figure of lengths [N], with its interval from so many resamples, 0 for none."""
    if not resamples:
        return {"value": path_length(lengths)}
    found = bootstrap(lambda part: path_length(part.flatten()), lengths.unsqueeze(1), repeats=resamples)
    return {"value": found.value, **found.facts}


HIGHEST = 100.0  # dB: what an image counts that is matched to the last bit, whose PSNR is infinite


def inversion_rule(objective: InversionLoss, steps: int) -> str:
    """Return what is done with each image, in words."""
    return (
        f"affine maps by {LOSS_DESCRIPTIONS[objective.name]}, {steps} steps and a polish from one start; means over "
        f"8-bit images, (x + 1) 127.5 cut off, of PSNR (dB, at most {HIGHEST:g}), SSIM (11 x 11, sigma 1.5), LPIPS "
        "where VGG16 is at hand"
    )


def invert_images(
    reals: Images,
    checkpoint: Checkpoint,
    objective: InversionLoss,
    *,
    steps: int,
    lpips: Look | None = None,
    label: int | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return for each image its PSNR in dB, its SSIM (None below 11 pixels) and, with `lpips`, that distance.

    The generator and the networks are on one device. Raises PolyinrError.
    """
    device = checkpoint.generator.mapping.w_avg.device
    found: list[dict[str, Any]] = []
    for pixels in reals.passes():
        for image in pixels:
            own = image.permute(1, 2, 0).contiguous().cpu().numpy()
            target = TargetImage(f"image {len(found)}", own, reals.side, reals.side)
            one = invert(checkpoint, target, loss=objective, steps=steps, label=label, memory=memory)
            found.append(facts_of(one))
            if lpips is not None:
                ours, theirs = (colors(side, device) for side in (one.image, own))
                found[-1]["lpips"] = float(lpips(ours, theirs))
            if progress is not None:
                progress(len(found), len(reals))
    return found


def facts_of(result: InversionResult) -> dict[str, Any]:
    return {"psnr": min(result.psnr, HIGHEST), "ssim": result.ssim}


def colors(pixels: Pixels, device: torch.device) -> Tensor:
    """Bring 8-bit pixels [H, W, 3] to [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


def inversion_rows(found: Sequence[dict[str, Any]], *, resamples: int = 0) -> dict[str, dict[str, float | int]]:
    """Return the means over images, with their intervals from so many resamples, 0 for none."""
    rows = {}
    for name in found[0]:
        values = [one[name] for one in found]
        if None in values:
            continue
        row: dict[str, float | int] = {"value": math.fsum(values) / len(values)}
        if resamples:
            column = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
            row |= bootstrap(lambda part: float(part.mean()), column, repeats=resamples).facts
        rows[f"inversion/{name}"] = row
    return rows


REPEATS, WARM_UP = 10, 2
SPEED_RULE = f"seconds from z to colors, an image at a time, median of {REPEATS} after {WARM_UP} to warm up"
PARTS_RULE = "parameters of the generator in all, and of its parts"


def speed_row(
    checkpoint: Checkpoint,
    *,
    side: int,
    psi: float = 1.0,
    labels: LabelDistribution = UNIFORM,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | int]:
    """Return the median of the seconds that an image of `side` pixels takes, with the least and the most.

    On the device and in the number format that the generator is in. Paper, table 2.
    """
    device = checkpoint.generator.mapping.w_avg.device
    seconds = []
    for seed in range(WARM_UP + REPEATS):
        finish(device)
        clock = time.perf_counter()
        own = range(seed, seed + 1)
        paint(checkpoint, w_of(checkpoint, own, psi=psi, labels=labels, classes_of=own), side=side)
        finish(device)
        seconds.append(time.perf_counter() - clock)
        if progress is not None:
            progress(seed + 1, WARM_UP + REPEATS)
    taken = seconds[WARM_UP:]
    return {"value": float(np.median(taken)), "least": min(taken), "most": max(taken), "repeats": REPEATS}


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameter_rows(checkpoint: Checkpoint) -> dict[str, dict[str, float | int]]:
    """Return the numbers of parameters: in all, of the class table, mapping, affine maps and synthesis.

    Paper, table 1 d, counts all.
    """
    counts = count_parameters(checkpoint.generator)
    names = {part: "params" if part == "total" else f"params/{part}" for part in counts}
    return {names[part]: {"value": count} for part, count in counts.items()}


STEPS = 400  # of inversion, as `polyinr invert`


@dataclass(frozen=True)
class ModelSettings:
    """`steps` of inversion; `memory` in bytes, None for any."""

    steps: int = STEPS
    memory: int | None = None


def check_looks(figures: Mapping[str, ModelFigure], model: DrawnImages, means: Means) -> None:
    """Raise RequestError if images are too small for what looks at them."""
    for name, figure in figures.items():
        if figure.kind == "ppl" and model.side < means.looks[figure.network].least:
            least = means.looks[figure.network].least
            raise RequestError(f"{name} looks at {least} pixels or more, the model draws {model.side}: give --res")


def model_rows(
    figures: Mapping[str, ModelFigure],
    model: DrawnImages,
    reals: Images | None,
    means: Means,
    settings: ModelSettings,
    *,
    resamples: int,
    device: torch.device,
    progress: Callable[[str], Progress],
) -> tuple[dict[str, Row], dict[str, list[dict[str, Any]]]]:
    """Return the rows of path lengths, inversion, speed and parameters, and what was found image by image.

    Intervals are of so many `resamples`, 0 for none. `progress` makes a callback for a description. Inversion
    takes the `reals`, in their order. Raises PolyinrError.
    """
    rows: dict[str, Row] = {}
    images: dict[str, list[dict[str, Any]]] = {}
    looks = {name: look.to(device) for name, look in means.looks.items()}
    how: dict[str, Any] = {"side": model.side, "psi": model.psi, "labels": model.labels}
    for name, figure in figures.items():
        if figure.kind == "ppl":
            lengths = model_path_lengths(
                model.checkpoint, looks[figure.network], count=len(model), progress=progress("paths"), **how
            )
            rows[name] = path_row(lengths, resamples=resamples)
        elif figure.kind == "inversion":
            assert reals is not None
            assert means.objective is not None
            lpips = looks.get("lpips")
            images[name] = invert_images(
                reals,
                model.checkpoint,
                means.objective.to(device),
                steps=settings.steps,
                lpips=lpips if lpips is not None and reals.side >= lpips.least else None,
                label=model.labels.label,
                memory=settings.memory,
                progress=progress("inverting"),
            )
            rows |= inversion_rows(images[name], resamples=resamples)
        elif figure.kind == "speed":
            rows[name] = speed_row(model.checkpoint, progress=progress("timing"), **how)
        elif figure.kind == "params":
            rows |= parameter_rows(model.checkpoint)
    return rows, images


def card_facts(
    figures: Mapping[str, ModelFigure], model: DrawnImages, means: Means, settings: ModelSettings
) -> dict[str, dict[str, Any]]:
    """Return what a card says of these figures: their protocols, and the networks that looked."""
    protocols: dict[str, Any] = {}
    networks = {name: {"sha256": look.sha256, "resize": look.resize} for name, look in means.looks.items()}
    for name, figure in figures.items():
        facts: dict[str, Any] = {"rule": rule_of(figure, means, steps=settings.steps)}
        if figure.kind == "ppl":
            facts |= {"network": figure.network, "tap": "several depths", "paths": len(model)}
        elif figure.kind == "upsampling":
            facts |= {"network": figure.network, "tap": "pooled", "trained_resolution": model.checkpoint.resolution}
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
    images: Mapping[str, list[dict[str, Any]]],
    facts: Mapping[str, dict[str, Any]],
    *,
    drawn: bool,
) -> dict[str, Any]:
    """Return a result with more figures, and with their facts on its card.

    Where no figure is of many images, `drawn` false, the card says nothing of how many and which.
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
    return {**joined, "images": dict(images)} if images else joined
