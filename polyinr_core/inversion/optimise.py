"""The search for the latents of a photo: Adam on an offset, a polish, the best point kept, several starts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ConfigError, PolyinrError
from ..latents.file import Latents
from .canvas import Canvas
from .objective import Aim, Terms
from .start import Chart

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


def search(
    starts: Sequence[Chart], canvas: Canvas, aim: Aim, *, steps: int, report: Report | None = None
) -> Found:
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
    optimiser = torch.optim.Adam([offset], betas=BETAS)
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
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps)
        (offset.grad,) = torch.autograd.grad(terms.loss, offset)
        optimiser.step()
    if not math.isfinite(best_loss):
        raise PolyinrError(
            "the model gives colours that are no numbers here; take a smaller window, or another model"
        )
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
    optimiser = torch.optim.LBFGS(
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
        optimiser.step(closure)
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
    """Return the PSNR of colours in [-1, 1] before they are rounded, at most 99 dB."""
    error = float(terms.pixels.detach()) / 4
    return min(99.0, -10 * math.log10(error)) if error > 0 else 99.0


def _detached(latents: Latents) -> Latents:
    def still(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone()

    return replace(latents, z=still(latents.z), w=still(latents.w), affine=still(latents.affine))
