"""GAN inversion: optimize latents until their image matches a target.

Starting points in a latent space, then Adam and L-BFGS from each.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import ConfigError, PolyinrError
from polyinr_core.images.grid import Pixels, blank, make_grid, to_uint8
from polyinr_core.latents.latents import Latents, Space, in_space, parse_label
from polyinr_core.metrics.image_similarity import psnr, ssim
from polyinr_core.models.coordinates import UNIT, Window
from polyinr_core.models.generator import Generator, Synthesis, check_label
from polyinr_core.rendering.model import Model
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.rng import generator_for

from .loss import InversionLoss, LossName, TargetGrid, TargetImage, TargetLoss, load_loss, load_target, target_grid

PsnrProgress = Callable[[int, int, float], None]  # steps done, maximum of steps, best PSNR so far in dB

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
EXACT_PSNR = 60.0  # dB: invisible in 8 bits
MAX_PSNR = 99.0  # dB, of colors before quantization
NOT_FINITE = "the model produced NaN or Inf in this window; use a smaller window or another model"


@dataclass(frozen=True)
class InversionResult:
    """The latents of a target image, the image they render to, and how close the two are.

    `latents` hold affine [1, L, 3, n] and, if those were searched, w or z. `image` [H, W, 3] is uint8. `psnr` is in
    dB and infinite for equal images; `ssim` is None below 11 pixels a side; `perceptual` is None for a loss of
    pixels alone. `loss` is the lowest value met, `steps` counts those of all starting points, and `start` is the
    index of the best one.
    """

    latents: Latents
    image: Pixels
    psnr: float
    ssim: float | None
    perceptual: float | None
    loss: float
    steps: int
    start: int
    seconds: float
    target: TargetImage
    grid: TargetGrid
    target_loss: TargetLoss

    @property
    def affine(self) -> Tensor:
        """The affine parameters [1, L, 3, n]."""
        return in_space(self.latents, "affine")

    def scores(self) -> dict[str, float | None]:
        """Return PSNR, SSIM and perceptual distance as JSON values; an infinite PSNR is None."""
        return {
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
            "ssim": self.ssim,
            "perceptual": self.perceptual,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what `polyinr invert --json` prints of one image."""
        height, width = self.image.shape[:2]
        facts: dict[str, Any] = {
            "photo": self.target.name,
            "size": [width, height],
            "photo_size": [self.target.width, self.target.height],
            "start": self.start,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            **self.scores(),
        }
        if self.latents.label is not None:
            facts["label"] = int(self.latents.label[0])
        return facts

    def __str__(self) -> str:
        words = [f"PSNR {self.psnr:.2f} dB"]
        words += [] if self.ssim is None else [f"SSIM {self.ssim:.4f}"]
        words += [] if self.perceptual is None else [f"perceptual {self.perceptual:.4f}"]
        return ", ".join(words)


def invert(
    model: Model | Checkpoint,
    image: PathLike | bytes | Image.Image | Pixels | TargetImage,
    *,
    steps: int = 400,
    space: Space = "affine",
    loss: LossName | InversionLoss = "auto",
    restarts: int = 1,
    seed: int = 0,
    label: int | str | None = None,
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    window: Window = UNIT,
    memory: int | None = None,
    progress: PsnrProgress | None = None,
) -> InversionResult:
    """Find the latents whose image matches a target image, on the model's device and in its dtype.

    Args:
        model: a model or a checkpoint.
        image: a path, the bytes of an image file, a PIL image, a uint8 array [H, W, 3], or a TargetImage.
        steps: the maximum of Adam steps from each starting point, at least 1; L-BFGS then refines the result.
        space: what is optimized. "affine" matches best; "w" and "z" stay closer to the training distribution.
        loss: a loss or its name, see `load_loss`.
        restarts: the number of starting points, at least 1; the best result is returned.
        seed: the seed of the random latents.
        label: the class to start from, a name or a number; by default that with the nearest mean image.
        size: (width, height) in pixels at which the images are compared; see `target_size` for the default.
        shorter_side: the shorter side in pixels, if the aspect ratio is to be kept.
        window: where the image lies on the plane: x0, y0, x1, y1.
        memory: the memory in bytes; larger images are processed in chunks. None is no limit.
        progress: called after each step with steps done, the maximum of steps and the best PSNR so far.

    Raises ConfigError, LabelError, FileError, and PolyinrError if the model produces NaN or Inf.
    """
    started = time.monotonic()
    checkpoint = model if isinstance(model, Checkpoint) else model.checkpoint
    generator, like = checkpoint.generator, checkpoint.generator.mapping.w_avg
    if steps < 1 or restarts < 1:
        raise ConfigError(f"{steps} steps from {restarts} starting points are too few; use at least 1 of each")
    if isinstance(label, str):
        label = parse_label(label, classes=generator.config.classes, class_names=checkpoint.class_names)
    target = load_target(image, size=size, shorter_side=shorter_side, resolution=checkpoint.resolution)
    if not isinstance(loss, InversionLoss):
        loss = load_loss(loss).to(like.device)

    height, width = target.pixels.shape[:2]
    regular_or_learned = checkpoint.grid(width, height, window=window)
    grid = target_grid(generator.config, width=width, height=height, like=like, grid=regular_or_learned, memory=memory)
    colors = target.colors(like)
    target_loss = loss.for_target(colors)
    spaces = search_spaces(generator, space, colors, restarts=restarts, seed=seed, label=label, window=window)
    best, start, taken = optimize(spaces, grid, target_loss, steps=steps, progress=progress)
    with torch.no_grad():
        latents = replace(spaces[start].latents(best.offset), model_sha256=checkpoint.sha256)
    affine = in_space(latents, "affine")
    return InversionResult(
        latents=latents,
        **_compare(generator.synthesis, affine, target=target, grid=grid, target_loss=target_loss),
        loss=best.loss,
        steps=taken,
        start=start,
        seconds=time.monotonic() - started,
        target=target,
        grid=grid,
        target_loss=target_loss,
    )


def render_with(result: InversionResult, synthesis: Synthesis) -> InversionResult:
    """Return a result with the image and the scores that another (tuned) synthesis network gives its latents."""
    target, grid, target_loss = result.target, result.grid, result.target_loss
    return replace(result, **_compare(synthesis, result.affine, target=target, grid=grid, target_loss=target_loss))


@torch.no_grad()
def _compare(
    synthesis: Synthesis, affine: Tensor, *, target: TargetImage, grid: TargetGrid, target_loss: TargetLoss
) -> dict[str, Any]:
    """Return the fields of InversionResult for the image of affine [1, L, 3, n] and its scores."""
    colors = grid.render(synthesis, affine)
    image = to_uint8(colors[0].permute(1, 2, 0))  # [H, W, 3]
    distance = target_loss(colors.clamp(-1, 1)).perceptual
    return {
        "image": image,
        "psnr": psnr(image, target.pixels),
        "ssim": ssim(image, target.pixels),
        "perceptual": None if distance is None else float(distance),
    }


def comparison_grid(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Return one image with a row for each target; smaller images stand at the top left of their cells."""
    images = [image for row in rows for image in row]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    cells = np.stack([blank((width, height))] * len(images))
    for cell, image in zip(cells, images, strict=True):
        cell[: image.shape[0], : image.shape[1]] = image
    return make_grid(cells, columns=len(rows[0]))


@dataclass(frozen=True)
class SearchSpace:
    """A latent space around a starting point, normalized: latents = origin + offset * scale.

    `origin` [1, ...] is the starting point in `space`. `scale`, which broadcasts to it, is the spread of random
    latents. `label` [1] is the class.
    """

    generator: Generator
    space: Space
    origin: Tensor
    scale: Tensor
    label: Tensor | None = None

    def latents(self, offset: Tensor) -> Latents:
        """Return the latents at an offset, differentiably: affine and what it is computed from."""
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
) -> list[SearchSpace]:
    """Return search spaces around `restarts` starting points for a target [1, 3, H, W], the best first.

    The first starting point is the mean image, of the given class or else of the class whose mean is nearest to
    the target. The others, and all of them in z, which has no mean, are the nearest of 256 random latents. The
    distance is the squared error of the pixels at 32 pixels a side. Raises LabelError.
    """
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
    scale = _scale(random, space)
    origins = [] if space == "z" else [mean if space == "w" else generator.affine(mean)]
    if restarts > len(origins):
        order = _squared_errors(generator, affine, target, window).argsort(stable=True)
        origins += [random[index : index + 1] for index in order[: restarts - len(origins)].tolist()]
    return [SearchSpace(generator, space, origin, scale, labels) for origin in origins]


def _scale(random: Tensor, space: Space) -> Tensor:
    """Return the scale of a search space from random latents [N, ...] of it.

    The levels differ in spread by a factor of a hundred. The scale of a row (x, y or 1 of each level) is the
    geometric mean of its own spread and that of all rows: measured, this beats either of the two.
    """
    if space == "z":
        return random.new_ones(())
    variance = random.var(dim=0)
    rows = variance.mean(dim=-1, keepdim=True).sqrt()  # [L, 3, 1] or [L, 1]
    overall = variance.mean().sqrt()
    return (rows * overall).sqrt().clamp_min(1e-3 * overall) if overall > 0 else torch.ones_like(rows)


def _squared_errors(generator: Generator, affine: Tensor, target: Tensor, window: Window) -> Tensor:
    """Return the mean squared errors [N] of the images of affine [N, L, 3, n] at START_SIDE pixels."""
    height, width = target.shape[-2:]
    shrink = min(1.0, START_SIDE / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = functional.interpolate(target, size=(height, width), mode="area")
    grid = target_grid(generator.config, width=width, height=height, like=target, window=window)
    errors = [
        (grid.render(generator.synthesis, batch).clamp(-1, 1) - small).square().mean(dim=(1, 2, 3))
        for batch in affine.split(START_BATCH)
    ]
    return torch.cat(errors)


class Optimum(NamedTuple):
    """The offset with the lowest loss in a search space, and its PSNR in dB before quantization."""

    offset: Tensor
    loss: float
    psnr: float


def optimize(
    spaces: Sequence[SearchSpace],
    grid: TargetGrid,
    target_loss: TargetLoss,
    *,
    steps: int,
    progress: PsnrProgress | None = None,
) -> tuple[Optimum, int, int]:
    """Minimize the loss from each starting point: by Adam, at most `steps` steps, then by L-BFGS.

    Returns the best optimum, the index of its search space, and the steps taken in all. Raises PolyinrError if
    a starting point renders to NaN or Inf.
    """
    best, start, taken = Optimum(spaces[0].origin, math.inf, -math.inf), 0, 0
    steps_each = (1 + MAX_REFINEMENT) * steps
    for index, space in enumerate(spaces):
        coarse, adam_steps = Optimum(space.origin, math.inf, -math.inf), 0
        for coarse, adam_steps in _adam(space, grid, target_loss, steps=steps):
            if progress is not None:
                progress(index * steps_each + adam_steps, len(spaces) * steps_each, coarse.psnr)
        if not math.isfinite(coarse.loss):
            raise PolyinrError(NOT_FINITE)
        fine, lbfgs_steps = coarse, 0
        for fine, lbfgs_steps in _lbfgs(space, grid, target_loss, coarse, max_steps=MAX_REFINEMENT * steps):
            if progress is not None:
                progress(index * steps_each + steps + lbfgs_steps, len(spaces) * steps_each, fine.psnr)
        taken += adam_steps + lbfgs_steps
        if fine.loss < best.loss:
            best, start = fine, index
    return best, start, taken


def learning_rate(step: int, steps: int, *, base: float = LEARNING_RATE) -> float:
    """Return the learning rate of a step: a linear warm-up over a twentieth of the steps, then a half cosine."""
    return base * min(1.0, (step + 1) / max(1.0, WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def psnr_of(squared_error: Tensor) -> float:
    """Return the PSNR in dB, at most 99, of a mean squared error of colors in [-1, 1] before quantization."""
    error = float(squared_error.detach()) / 4
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


def _render(space: SearchSpace, grid: TargetGrid, offset: Tensor) -> Tensor:
    return grid.render(space.generator.synthesis, in_space(space.latents(offset), "affine"))


def _adam(
    space: SearchSpace, grid: TargetGrid, target_loss: TargetLoss, *, steps: int
) -> Iterator[tuple[Optimum, int]]:
    """Yield the optimum so far and the steps done, after each step.

    Ends early when a quarter of the steps, at least 50, bring no improvement, or when the loss is not finite.
    """
    offset = torch.zeros_like(space.origin).requires_grad_()
    optimizer = torch.optim.Adam([offset], betas=BETAS)
    best = Optimum(offset.detach().clone(), math.inf, -math.inf)
    reference, reference_step = math.inf, 0  # the loss of the last improvement that counts, and its step
    for step in range(steps + 1):
        terms = target_loss(_render(space, grid, offset))
        loss = float(terms.loss.detach())
        if not math.isfinite(loss):
            return
        if loss < best.loss:
            best = Optimum(offset.detach().clone(), loss, psnr_of(terms.pixels))
        if loss < reference * (1 - MIN_IMPROVEMENT):
            reference, reference_step = loss, step
        yield best, step
        if step == steps or step - reference_step >= max(50, steps // 4):
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        (offset.grad,) = torch.autograd.grad(terms.loss, offset)
        optimizer.step()


def _lbfgs(
    space: SearchSpace, grid: TargetGrid, target_loss: TargetLoss, best: Optimum, *, max_steps: int
) -> Iterator[tuple[Optimum, int]]:
    """Refine an optimum by L-BFGS on the squared error; yield the best by the full loss and the steps done.

    The squared error alone is smooth, and where the model can reproduce the target a second-order method gains
    tens of decibels.
    """
    offset = best.offset.clone().requires_grad_()
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

    reference, reference_step = math.inf, 0
    for step in range(REFINEMENT_ROUND, max_steps + REFINEMENT_ROUND, REFINEMENT_ROUND):
        optimizer.step(closure)
        with torch.no_grad():
            terms = target_loss(_render(space, grid, offset))
        loss, psnr_now = float(terms.loss), psnr_of(terms.pixels)
        if not math.isfinite(loss):
            return
        if loss < best.loss:
            best = Optimum(offset.detach().clone(), loss, psnr_now)
        yield best, min(step, max_steps)
        if float(terms.pixels) < reference * (1 - MIN_REFINEMENT):
            reference, reference_step = float(terms.pixels), step
        if step - reference_step >= REFINEMENT_PATIENCE or psnr_now >= EXACT_PSNR:
            return
