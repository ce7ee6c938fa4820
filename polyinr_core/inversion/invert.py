"""GAN inversion: optimize latents until their image matches a target, and compare the two."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import ConfigError
from polyinr_core.images.grid import Pixels, blank, make_grid, to_uint8
from polyinr_core.latents.latents import Latents, Photo, Space, in_space, parse_label
from polyinr_core.metrics.image_similarity import psnr, ssim
from polyinr_core.models.coordinates import UNIT, Window
from polyinr_core.models.generator import Synthesis
from polyinr_core.rendering.model import Model
from polyinr_core.runtime.atomic_io import PathLike

from .loss import InversionLoss, LossName, TargetGrid, TargetImage, TargetLoss, load_loss, load_target, target_grid
from .search import PsnrProgress, Stop, optimize, search_spaces

DEFAULT_STEPS = 300  # 64 pixels a side and the bundled model: half a minute of one core


@dataclass(frozen=True)
class InversionResult:
    """The latents of a target image, the image they render to, and how close the two are.

    `latents` hold affine [1, L, 3, n] and, if those were searched, w or z. `image` [H, W, 3] is uint8. `psnr` is in
    dB and infinite for equal images; `ssim` is None below 11 pixels a side; `perceptual` is None for a loss of
    pixels alone. `loss` is the lowest value met, `steps` counts those of all starting points, and `start` is the
    index of the best one. `is_interrupted` says that the search was asked to stop before its end.
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
    is_interrupted: bool = False

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
    steps: int = DEFAULT_STEPS,
    space: Space = "affine",
    loss: LossName | InversionLoss = "auto",
    restarts: int = 1,
    seed: int = 0,
    label: int | str | None = None,
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    window: Window = UNIT,
    memory: int | None = None,
    start: Latents | None = None,
    product_dtype: torch.dtype | None = None,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> InversionResult:
    """Find the latents whose image matches a target image, on the model's device and in its dtype.

    Args:
        model: a model or a checkpoint.
        image: a path, the bytes of an image file, a PIL image, a uint8 array [H, W, 3], or a TargetImage.
        steps: the maximum of Adam steps from each starting point, at least 1; L-BFGS then refines the result. 0 gives
            `start` itself.
        space: what is optimized. "affine" matches best; "w" and "z" stay closer to the training distribution.
        loss: a loss or its name, see `load_loss`.
        restarts: the number of starting points, at least 1; the best result is returned.
        seed: the seed of the random latents.
        label: the class to start from, a name or a number; by default that with the nearest mean image.
        size: (width, height) in pixels at which the images are compared; see `target_size` for the default.
        shorter_side: the shorter side in pixels, if the aspect ratio is to be kept.
        window: where the image lies on the plane: x0, y0, x1, y1.
        memory: the memory in bytes; larger images are processed in chunks. None is no limit.
        start: one row of latents to start from, such as an encoder's, instead of the mean image.
        product_dtype: the dtype of the n x n products of Adam's steps; bfloat16 is faster where the hardware has it.
        progress: called after each step with steps done, the maximum of steps and the best PSNR so far.
        stop: asked after each step whether to end with the best so far.

    Raises ConfigError, RequestError, LabelError, FileError, and PolyinrError if the model produces NaN or Inf.
    """
    started, interrupted = time.monotonic(), False
    checkpoint = model if isinstance(model, Checkpoint) else model.checkpoint
    generator, like = checkpoint.generator, checkpoint.generator.mapping.w_avg
    if steps < (1 if start is None else 0) or restarts < 1:
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
    origin = None if start is None else in_space(start, space).to(like)
    spaces = search_spaces(
        generator, space, colors, restarts=restarts, seed=seed, label=label, window=window, origin=origin
    )

    def stopped() -> bool:
        nonlocal interrupted
        interrupted = interrupted or stop()
        return interrupted

    best, best_start, taken = optimize(
        spaces, grid, target_loss, steps=steps, product_dtype=product_dtype, progress=progress, stop=stopped
    )
    with torch.no_grad():
        latents = replace(spaces[best_start].latents(best.offset), model_sha256=checkpoint.sha256)
    affine = in_space(latents, "affine")
    comparison = _compare(generator.synthesis, affine, target=target, grid=grid, target_loss=target_loss)
    result = InversionResult(
        latents=latents,
        **comparison,
        loss=best.loss,
        steps=taken,
        start=best_start,
        is_interrupted=interrupted,
        seconds=time.monotonic() - started,
        target=target,
        grid=grid,
        target_loss=target_loss,
    )
    photo = Photo(target.name, (width, height), window, {"loss": loss.name, **result.scores()})
    return replace(result, latents=replace(latents, photos=(photo,)))


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
