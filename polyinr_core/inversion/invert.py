"""GAN inversion: optimize latents until their image matches a target, and compare the two."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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

from .encoder import Encoder, default_encoder
from .loss import (
    InversionLoss,
    LossName,
    TargetGrid,
    TargetImage,
    TargetLoss,
    images_at_once,
    load_loss,
    load_target,
    target_grid,
)
from .search import MAX_REFINEMENT, PsnrProgress, Stop, optimize, search_spaces

DEFAULT_STEPS = 300  # 64 pixels a side and the bundled model: half a minute of one core
FRAME_STEPS = 4  # a frame after the first takes one in so many steps, as it starts at the one before

ImageLike = PathLike | bytes | Image.Image | Pixels | TargetImage


@dataclass(frozen=True)
class InversionResult:
    """The latents of a target image, the image they render to, and how close the two are.

    `latents` hold affine [1, L, 3, n] and, if those were searched, w or z. `image` [H, W, 3] is uint8. `psnr` is in
    dB and infinite for equal images; `ssim` is None below 11 pixels a side; `perceptual` is None for a loss of
    pixels alone. `loss` is the lowest value met, `steps` counts those of all starting points, and `start` is the
    index of the best one. `seconds` are those of the images that were inverted together. `is_interrupted` says that
    the search was asked to stop before its end.
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
    image: ImageLike,
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
    encoder: Encoder | Literal["auto"] | None = "auto",
    product_dtype: torch.dtype | None = None,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> InversionResult:
    """Find the latents whose image matches a target image, on the model's device and in its dtype.

    Args:
        model: a model or a checkpoint.
        image: a path, the bytes of an image file, a PIL image, a uint8 array [H, W, 3], or a TargetImage.
        steps: the maximum of Adam steps from each starting point, at least 1; L-BFGS then refines the result. 0 gives
            the starting point itself, if `start` or an encoder gives one.
        space: what is optimized. "affine" matches best; "w" and "z" stay closer to the training distribution.
        loss: a loss or its name, see `load_loss`.
        restarts: the number of starting points, at least 1; the best result is returned.
        seed: the seed of the random latents.
        label: the class to start from, a name or a number; by default that with the nearest mean image.
        size: (width, height) in pixels at which the images are compared; see `target_size` for the default.
        shorter_side: the shorter side in pixels, if the aspect ratio is to be kept.
        window: where the image lies on the plane: x0, y0, x1, y1.
        memory: the memory in bytes; larger images are processed in chunks. None is no limit.
        start: one row of latents to start from instead of the mean image.
        encoder: what finds `start`. "auto" is the bundled encoder for the bundled model, where it applies, see
            `default_encoder`. None starts at the mean image.
        product_dtype: the dtype of the n x n products of Adam's steps; bfloat16 is faster where the hardware has it.
        progress: called after each step with steps done, the maximum of steps and the best PSNR so far.
        stop: asked after each step whether to end with the best so far.

    Raises ConfigError, RequestError, LabelError, FileError, and PolyinrError if the model produces NaN or Inf.
    """
    (result,) = invert_images(
        model,
        [load_target(image, size=size, shorter_side=shorter_side, resolution=_checkpoint(model).resolution)],
        steps=steps,
        space=space,
        loss=loss,
        restarts=restarts,
        seed=seed,
        label=label,
        window=window,
        memory=memory,
        start=start,
        encoder=encoder,
        product_dtype=product_dtype,
        progress=progress,
        stop=stop,
    )
    return result


def invert_images(
    model: Model | Checkpoint,
    images: Sequence[ImageLike],
    *,
    is_video: bool = False,
    steps: int = DEFAULT_STEPS,
    space: Space = "affine",
    loss: LossName | InversionLoss = "auto",
    restarts: int = 1,
    seed: int = 0,
    label: int | str | None = None,
    window: Window = UNIT,
    memory: int | None = None,
    start: Latents | None = None,
    encoder: Encoder | Literal["auto"] | None = "auto",
    product_dtype: torch.dtype | None = None,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> list[InversionResult]:
    """Find the latents of several images, as `invert` does; those of one size together, as many as fit into `memory`.

    The results are those of each image alone, up to rounding. The PSNR of `progress` is the mean. When `stop` ends the
    search, the images that were begun have results, in their order.

    Args:
        images: as `invert` takes them; load them with `load_target` for another size than the default.
        is_video: the images are frames: each after the first starts at the result of the one before, and takes a
            quarter of the steps. Frames are inverted one after the other.

    For the others see `invert`; `start` has a row for each image. Raises what `invert` raises.
    """
    checkpoint = _checkpoint(model)
    generator, like = checkpoint.generator, checkpoint.generator.mapping.w_avg
    targets = [load_target(image, resolution=checkpoint.resolution) for image in images]
    if isinstance(label, str):
        label = parse_label(label, classes=generator.config.classes, class_names=checkpoint.class_names)
    if encoder == "auto":
        encoder = None if start is not None else default_encoder(checkpoint, space=space, window=window, label=label)
    if restarts < 1 or steps < (1 if start is None and encoder is None else 0):
        raise ConfigError(f"{steps} steps from {restarts} starting points are too few; use at least 1 of each")
    if not isinstance(loss, InversionLoss):
        loss = load_loss(loss).to(like.device)

    results: dict[int, InversionResult] = {}
    batches = [[index] for index in range(len(targets))] if is_video else list(_batches(targets, checkpoint, memory))
    done, is_stopped = 0, False
    later_steps = -(-steps // FRAME_STEPS)
    most = [later_steps if is_video and number else steps for number in range(len(batches))]
    factor = restarts * (1 + MAX_REFINEMENT)

    def report(now: int, _: int, psnr: float) -> None:
        if progress is not None:
            progress(done + now, factor * sum(most), psnr)

    def stopped() -> bool:
        nonlocal is_stopped
        is_stopped = is_stopped or stop()
        return is_stopped

    for batch, batch_steps in zip(batches, most, strict=True):
        chosen = [targets[index] for index in batch]
        origin: Tensor | None
        if is_video and results:
            origin = in_space(results[batch[0] - 1].latents, space)
        elif start is not None:
            origin = in_space(start, space)[batch]
        else:
            origin = None if encoder is None else in_space(encoder.encode_all(checkpoint, chosen), space)
        found = _invert_batch(
            checkpoint,
            chosen,
            origin=None if origin is None else origin.to(like),
            steps=batch_steps,
            space=space,
            loss=loss,
            restarts=restarts,
            seed=seed,
            label=label,
            window=window,
            memory=memory,
            product_dtype=product_dtype,
            progress=report,
            stop=stopped,
        )
        results |= {index: replace(one, is_interrupted=is_stopped) for index, one in zip(batch, found, strict=True)}
        done += factor * batch_steps
        if is_stopped:
            break
    return [results[index] for index in sorted(results)]


def _checkpoint(model: Model | Checkpoint) -> Checkpoint:
    return model if isinstance(model, Checkpoint) else model.checkpoint


def _batches(targets: Sequence[TargetImage], checkpoint: Checkpoint, memory: int | None) -> Iterator[list[int]]:
    """Yield the indices of targets of one size, by their first, as many as are inverted together."""
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, target in enumerate(targets):
        of_size.setdefault(target.pixels.shape[:2], []).append(index)
    for (height, width), indices in of_size.items():
        most = images_at_once(checkpoint.generator.config, width=width, height=height, memory=memory)
        yield from (indices[first : first + most] for first in range(0, len(indices), most))


def _invert_batch(
    checkpoint: Checkpoint,
    targets: Sequence[TargetImage],
    *,
    origin: Tensor | None,
    steps: int,
    space: Space,
    loss: InversionLoss,
    restarts: int,
    seed: int,
    label: int | None,
    window: Window,
    memory: int | None,
    product_dtype: torch.dtype | None,
    progress: PsnrProgress,
    stop: Stop,
) -> list[InversionResult]:
    """Invert targets of one size together; `origin` [N, ...] are their starting points in the space."""
    started = time.monotonic()
    generator, like = checkpoint.generator, checkpoint.generator.mapping.w_avg
    height, width = targets[0].pixels.shape[:2]
    regular_or_learned = checkpoint.grid(width, height, window=window)
    grid = target_grid(generator.config, width=width, height=height, like=like, grid=regular_or_learned, memory=memory)
    colors = torch.cat([target.colors(like) for target in targets])
    target_loss = loss.for_target(colors)
    spaces = search_spaces(
        generator, space, colors, restarts=restarts, seed=seed, label=label, window=window, origin=origin
    )
    optima = optimize(spaces, grid, target_loss, steps=steps, product_dtype=product_dtype, progress=progress, stop=stop)
    results = []
    for index, (target, best) in enumerate(zip(targets, optima, strict=True)):
        with torch.no_grad():
            latents = spaces[best.start].select([index]).latents(best.offset)
        own_loss = target_loss.select([index])
        result = InversionResult(
            latents=replace(latents, model_sha256=checkpoint.sha256),
            **_compare(
                generator.synthesis, in_space(latents, "affine"), target=target, grid=grid, target_loss=own_loss
            ),
            loss=best.loss,
            steps=best.steps,
            start=best.start,
            seconds=time.monotonic() - started,
            target=target,
            grid=grid,
            target_loss=own_loss,
        )
        photo = Photo(target.name, (width, height), window, {"loss": loss.name, **result.scores()})
        results.append(replace(result, latents=replace(result.latents, photos=(photo,))))
    return results


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
