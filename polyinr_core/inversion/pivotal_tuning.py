"""Pivotal tuning: the synthesis network moves a little, so that found affine maps draw their photos better."""

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from polyinr_core.checkpoints.delta import Delta
from polyinr_core.errors import ConfigError, PolyinrError
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, Synthesis
from polyinr_core.runtime.rng import generator_for

from .invert import BETAS, Match, Report, decibels, rate_at

RATE = 2e-3
NEIGHBORS = 4  # random images a step that are to stay as they are
NEIGHBOR_POINTS = 256  # of each, spread over the trained window
POOL = 256  # random latents that the neighbors are taken from
KEPT = 1.0  # how much their mean squared error weighs, beside the photos'


class LowRank(nn.Module):
    """A weight [n, n] plus up [n, r] times down [r, n]; up starts at nought, so nothing changes at first."""

    def __init__(self, n: int, rank: int, *, rng: torch.Generator, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter((torch.randn(rank, n, generator=rng) / math.sqrt(n)).to(like))
        self.up = nn.Parameter(like.new_zeros(n, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def tune(
    generator: Generator,
    matches: Sequence[Match],
    *,
    model_sha256: str,
    rank: int,
    steps: int,
    seed: int,
    origin: dict[str, Any] | None = None,
    report: Report | None = None,
) -> Delta:
    """Tune a copy of the synthesis network for all matches together, and return the best change met.

    Each level's product moves by a matrix of at most `rank`; biases and to_rgb move freely, affine maps not at
    all. Random latents' images are held where they are: without that, a change good for one photo spoils the
    others. Roich et al., 2021 (pivotal tuning), with Hu et al., 2021 (low-rank adaptation) for the small file.
    Raises ConfigError, PolyinrError.
    """
    n = generator.config.channels
    if not 1 <= rank <= n:
        raise ConfigError(f"a rank of {rank} is outside 1-{n}, the model's channels")
    if steps < 1 or not matches:
        raise ConfigError(f"{steps} steps for {len(matches)} photos tune nothing; at least 1 of each is needed")
    synthesis, learned = _loosened(generator.synthesis, rank=rank, rng=generator_for(seed, "tune", "start"))
    neighbors = _Neighbors(generator, seed=seed)
    optimizer = torch.optim.Adam(learned, betas=BETAS)
    best, best_loss, best_psnr = _state(learned), math.inf, -math.inf
    for step in range(steps + 1):
        optimizer.zero_grad()
        loss, psnr = 0.0, 0.0
        for match in matches:
            terms = match.aim.terms(match.canvas.draw(synthesis, match.affine))
            (terms.loss / len(matches)).backward()
            loss += float(terms.loss.detach()) / len(matches)
            psnr += decibels(terms) / len(matches)
        strayed = KEPT * neighbors.error(synthesis, step)
        strayed.backward()
        loss += float(strayed.detach())
        if not math.isfinite(loss):
            break
        if loss < best_loss:
            best, best_loss, best_psnr = _state(learned), loss, psnr
        if report is not None:
            report(min(step, steps), steps, best_psnr)
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate=RATE)
        optimizer.step()
    if not math.isfinite(best_loss):
        raise PolyinrError("the model gives colors that are no numbers here; nothing can be tuned")
    with torch.no_grad():
        for parameter, kept in zip(learned, best, strict=True):
            parameter.copy_(kept)
    return _difference(synthesis, generator.synthesis, model_sha256=model_sha256, origin=origin or {})


class _Neighbors:
    """Images of random latents, at random points of the trained window, as the model drew them at first."""

    def __init__(self, generator: Generator, *, seed: int) -> None:
        self.generator, self.seed = generator, seed
        like, classes = generator.mapping.w_avg, generator.config.classes
        rng = generator_for(seed, "tune", "latents")
        z = torch.randn(POOL, generator.config.z_dim, generator=rng).to(like)
        label = torch.randint(classes, (POOL,), generator=rng).to(like.device) if classes else None
        with torch.no_grad():
            self.affine = generator.affine(generator.w(z, label))

    def error(self, synthesis: Synthesis, step: int) -> Tensor:
        """Return the mean squared error that the change makes at some of them."""
        rng = generator_for(self.seed, "tune", step)
        affine = self.affine[torch.randint(POOL, (NEIGHBORS,), generator=rng).to(self.affine.device)]
        places = torch.rand(NEIGHBOR_POINTS, 2, generator=rng)
        points = torch.cat([places, places.new_ones(NEIGHBOR_POINTS, 1)], dim=1).to(affine)
        with torch.no_grad():
            before = self.generator.synthesis(affine, points)
        return (synthesis(affine, points) - before).square().mean()


@torch.no_grad()
def drift(before: Generator, after: Generator, *, seed: int, count: int = 16, resolution: int = 32) -> float:
    """Return the PSNR in dB between random images before and after tuning, at most 99; latents by `seed`."""
    like, classes = before.mapping.w_avg, before.config.classes
    rng = generator_for(seed, "drift")
    z = torch.randn(count, before.config.z_dim, generator=rng).to(like)
    label = torch.randint(classes, (count,), generator=rng).to(like.device) if classes else None
    grid = RegularGrid(resolution, resolution)
    points = grid.points(0, resolution**2, dtype=like.dtype, device=like.device)
    one, two = (generator(z, points, label).clamp(-1, 1) for generator in (before, after))
    error = float((one - two).square().mean()) / 4
    return min(99.0, -10 * math.log10(error)) if error > 0 else 99.0


def _loosened(synthesis: Synthesis, *, rank: int, rng: torch.Generator) -> tuple[Synthesis, list[nn.Parameter]]:
    """Return a copy of the network and those of its parameters that may move."""
    synthesis = copy.deepcopy(synthesis).requires_grad_(False)
    learned: list[nn.Parameter] = []
    for product in synthesis.products:
        linear = cast(nn.Linear, product)
        change = LowRank(linear.in_features, rank, rng=rng, like=linear.weight)
        parametrize.register_parametrization(linear, "weight", change)
        learned += [change.up, change.down, linear.bias]
    learned += [cast(nn.Parameter, synthesis.to_rgb.weight), synthesis.to_rgb.bias]
    for parameter in learned:
        parameter.requires_grad_()
    return synthesis, learned


def _state(learned: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learned]


@torch.no_grad()
def _difference(after: Synthesis, before: Synthesis, *, model_sha256: str, origin: dict[str, Any]) -> Delta:
    """Return what tuning added to the network."""
    changes = [cast(LowRank, cast(Any, product).parametrizations.weight[0]) for product in after.products]
    biases = [
        cast(nn.Linear, new).bias - cast(nn.Linear, old).bias
        for new, old in zip(after.products, before.products, strict=True)
    ]
    return Delta(
        up=torch.stack([change.up.detach() for change in changes]).cpu(),
        down=torch.stack([change.down.detach() for change in changes]).cpu(),
        bias=torch.stack(biases).cpu(),
        rgb_weight=(after.to_rgb.weight - before.to_rgb.weight).cpu(),
        rgb_bias=(after.to_rgb.bias - before.to_rgb.bias).cpu(),
        model_sha256=model_sha256,
        origin=origin,
    )
