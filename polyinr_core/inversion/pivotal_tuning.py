"""Pivotal tuning: fine-tune the synthesis network so that fixed latents match their targets better.

Roich et al., 2021 (pivotal tuning with locality regularization), with the low-rank updates of Hu et al., 2021.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.delta import Delta, apply_delta, save_delta
from polyinr_core.errors import ConfigError, PolyinrError
from polyinr_core.images.grid import Pixels
from polyinr_core.latents.latents import Latents, concatenate
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, Synthesis
from polyinr_core.rendering.model import Model
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.rng import generator_for

from .invert import InversionResult, comparison_grid, render_with
from .search import BETAS, NOT_FINITE, PsnrProgress, Stop, learning_rate, psnr_of

DEFAULT_RANK = 16
TUNING_RATE = 2e-3
LOCALITY_WEIGHT = 1.0
LOCALITY_IMAGES = 4  # random images per step that are to stay unchanged
LOCALITY_PIXELS = 256  # of each image, at random coordinates of the trained window
LOCALITY_POOL = 256  # random latents from which those images are drawn


def tune(
    model: Model | Checkpoint,
    results: Sequence[InversionResult],
    *,
    rank: int | None = None,
    steps: int = 200,
    seed: int = 0,
    origin: dict[str, Any] | None = None,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> Delta:
    """Tune a copy of the synthesis network to all results together, and return the best weight change met.

    The weight of each level's linear layer changes by a matrix of at most `rank`; the biases and to_rgb change
    freely, the affine parameters not at all. The images of random latents are held where they are (locality
    regularization): without it, a change that suits one target spoils all other images.

    Args:
        model: the model or checkpoint of the results. It is not modified.
        results: what `invert` returned, at least 1.
        rank: 1 to the number of channels; by default 16, or the number of channels if that is less.
        steps: Adam steps, at least 1.
        seed: the seed of the initial update and of the random images.
        origin: facts to store in the delta.
        progress: called after each step with steps done, the maximum of steps and the best mean PSNR so far.
        stop: asked after each step whether to end with the best so far.

    Raises ConfigError, and PolyinrError if the model produces NaN or Inf.
    """
    checkpoint = model if isinstance(model, Checkpoint) else model.checkpoint
    generator = checkpoint.generator
    channels = generator.config.channels
    rank = min(DEFAULT_RANK, channels) if rank is None else rank
    if not 1 <= rank <= channels:
        raise ConfigError(f"rank {rank} is out of range 1-{channels} (the model has {channels} channels)")
    if steps < 1 or not results:
        raise ConfigError(f"{steps} steps for {len(results)} images are too few; use at least 1 of each")
    synthesis, parameters = _with_low_rank_updates(
        generator.synthesis, rank=rank, rng=generator_for(seed, "tune", "start")
    )
    locality = _LocalityRegularization(generator, seed=seed)
    optimizer = torch.optim.Adam(parameters, betas=BETAS)
    best, best_loss, best_psnr = _copies(parameters), math.inf, -math.inf
    for step in range(steps + 1):
        optimizer.zero_grad()
        loss, psnr = 0.0, 0.0
        for result in results:
            terms = result.target_loss(result.grid.render(synthesis, result.affine))
            (terms.loss / len(results)).backward()
            loss += float(terms.loss.detach()) / len(results)
            psnr += psnr_of(terms.pixels) / len(results)
        locality_loss = LOCALITY_WEIGHT * locality.squared_error(synthesis, step)
        locality_loss.backward()
        loss += float(locality_loss.detach())
        if not math.isfinite(loss):
            break
        if loss < best_loss:
            best, best_loss, best_psnr = _copies(parameters), loss, psnr
        if progress is not None:
            progress(min(step, steps), steps, best_psnr)
        if step == steps or stop():
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, base=TUNING_RATE)
        optimizer.step()
    if not math.isfinite(best_loss):
        raise PolyinrError(NOT_FINITE)
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)
    return _difference(synthesis, generator.synthesis, model_sha256=checkpoint.sha256, origin=origin or {})


@dataclass(frozen=True)
class TuningResult:
    """The delta as it was saved, the model with it, and the results with the image and the scores of that model."""

    delta: Delta
    model: Checkpoint
    results: list[InversionResult]
    locality_psnr: float  # in dB, between random images before and after
    bytes: int
    steps: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return what `polyinr invert --tune --json` prints of the delta."""
        return {
            "model": self.model.sha256,
            "model_before": self.delta.model_sha256,
            "rank": self.delta.rank,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "locality_psnr": self.locality_psnr,
        }

    def __str__(self) -> str:
        return (
            f"rank {self.delta.rank}, {self.bytes / 1024:,.0f} KiB, {self.steps} steps in {self.seconds:.1f} s; random "
            f"images before and after tuning: PSNR {self.locality_psnr:.1f} dB"
        )


def tune_to_file(
    path: PathLike,
    checkpoint: Checkpoint,
    results: Sequence[InversionResult],
    *,
    rank: int | None = None,
    steps: int = 200,
    seed: int = 0,
    overwrite: bool = False,
    progress: PsnrProgress | None = None,
    stop: Stop = lambda: False,
) -> TuningResult:
    """Tune the model as `tune` does, save the delta, and render the results with the tuned model.

    Raises ConfigError, FileError, and PolyinrError if the model produces NaN or Inf.
    """
    started, path = time.monotonic(), Path(path)
    origin = {"photos": [Path(result.target.name).name for result in results], "steps": steps, "seed": seed}
    delta = tune(checkpoint, results, rank=rank, steps=steps, seed=seed, origin=origin, progress=progress, stop=stop)
    delta = save_delta(path, delta, overwrite=overwrite)
    model = apply_delta(checkpoint, delta, source=path)
    return TuningResult(
        delta=delta,
        model=model,
        results=[render_with(result, model.generator.synthesis) for result in results],
        locality_psnr=locality_psnr(checkpoint.generator, model.generator, seed=seed),
        bytes=path.stat().st_size,
        steps=steps,
        seconds=time.monotonic() - started,
    )


def latents_of(results: Sequence[InversionResult], tuning: TuningResult | None = None) -> Latents:
    """Return the latents of results, a row each; with `tuning` the photos have the tuned scores, too.

    They then name both models, with the delta and without, which take the same latents.
    """
    found = concatenate([result.latents for result in results])
    if tuning is None:
        return found
    photos = tuple(
        replace(photo, scores=photo.scores | {"tuned": tuned.scores()})
        for photo, tuned in zip(found.photos, tuning.results, strict=True)
    )
    return replace(found, photos=photos, model_sha256=tuning.model.sha256, untuned_sha256=tuning.delta.model_sha256)


def comparison_of(results: Sequence[InversionResult], tuning: TuningResult | None = None) -> Pixels:
    """Return one image with a row for each result: the target, its inversion and, if tuned, that of the tuned model."""
    rows = [[result.target.pixels, result.image] for result in results]
    for row, tuned in zip(rows, tuning.results if tuning else [], strict=False):
        row.append(tuned.image)
    return comparison_grid(rows)


@torch.no_grad()
def locality_psnr(before: Generator, after: Generator, *, seed: int, count: int = 16, resolution: int = 32) -> float:
    """Return the PSNR in dB between `count` random images before and after tuning, at most 99."""
    like = before.mapping.w_avg
    z, label = _random_z(before, count, rng=generator_for(seed, "drift"))
    grid = RegularGrid(resolution, resolution)
    coordinates = grid.coordinates(dtype=like.dtype, device=like.device)
    one, two = (generator(z, coordinates, label).clamp(-1, 1) for generator in (before, after))
    return psnr_of((one - two).square().mean())


class LowRankUpdate(nn.Module):
    """A parametrization: weight [n, n] plus up [n, r] @ down [r, n]. `up` starts at zero."""

    def __init__(self, n: int, rank: int, *, rng: torch.Generator, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter((torch.randn(rank, n, generator=rng) / math.sqrt(n)).to(like))
        self.up = nn.Parameter(like.new_zeros(n, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class _LocalityRegularization:
    """The squared error between the original and the tuned network at random pixels of random images."""

    def __init__(self, generator: Generator, *, seed: int) -> None:
        self.generator, self.seed = generator, seed
        z, label = _random_z(generator, LOCALITY_POOL, rng=generator_for(seed, "tune", "latents"))
        with torch.no_grad():
            self.affine = generator.affine(generator.w(z, label))

    def squared_error(self, synthesis: Synthesis, step: int) -> Tensor:
        """Return the mean squared error at the random pixels of a step."""
        rng = generator_for(self.seed, "tune", step)
        affine = self.affine[torch.randint(LOCALITY_POOL, (LOCALITY_IMAGES,), generator=rng).to(self.affine.device)]
        xy = torch.rand(LOCALITY_PIXELS, 2, generator=rng)
        coordinates = torch.cat([xy, xy.new_ones(LOCALITY_PIXELS, 1)], dim=1).to(affine)  # [P, 3]
        with torch.no_grad():
            before = self.generator.synthesis(affine, coordinates)
        return (synthesis(affine, coordinates) - before).square().mean()


def _random_z(generator: Generator, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Draw z [N, 64] and, for a class-conditional model, labels [N]."""
    like, classes = generator.mapping.w_avg, generator.config.classes
    z = torch.randn(count, generator.config.z_dim, generator=rng).to(like)
    return z, torch.randint(classes, (count,), generator=rng).to(like.device) if classes else None


def _with_low_rank_updates(
    synthesis: Synthesis, *, rank: int, rng: torch.Generator
) -> tuple[Synthesis, list[nn.Parameter]]:
    """Return a copy of the network and its trainable parameters."""
    synthesis = copy.deepcopy(synthesis).requires_grad_(False)
    parameters: list[nn.Parameter] = []
    for product in synthesis.products:
        linear = cast(nn.Linear, product)
        update = LowRankUpdate(linear.in_features, rank, rng=rng, like=linear.weight)
        parametrize.register_parametrization(linear, "weight", update)
        parameters += [update.up, update.down, linear.bias]
    parameters += [cast(nn.Parameter, synthesis.to_rgb.weight), synthesis.to_rgb.bias]
    for parameter in parameters:
        parameter.requires_grad_()
    return synthesis, parameters


def _copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _difference(after: Synthesis, before: Synthesis, *, model_sha256: str, origin: dict[str, Any]) -> Delta:
    """Return the change of the weights."""
    updates = [cast(LowRankUpdate, cast(Any, product).parametrizations.weight[0]) for product in after.products]
    biases = [
        cast(nn.Linear, new).bias - cast(nn.Linear, old).bias
        for new, old in zip(after.products, before.products, strict=True)
    ]
    return Delta(
        up=torch.stack([update.up.detach() for update in updates]).cpu(),
        down=torch.stack([update.down.detach() for update in updates]).cpu(),
        bias=torch.stack(biases).cpu(),
        rgb_weight=(after.to_rgb.weight - before.to_rgb.weight).cpu(),
        rgb_bias=(after.to_rgb.bias - before.to_rgb.bias).cpu(),
        model_sha256=model_sha256,
        origin=origin,
    )
