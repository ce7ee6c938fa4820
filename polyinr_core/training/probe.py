"""A short look at what training costs on this machine: seconds and bytes of a pixel, a picture, a parameter."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Adam

from ..critic.discriminator import ProjectedDiscriminator
from ..critic.losses import generator_loss, hinge_critic_real
from ..model import Generator, RegularGrid
from ..weights.pretrained import SOURCES, expected_shapes

LONG_ENOUGH = 0.25  # seconds of the last measurement
FIRST_PIXELS = 512
FEWEST = 2  # pictures: BatchNorm needs two
VALUES = 2**20


@dataclass(frozen=True)
class Cost:
    """What one more pixel, picture or value costs: seconds, and bytes kept for the backward pass.

    `fixed` bytes are kept once a pass, however many there are.
    """

    seconds: float
    bytes: float = 0.0
    fixed: float = 0.0


def cost_of(
    step: Callable[[int], Tensor],
    *,
    start: int,
    most: int,
    device: torch.device,
    known: nn.Module,
    fixed: float = 0.0,
) -> Cost:
    """Return what `step(count)` and the backward pass of the loss that it returns cost for each of `count`.

    The count grows from `start` to at most `most` until the measurement is long enough. Tensors of `known` are
    not counted as kept; `fixed` are the bytes taken as kept once where a single measurement cannot tell.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*known.parameters(), *known.buffers()]}
    count, seconds, bytes_kept = start, *once(step, start, device=device, own=own)
    slope = max(0.0, bytes_kept - fixed) / count
    while (seconds < LONG_ENOUGH or count == start) and count < most:  # two counts tell what a picture adds
        growth = 4 if seconds < LONG_ENOUGH / 4 else 2
        before, kept_before = count, bytes_kept
        count = min(most, growth * count)
        seconds, bytes_kept = once(step, count, device=device, own=own)
        slope = (bytes_kept - kept_before) / (count - before)
    if seconds < LONG_ENOUGH:  # all that a pass can hold is still quick: the first time is not the best
        seconds = min(seconds, once(step, count, device=device, own=own)[0])
    return Cost(seconds / count, slope, max(0.0, bytes_kept - slope * count))


def once(step: Callable[[int], Tensor], count: int, *, device: torch.device, own: set[int]) -> tuple[float, int]:
    """Take one step and its backward pass; return the seconds, and the bytes of all storages kept in between."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = now(device)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step(count)
        total = sum(kept.values())
        if loss.requires_grad:
            loss.backward()
    return now(device) - start, total


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def probe_drawing(generator: Generator, *, most: int) -> tuple[Cost, Cost]:
    """Return the cost of a pixel that is only drawn, and of one drawn with a backward pass.

    `most` is the number of pixels that a pass of the training draws: no more are drawn here.
    """
    config, mean = generator.config, generator.mapping.w_avg

    def step(pixels: int) -> Tensor:
        points = RegularGrid(pixels // FEWEST, 1).points(
            0, pixels // FEWEST, dtype=mean.dtype, device=mean.device
        )
        z = torch.linspace(-1, 1, FEWEST * config.z_dim, dtype=mean.dtype, device=mean.device).view(FEWEST, -1)
        label = torch.arange(FEWEST, device=mean.device) % config.classes if config.classes else None
        return generator(z, points, label).square().mean()

    def only_drawn(pixels: int) -> Tensor:
        with torch.no_grad():
            return step(pixels)

    costs = []
    for way in (only_drawn, step):
        costs.append(cost_of(way, start=min(FIRST_PIXELS, most), most=most, device=mean.device, known=generator))
        generator.zero_grad(set_to_none=True)
    return costs[0], costs[1]


def probe_critic(
    critic: ProjectedDiscriminator, *, side: int, most: int, dtype: torch.dtype | None, device: torch.device
) -> tuple[Cost, Cost]:
    """Return the cost of a picture of this side in the generator's step, and in the critic's.

    `dtype` is a narrower format than the weights', None for theirs. At most `most` pictures are shown.
    """
    wide = next(critic.heads.parameters()).dtype
    classes = critic.config.classes

    def look(count: int, *, of_generator: bool) -> Tensor:
        pictures = torch.zeros(count, 3, side, side, dtype=wide, device=device, requires_grad=of_generator)
        label = torch.arange(count, device=device) % classes if classes else None
        critic.heads.requires_grad_(not of_generator)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = critic(pictures, label)
        return generator_loss(logits) if of_generator else hinge_critic_real(logits)

    own_copies = sum(p.numel() * p.element_size() for p in critic.heads.parameters())  # weights, normalised
    costs = []
    for of_generator in (True, False):
        cost = cost_of(
            partial(look, of_generator=of_generator),
            start=min(FEWEST, most),
            most=most,
            device=device,
            known=critic,
            fixed=own_copies,
        )
        costs.append(cost)
        critic.zero_grad(set_to_none=True)
    return costs[0], costs[1]


def probe_guide(
    guide: nn.Module, *, side: int, most: int, dtype: torch.dtype | None, device: torch.device
) -> Cost:
    """Return the cost of a picture of this side that a classifier guides."""

    def look(count: int) -> Tensor:
        pictures = torch.zeros(count, 3, side, side, device=device, requires_grad=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss: Tensor = guide(pictures, torch.zeros(count, dtype=torch.int64, device=device))
        return loss

    return cost_of(look, start=min(FEWEST, most), most=most, device=device, known=guide)


def probe_optimiser(device: torch.device) -> Cost:
    """Return the seconds that a parameter's step and its place in the average cost."""
    values = nn.Parameter(torch.zeros(VALUES, device=device))
    values.grad = torch.ones_like(values)
    average = torch.zeros_like(values)
    optimizer = Adam([values], lr=1e-3)
    measured = []
    for _ in range(3):
        start = now(device)
        optimizer.step()
        torch._foreach_lerp_([average], [values.data], 0.5)
        measured.append(now(device) - start)
    return Cost(min(measured) / VALUES)


def stand_in(name: str) -> Mapping[str, Tensor]:
    """Return weights of the shapes of the pretrained network of `name`, to measure with where it is missing."""
    shapes = expected_shapes(SOURCES[name].model)
    return {
        key: torch.ones(shape) if key.endswith("running_var") else torch.full(shape, 0.01)
        for key, shape in shapes.items()
    }
