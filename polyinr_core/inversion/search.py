"""Search a latent space for the image of a target: starting points, then Adam and L-BFGS from each."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.errors import PolyinrError
from polyinr_core.latents.latents import Latents, Space, in_space
from polyinr_core.models.coordinates import UNIT, Window
from polyinr_core.models.generator import Generator, Synthesis, check_label
from polyinr_core.runtime.rng import generator_for

from .loss import TargetGrid, TargetLoss, target_grid

PsnrProgress = Callable[[int, int, float], None]  # steps done, maximum of steps, best PSNR so far in dB
Stop = Callable[[], bool]  # asked after each step: whether to end with the best found so far

RANDOM_LATENTS = 256  # for the scale of a search space and as candidates for further starting points
START_SIDE = 32  # longer side in pixels at which starting points are compared with the target
START_BATCH = 16
LEARNING_RATE = 0.1  # of Adam, in units of the search space's scale
BETAS = (0.9, 0.99)
WARM_UP = 0.05  # share of the steps in which the learning rate rises
MIN_IMPROVEMENT = 1e-3  # relative decrease of the loss that counts
MAX_REFINEMENT = 4  # maximum of L-BFGS steps, as a multiple of `steps`
REFINEMENT_ROUND = 10  # L-BFGS steps between evaluations of the full loss
REFINEMENT_PATIENCE = 100  # stop when so many steps reduce the squared error by less than
MIN_REFINEMENT = 0.07  # this share, 0.3 dB
LOSS_PATIENCE = 50  # and when so many bring no lower loss: the squared error of a photo falls at the features' expense
EXACT_PSNR = 60.0  # dB: invisible in 8 bits
MAX_PSNR = 99.0  # dB, of colors before quantization
NOT_FINITE = "the model produced NaN or Inf in this window; use a smaller window or another model"


@dataclass(frozen=True)
class SearchSpace:
    """A latent space around a starting point, normalized: latents = origin + offset * scale.

    `origin` [N, ...] holds the starting point of each image in `space`. `scale`, which broadcasts to it, is the spread
    of random latents. `label` [N] is the class.
    """

    generator: Generator
    space: Space
    origin: Tensor
    scale: Tensor
    label: Tensor | None = None

    def select(self, images: Sequence[int]) -> "SearchSpace":
        """Return the space of some of the images."""
        if len(images) == len(self.origin):
            return self
        index = torch.tensor(images, device=self.origin.device)
        label = None if self.label is None else self.label[index]
        return replace(self, origin=self.origin[index], scale=self.scale[index], label=label)

    def latents(self, offset: Tensor) -> Latents:
        """Return the latents at offsets, differentiably: affine and what it is computed from."""
        point = self.origin + offset * self.scale
        if self.space == "affine":
            return Latents(affine=point, label=self.label)
        if self.space == "w":
            return Latents(w=point, affine=self.generator.affine(point), label=self.label)
        w = self.generator.w(point, self.label)
        return Latents(z=point, w=w, affine=self.generator.affine(w), label=self.label)


@torch.no_grad()
def search_spaces(
    generator: Generator,
    space: Space,
    target: Tensor,
    *,
    restarts: int,
    seed: int,
    label: int | None = None,
    window: Window = UNIT,
    origin: Tensor | None = None,
    or_mean: bool = False,
) -> list[SearchSpace]:
    """Return search spaces around `restarts` starting points for targets [N, 3, H, W], the best first.

    The first starting point is `origin` [N, ...] in the space, such as an encoder's. Without it, or with `or_mean`
    where that is nearer, it is the mean image, of the given class or of the class whose mean is nearest to the
    target. The others, and all of them in z, which has no mean, are the nearest of 256 random latents. The distance
    is the squared error of the pixels at 32 pixels a side.
    Raises LabelError.
    """
    of_images = [
        _spaces_of_one(
            generator,
            space,
            target[index : index + 1],
            restarts=restarts,
            seed=seed,
            label=label,
            window=window,
            origin=None if origin is None else origin[index : index + 1],
            or_mean=or_mean,
        )
        for index in range(len(target))
    ]
    return [_stack(spaces) for spaces in zip(*of_images, strict=True)]


def _stack(spaces: Sequence[SearchSpace]) -> SearchSpace:
    """Return the spaces of N images as one."""
    first = spaces[0]
    labels = [one.label for one in spaces if one.label is not None]
    return replace(
        first,
        origin=torch.cat([one.origin for one in spaces]),
        scale=torch.stack([one.scale for one in spaces]),
        label=torch.cat(labels) if labels else None,
    )


def _spaces_of_one(
    generator: Generator,
    space: Space,
    target: Tensor,
    *,
    restarts: int,
    seed: int,
    label: int | None,
    window: Window,
    origin: Tensor | None,
    or_mean: bool,
) -> list[SearchSpace]:
    """Return the search spaces of one target [1, 3, H, W]."""
    config, like = generator.config, generator.mapping.w_avg
    if config.classes and label is None:
        w = generator.mapping.w_avg_for(torch.arange(config.classes, device=like.device))
        w = w.unsqueeze(1).expand(-1, config.levels, -1)  # [C, L, 512]
        label = int(_squared_errors(generator, generator.affine(w), target, window).argmin())
    labels = None if label is None else torch.tensor([label], device=like.device)
    check_label(labels, classes=config.classes)

    z = torch.randn(RANDOM_LATENTS, config.z_dim, generator=generator_for(seed, "invert")).to(like)
    w = generator.w(z, None if labels is None else labels.expand(RANDOM_LATENTS))
    affine = generator.affine(w)
    mean = generator.mapping.w_avg_for(labels).reshape(1, 1, -1).repeat(1, config.levels, 1)
    random = {"affine": affine, "w": w, "z": z}[space]
    scale = scale_of(random, space)
    origins = [] if space == "z" else [mean if space == "w" else generator.affine(mean)]
    if origin is not None:
        if or_mean and origins:  # of a photo unlike the model's images, an encoder may say anything
            both = torch.cat([origin, *origins])
            errors = _squared_errors(
                generator, both if space == "affine" else generator.affine(both), target, window, limit=math.inf
            )
            origin = both[[int(errors.nan_to_num(math.inf).argmin())]]
        origins = [origin]
    if restarts > len(origins):
        order = _squared_errors(generator, affine, target, window).argsort(stable=True)
        origins += [random[index : index + 1] for index in order[: restarts - len(origins)].tolist()]
    return [SearchSpace(generator, space, origin, scale, labels) for origin in origins]


def scale_of(random: Tensor, space: Space) -> Tensor:
    """Return the scale of a search space from random latents [N, ...] of it.

    The levels differ in spread by a factor of a hundred. The scale of a row (x, y or 1 of each level) is the
    geometric mean of its own spread and that of all rows: measured, this beats either of the two.
    """
    if space == "z":
        return random.new_ones(1)
    variance = random.var(dim=0)
    rows = variance.mean(dim=-1, keepdim=True).sqrt()  # [L, 3, 1] or [L, 1]
    overall = variance.mean().sqrt()
    return (rows * overall).sqrt().clamp_min(1e-3 * overall) if overall > 0 else torch.ones_like(rows)


def _squared_errors(
    generator: Generator, affine: Tensor, target: Tensor, window: Window, *, limit: float = 1.0
) -> Tensor:
    """Return the mean squared errors [N] of affine [N, L, 3, n], whose colors are clamped, at START_SIDE pixels."""
    height, width = target.shape[-2:]
    shrink = min(1.0, START_SIDE / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = functional.interpolate(target, size=(height, width), mode="area")
    grid = target_grid(generator.config, width=width, height=height, like=target, window=window)
    errors = [
        (grid.render(generator.synthesis, batch).clamp(-limit, limit) - small).square().mean(dim=(1, 2, 3))
        for batch in affine.split(START_BATCH)
    ]
    return torch.cat(errors)


class Optimum(NamedTuple):
    """The offset [1, ...] with the lowest loss in a search space, and its PSNR in dB before quantization."""

    offset: Tensor
    loss: float = math.inf
    psnr: float = -math.inf
    start: int = 0  # the index of its search space
    steps: int = 0  # of all search spaces so far


def optimize(
    spaces: Sequence[SearchSpace],
    grid: TargetGrid,
    target_loss: TargetLoss,
    *,
    steps: int,
    product_dtype: torch.dtype | None = None,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> list[Optimum]:
    """Minimize the loss of each image from each starting point: by Adam, at most `steps` steps, then by L-BFGS.

    The images are independent: each ends when it is done, and gets what it would get alone, up to rounding. Adam's
    gradients tolerate products in `product_dtype`, such as bfloat16; L-BFGS's line search does not. `stop` is asked
    after each step whether to end with the best so far. Returns the best optimum of each image. Raises PolyinrError if
    a starting point renders to NaN or Inf.
    """
    count = len(spaces[0].origin)
    best = [Optimum(spaces[0].origin[image : image + 1]) for image in range(count)]
    steps_each = (1 + MAX_REFINEMENT) * steps
    for start, space in enumerate(spaces):
        found, stopped = [Optimum(space.origin[image : image + 1]) for image in range(count)], False
        for phase in (
            _adam(space, grid, target_loss, found, steps=steps, product_dtype=product_dtype),
            _lbfgs(space, grid, target_loss, found, steps=steps),
        ):
            for done in phase:
                if progress is not None:
                    psnr = sum(one.psnr for one in found) / count
                    progress(start * steps_each + done, len(spaces) * steps_each, psnr)
                if stopped := stop():
                    break
            if not all(math.isfinite(one.loss) for one in found):
                raise PolyinrError(NOT_FINITE)
            if stopped:
                break
        for image, (old, new) in enumerate(zip(best, found, strict=True)):
            better = new._replace(start=start) if new.loss < old.loss else old
            best[image] = better._replace(steps=old.steps + new.steps)
        if stopped:
            break
    return best


def learning_rate(step: int, steps: int, *, base: float = LEARNING_RATE) -> float:
    """Return the learning rate of a step: a linear warm-up over a twentieth of the steps, then a half cosine."""
    return base * min(1.0, (step + 1) / max(1.0, WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def psnr_of(squared_error: Tensor) -> float:
    """Return the PSNR in dB, at most 99, of a mean squared error of colors in [-1, 1] before quantization."""
    error = float(squared_error.detach()) / 4
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


def _render(space: SearchSpace, grid: TargetGrid, offset: Tensor, synthesis: Synthesis | None = None) -> Tensor:
    synthesis = space.generator.synthesis if synthesis is None else synthesis
    return grid.render(synthesis, in_space(space.latents(offset), "affine"))


def _adam(
    space: SearchSpace,
    grid: TargetGrid,
    target_loss: TargetLoss,
    found: list[Optimum],
    *,
    steps: int,
    product_dtype: torch.dtype | None = None,
) -> Iterator[int]:
    """Improve the optimum of each image in `found`, all images together; yield the steps done after each step.

    An image ends early when a quarter of the steps, at least 50, bring no improvement, or when its loss is not finite.
    """
    synthesis = copy.copy(space.generator.synthesis)  # with the same weights
    synthesis.product_dtype = product_dtype
    offsets = [torch.zeros_like(one.offset).requires_grad_() for one in found]
    optimizer = torch.optim.Adam(offsets, betas=BETAS)
    references = [(math.inf, 0)] * len(found)  # the loss of the last improvement that counts, and its step
    active = list(range(len(found)))
    for step in range(steps + 1):
        offset = torch.cat([offsets[image] for image in active])
        terms = target_loss.select(active)(_render(space.select(active), grid, offset, synthesis))
        going = []  # the rows of the images that go on
        for row, (image, loss) in enumerate(zip(active, terms.loss.tolist(), strict=True)):
            if not math.isfinite(loss):
                continue
            found[image] = found[image]._replace(steps=step)
            if loss < found[image].loss:
                psnr = psnr_of(terms.pixels[row])
                found[image] = Optimum(offset[row : row + 1].detach().clone(), loss, psnr, steps=step)
            if loss < references[image][0] * (1 - MIN_IMPROVEMENT):
                references[image] = (loss, step)
            if step - references[image][1] < max(50, steps // 4):
                going.append(row)
        yield step
        if step == steps or not going:
            return
        active = [active[row] for row in going]
        optimizer.zero_grad()  # of images that ended, which the optimizer then leaves as they are
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        moving = [offsets[image] for image in active]
        for one, grad in zip(moving, torch.autograd.grad(terms.loss[going].sum(), moving), strict=True):
            one.grad = grad
        optimizer.step()


def _lbfgs(
    space: SearchSpace, grid: TargetGrid, target_loss: TargetLoss, found: list[Optimum], *, steps: int
) -> Iterator[int]:
    """Refine the optima by L-BFGS on the squared error; keep those best by the full loss; yield the steps done.

    The squared error alone is smooth, and where the model can reproduce the target a second-order method gains
    tens of decibels. The images take turns, a round of steps each, as each has a line search of its own.
    """
    max_steps, count = MAX_REFINEMENT * steps, len(found)
    runs = [_refine(space.select([image]), grid, target_loss.select([image]), found, image) for image in range(count)]
    taken, before = [0] * count, [one.steps for one in found]
    active = list(range(count))
    for step in range(REFINEMENT_ROUND, max_steps + REFINEMENT_ROUND if max_steps else 0, REFINEMENT_ROUND):
        for image in tuple(active):
            if not next(runs[image]):
                active.remove(image)
            taken[image] = min(step, max_steps)
            found[image] = found[image]._replace(steps=before[image] + taken[image])
            yield steps + sum(taken) // count
        if not active:
            return


def _refine(
    space: SearchSpace, grid: TargetGrid, target_loss: TargetLoss, found: list[Optimum], image: int
) -> Iterator[bool]:
    """Refine the optimum of one image, for ever; yield after each round of steps whether more are worth it."""
    offset = found[image].offset.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [offset],
        max_iter=REFINEMENT_ROUND,
        max_eval=2 * REFINEMENT_ROUND,
        history_size=100,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        error = (target_loss.clamp(_render(space, grid, offset)) - target_loss.target).square().mean()
        (offset.grad,) = torch.autograd.grad(error, offset)
        return error

    reference, reference_step, best_step, step = math.inf, 0, 0, 0
    while True:
        step += REFINEMENT_ROUND
        optimizer.step(closure)
        with torch.no_grad():
            terms = target_loss(_render(space, grid, offset))
        loss, psnr_now = float(terms.loss), psnr_of(terms.pixels)
        if not math.isfinite(loss):
            yield False
        if loss < found[image].loss:
            found[image], best_step = Optimum(offset.detach().clone(), loss, psnr_now), step
        if float(terms.pixels) < reference * (1 - MIN_REFINEMENT):
            reference, reference_step = float(terms.pixels), step
        is_stalled = step - reference_step >= REFINEMENT_PATIENCE or step - best_step >= LOSS_PATIENCE
        yield not is_stalled and psnr_now < EXACT_PSNR
