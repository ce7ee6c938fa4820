"""Where a search begins and how far a step reaches: means, seeds, and the spread of a model's latents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import ConfigError, PolyinrError
from polyinr_core.images.grid import Pixels
from polyinr_core.latents.latents import Latents
from polyinr_core.models.coordinates import UNIT, Bounds
from polyinr_core.models.generator import Generator, check_label
from polyinr_core.runtime.rng import generator_for

from .loss import Aim, Objective, Score, Terms, score
from .target import Canvas, Photo, canvas_for

Space = Literal["affine", "w", "z"]
SPACES: tuple[Space, ...] = ("affine", "w", "z")
SAMPLES = 256  # latents that measure the spread, and among which a start is looked for
LOOK = 32  # the longer side at which starts are compared
AT_ONCE = 16


@dataclass(frozen=True)
class Chart:
    """A space around a start: an offset is counted in the spread of the model's own latents.

    `origin` is the start's tensor in `space`, [1, ...]; `scale`, of a shape that fits it, is what an offset of 1
    means. `label` [1] is the class of z.
    """

    generator: Generator
    space: Space
    origin: Tensor
    scale: Tensor
    label: Tensor | None = None

    def at(self, offset: Tensor) -> Latents:
        """Return the latents at an offset, with gradients: affine maps always, and what they came from."""
        here = self.origin + offset * self.scale
        if self.space == "affine":
            return Latents(affine=here, label=self.label)
        if self.space == "w":
            return Latents(w=here, affine=self.generator.affine(here), label=self.label)
        w = self.generator.w(here, self.label)
        return Latents(z=here, w=w, affine=self.generator.affine(w), label=self.label)


@torch.no_grad()
def charts(
    generator: Generator,
    space: Space,
    target: Tensor,
    *,
    restarts: int,
    seed: int,
    label: int | None = None,
    bounds: Bounds = UNIT,
) -> list[Chart]:
    """Return so many places to start from for a photo [1, 3, H, W], the most promising first.

    The first is the model's mean image; without a `label`, that of the class whose mean is nearest to the
    photo. The others, and in z, which has no mean, all of them, are the random latents nearest to the photo.
    Nearness is that of pixels at 32 pixels a side. `seed` draws the latents. Raises LabelError.
    """
    classes, like = generator.config.classes, generator.mapping.w_avg
    if classes and label is None:
        means = torch.arange(classes, device=like.device)
        w = generator.mapping.w_avg_for(means).unsqueeze(1).expand(-1, generator.config.levels, -1)
        label = int(_errors(generator, generator.affine(w), target, bounds).argmin())
    own = None if label is None else torch.tensor([label], device=like.device)
    check_label(own, classes=classes)

    z = torch.randn(SAMPLES, generator.config.z_dim, generator=generator_for(seed, "invert")).to(like)
    w = generator.w(z, None if own is None else own.expand(SAMPLES))
    affine = generator.affine(w)
    mean = generator.mapping.w_avg_for(own).reshape(1, 1, -1).repeat(1, generator.config.levels, 1)
    random = {"affine": affine, "w": w, "z": z}[space]
    scale = _scale(random, space)
    origins = [] if space == "z" else [mean if space == "w" else generator.affine(mean)]
    if restarts > len(origins):
        order = _errors(generator, affine, target, bounds).argsort(stable=True)
        origins += [random[index : index + 1] for index in order[: restarts - len(origins)].tolist()]
    return [Chart(generator, space, origin, scale, own) for origin in origins]


def _scale(random: Tensor, space: Space) -> Tensor:
    """Return what one step is in a space, from random latents of it.

    Levels differ in spread a hundredfold. A row of an affine map (those for x, y and 1 of each level) steps by
    the geometric mean of its own spread and that of all rows: measured, this beats either of the two.
    """
    if space == "z":
        return random.new_ones(())
    variance = random.var(dim=0)
    rows = variance.mean(dim=-1, keepdim=True).sqrt()  # [L, 3, 1] or [L, 1]
    whole = variance.mean().sqrt()
    return (rows * whole).sqrt().clamp_min(1e-3 * whole) if whole > 0 else torch.ones_like(rows)


def _errors(generator: Generator, affine: Tensor, target: Tensor, bounds: Bounds) -> Tensor:
    """Return the mean squared errors [N] of images of affine maps [N, L, 3, n], at a small size."""
    height, width = target.shape[-2:]
    shrink = min(1.0, LOOK / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = functional.interpolate(target, size=(height, width), mode="area")
    canvas = canvas_for(generator.config, width=width, height=height, like=target, bounds=bounds)
    errors = [
        (canvas.draw(generator.synthesis, part).clamp(-1, 1) - small).square().mean(dim=(1, 2, 3))
        for part in affine.split(AT_ONCE)
    ]
    return torch.cat(errors)


RATE = 0.1  # of Adam, in the spread of the model's latents
BETAS = (0.9, 0.99)
WARM_UP = 0.05  # part of the steps in which the rate rises
POLISH, POLISH_ROUND = (
    4,
    10,
)  # at most so many times the steps, cheaper ones; between looks at the whole objective
POLISH_PATIENCE, POLISH_WORTH = 100, 0.07  # it ends when so many steps brought less than 0.3 decibels
EXACT = 60.0  # decibels: 8 bits cannot tell
WORTH = 1e-3  # a smaller part of the loss is no improvement

Report = Callable[[int, int, float], None]  # steps done, steps at most, PSNR of the best so far


@dataclass(frozen=True)
class Found:
    """The best point of a search: its latents, its loss, where it stopped."""

    latents: Latents
    loss: float
    steps: int  # taken, by all starts
    start: int = 0  # which of the starts led here


def rate_at(step: int, steps: int, *, rate: float = RATE) -> float:
    """Return the learning rate of a step: risen linearly over the first twentieth, then a half cosine down."""
    return rate * min(1.0, (step + 1) / max(1.0, WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def search(starts: Sequence[Chart], canvas: Canvas, aim: Aim, *, steps: int, report: Report | None = None) -> Found:
    """Search from each start for at most `steps` steps, polish each, and return the best point of all.

    A start is given up when a quarter of its steps, at least 50, brought no improvement. `report` is told of
    every step, those of the polish among them. Raises ConfigError, and PolyinrError when
    the model draws no numbers.
    """
    if steps < 1 or not starts:
        raise ConfigError(f"{steps} steps from {len(starts)} starts find nothing; at least 1 of each is needed")
    best: Found | None = None
    taken = 0
    for index, chart in enumerate(starts):
        each = (1 + POLISH) * steps

        def tell(done: int, psnr: float, before: int = index * each, of: int = len(starts) * each) -> None:
            if report is not None:
                report(before + done, of, psnr)

        found = descend(chart, canvas, aim, steps=steps, tell=tell)
        taken += found.steps
        if best is None or found.loss < best.loss:
            best = replace(found, start=index)
    assert best is not None
    return replace(best, steps=taken)


def descend(
    chart: Chart, canvas: Canvas, aim: Aim, *, steps: int, tell: Callable[[int, float], None] | None = None
) -> Found:
    """Search from one start. Raises PolyinrError when not even the start draws numbers."""
    synthesis = chart.generator.synthesis
    offset = torch.zeros_like(chart.origin).requires_grad_()
    optimizer = torch.optim.Adam([offset], betas=BETAS)
    best, best_loss, best_psnr = offset.detach().clone(), math.inf, -math.inf
    mark, marked = math.inf, 0  # the loss that counts as the last improvement, and its step
    step = 0
    for step in range(steps + 1):
        affine = chart.at(offset).affine
        assert affine is not None
        terms = aim.terms(canvas.draw(synthesis, affine))
        loss = float(terms.loss.detach())
        if not math.isfinite(loss):
            break
        if loss < best_loss:
            best, best_loss, best_psnr = offset.detach().clone(), loss, decibels(terms)
        if loss < mark * (1 - WORTH):
            mark, marked = loss, step
        if tell is not None:
            tell(min(step, steps), best_psnr)
        if step == steps or step - marked >= max(50, steps // 4):
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        (offset.grad,) = torch.autograd.grad(terms.loss, offset)
        optimizer.step()
    if not math.isfinite(best_loss):
        raise PolyinrError("the model gives colors that are no numbers here; take a smaller window, or another model")
    best, best_loss, polished = _polish(
        chart,
        canvas,
        aim,
        best,
        best_loss,
        most=POLISH * steps,
        tell=None if tell is None else lambda done, psnr: tell(steps + done, psnr),
    )
    with torch.no_grad():
        return Found(_detached(chart.at(best)), best_loss, steps=step + polished)


def _polish(
    chart: Chart,
    canvas: Canvas,
    aim: Aim,
    best: Tensor,
    best_loss: float,
    *,
    most: int,
    tell: Callable[[int, float], None] | None,
) -> tuple[Tensor, float, int]:
    """Go on by L-BFGS on the pixels' error, keeping what the whole objective finds better.

    Pixels alone are smooth, and near the end a second-order method is worth tens of decibels where the model
    can draw the photo at all. Returns (offset, loss, steps taken).
    """
    offset = best.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [offset],
        max_iter=POLISH_ROUND,
        max_eval=2 * POLISH_ROUND,
        history_size=100,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def drawn() -> Tensor:
        affine = chart.at(offset).affine
        assert affine is not None
        return canvas.draw(chart.generator.synthesis, affine)

    def closure() -> Tensor:
        error = (aim.ended(drawn()) - aim.target).square().mean()
        (offset.grad,) = torch.autograd.grad(error, offset)
        return error

    done = 0
    mark, marked = math.inf, 0
    for done in range(POLISH_ROUND, most + POLISH_ROUND, POLISH_ROUND):
        optimizer.step(closure)
        with torch.no_grad():
            terms = aim.terms(drawn())
        loss = float(terms.loss)
        if not math.isfinite(loss):
            break
        if loss < best_loss:
            best, best_loss = offset.detach().clone(), loss
        if tell is not None:
            tell(min(done, most), decibels(terms))
        if float(terms.pixels) < mark * (1 - POLISH_WORTH):
            mark, marked = float(terms.pixels), done
        if done - marked >= POLISH_PATIENCE or decibels(terms) >= EXACT:
            break
    return best, best_loss, min(done, most)


def decibels(terms: Terms) -> float:
    """Return the PSNR of colors in [-1, 1] before they are rounded, at most 99 dB."""
    error = float(terms.pixels.detach()) / 4
    return min(99.0, -10 * math.log10(error)) if error > 0 else 99.0


def _detached(latents: Latents) -> Latents:
    def still(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone()

    return replace(latents, z=still(latents.z), w=still(latents.w), affine=still(latents.affine))


@dataclass(frozen=True)
class Match:
    """One photo and what was found for it: affine maps [1, L, 3, n]."""

    affine: Tensor
    canvas: Canvas
    aim: Aim


@dataclass(frozen=True)
class PhotoMatch:
    """What matches a photo: where it was found, how near it is, its pixels [H, W, 3] as of a file."""

    match: Match
    found: Found
    score: Score
    drawn: Pixels


def match_photo(
    photo: Photo,
    checkpoint: Checkpoint,
    objective: Objective,
    *,
    space: Space = "affine",
    window: Bounds = UNIT,
    steps: int,
    restarts: int = 1,
    seed: int = 0,
    label: int | None = None,
    memory: int | None = None,
    report: Report | None = None,
) -> PhotoMatch:
    """Search for a photo's latents, on the device that the generator and the objective's network are on.

    `memory` is what there is in bytes, None for as much as it takes. Raises PolyinrError.
    """
    generator, like = checkpoint.generator, checkpoint.generator.mapping.w_avg
    height, width = photo.pixels.shape[:2]
    grid = checkpoint.grid(width, height, bounds=window)
    canvas = canvas_for(generator.config, width=width, height=height, like=like, grid=grid, memory=memory)
    colors = photo.target(like)
    aim = objective.aim(colors)
    starts = charts(generator, space, colors, restarts=restarts, seed=seed, label=label, bounds=window)
    found = search(starts, canvas, aim, steps=steps, report=report)
    affine = found.latents.affine
    assert affine is not None
    value, drawn = score(generator.synthesis, affine, photo, canvas, aim)
    return PhotoMatch(Match(affine, canvas, aim), found, value, drawn)
