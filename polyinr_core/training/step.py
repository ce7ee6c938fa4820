"""One training iteration: a generator step, a discriminator step, then the moving average of the generator."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polyinr_core.discriminator.diffaugment import Draws, draw_augmentation
from polyinr_core.discriminator.losses import (
    finite_difference_penalty,
    generator_loss,
    hinge_disc_fake,
    hinge_disc_real,
    lecam_penalty,
    relativistic_loss,
)
from polyinr_core.errors import TrainingError
from polyinr_core.models.generator import Generator, render_checkpointed
from polyinr_core.models.layers import SAVED_BYTES
from polyinr_core.runtime.device import to_device
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext, GradientSum

from .config import TrainingConfig
from .state import TrainingState
from .step_stats import DeviceStats, is_failure, keep_failure, step_optimizer

EMA_RAMP_UP = 0.05  # the half-life is at most this fraction of the images seen
MIN_CHUNK = 1024  # pixels of the generator's backward pass, below which chunks save little

logger = logging.getLogger(__name__)
Maps = list[list[Tensor]]  # what the discriminator's heads read, by backbone and scale
ClassifierLoss = Callable[[Tensor, Tensor], Tensor]  # images [N, 3, r, r], labels [N] -> mean loss, []


class Batch(NamedTuple):
    """Images [B, 3, r, r] in [-1, 1], or latents z [B, z_dim], with their labels [B] or None."""

    data: Tensor
    label: Tensor | None

    def split(self, size: int) -> Iterator["Batch"]:
        """Yield micro-batches of `size`."""
        labels = [None] * len(self.data) if self.label is None else self.label.split(size)
        for data, label in zip(self.data.split(size), labels, strict=False):
            yield Batch(data, label)


@dataclass(frozen=True)
class Penalty:
    """The discriminator's gradient penalty on fakes and reals, by finite differences.

    Args:
        weight: Factor of the penalty in the discriminator's loss.
        sigma: Standard deviation of the perturbation of images in [-1, 1].
        rng: Returns the CPU generator of the perturbations of a pass ("fake" or "real") and the index of a micro-batch.
    """

    weight: float
    sigma: float
    rng: Callable[[str, int], torch.Generator]


@dataclass(frozen=True)
class StepOptions:
    """What an iteration depends on, beside the networks and its batches.

    Args:
        coordinates: The grid of the stage's resolution r, homogeneous, [r*r, 3].
        micro_batch: Images of one forward pass, all ranks together. Each rank holds its part of every micro-batch;
            batch statistics, gradients and the mean of w are those of the whole micro-batch.
        blur_sigma: Width of the blur in front of the discriminator, in pixels.
        augment_rng: Returns the CPU generator of the augmentation for a pass ("generator", "fake" or "real") and the
            index of a micro-batch. None: no augmentation.
        augment_p: Probability of each operation of adaptive augmentation. None: DiffAugment, on every image.
        relativistic: Both players' losses compare fake i with real i, instead of the hinge loss.
        penalty: The gradient penalty, None in an iteration without.
        lecam: Weight of the LeCam penalty, whose anchors are `state.logit_means`.
        chunk: Pixels of the generator's backward pass at a time. 0: all.
        classifier: Its loss, times `guidance`, is added to the generator's.
        dist: The ranks that share each batch.
    """

    coordinates: Tensor
    micro_batch: int
    blur_sigma: float = 0.0
    augment_rng: Callable[[str, int], torch.Generator] | None = None
    augment_p: float | None = None
    relativistic: bool = False
    penalty: Penalty | None = None
    lecam: float = 0.0
    chunk: int = 0
    classifier: ClassifierLoss | None = None
    guidance: float = 0.0
    dist: DistributedContext = SINGLE_PROCESS

    @property
    def local_micro_batch(self) -> int:
        """Images of a micro-batch on this rank."""
        return self.micro_batch // self.dist.world_size

    def weight_of(self, part: Batch, batch: Batch) -> float:
        """Return the fraction of the whole batch, on all ranks, that `part` of this rank's `batch` is."""
        return len(part.data) / (len(batch.data) * self.dist.world_size)


def train_step(
    state: TrainingState, options: StepOptions, *, reals: Batch, g_fakes: Batch, d_fakes: Batch, ema_beta: float
) -> DeviceStats:
    """Train the generator, then the discriminator, once; then update the moving averages. Paper, section 3.

    The generator is trained on the latents `g_fakes`; then the discriminator on the images that the updated generator
    makes of `d_fakes`, and on `reals`: one pass, but BatchNorm never mixes fakes and reals. The order is the release's.
    With fused optimizers nothing here waits for a GPU: reading the result does.

    Args:
        state: The networks, optimizers and mean logits; changed in place. Its counters stay.
        reals: Images of this rank's part of the batch, [B, 3, r, r]; a conditional model needs their labels.
        g_fakes, d_fakes: As many latents z [B, z_dim] with their labels.
        ema_beta: Weight of the old average, 0 to 1 (see `ema_beta`).

    Returns:
        What `read` turns into losses and statistics. It raises TrainingError if a loss or gradient was not finite;
        from then on no step has changed the weights. An optimizer that is not fused raises it here.
    """
    maps = None
    if options.relativistic and options.penalty is None and len(reals.data) == options.local_micro_batch:
        maps = project(state, options, reals, passes=("real",), index=0)  # once for both players
    train_g = partial(train_generator, state, fakes=g_fakes, reals=reals, real_maps=maps)
    g_stats = within_memory(state, replace(options, penalty=None), train_g)
    train_d = partial(train_discriminator, state, fakes=d_fakes, reals=reals, real_maps=maps)
    d_stats = within_memory(state, options, train_d)
    update_ema(state.ema, state.generator, beta=ema_beta)
    state.logit_means = update_logit_means(state.logit_means, torch.stack([d_stats[4], d_stats[3]]))
    assert state.failure is not None
    return DeviceStats(torch.cat([g_stats, d_stats, state.failure[None]]), state)


def chunk_size(config: TrainingConfig, pixels: int, *, device_memory: int | None) -> int:
    """Return how many of `pixels` the generator's backward pass holds at a time, 0 for all.

    Unless the configuration says so: all, as long as what autograd saves of them fits a quarter of the device's memory.
    """
    chunk = config.chunk
    if chunk is None:
        largest = (device_memory or 2**62) // 4 // (SAVED_BYTES * config.channels * config.levels)
        chunk = 0 if pixels <= largest else max(MIN_CHUNK, 1 << (largest // 4).bit_length() - 1)
    return chunk if chunk < pixels else 0


def within_memory(state: TrainingState, options: StepOptions, train: Callable[[StepOptions], Tensor]) -> Tensor:
    """Return train(options). Where the memory of a GPU runs out, train again from the same values in smaller chunks.

    Nothing has stepped by then, so that it is as if the chunks had been so small from the start; later iterations have
    chunks of at most `state.max_chunk` as well. Raises TrainingError if chunks cannot become smaller, or if other ranks
    are in the middle of the iteration.
    """
    buffers = [*state.discriminator.heads.buffers(), *state.generator.mapping.buffers()]
    kept = [torch.empty_like(buffer) for buffer in buffers]
    copy_all(kept, buffers)
    while True:
        chunk = min(filter(None, (options.chunk, state.max_chunk)), default=0)
        try:
            return train(replace(options, chunk=chunk))
        except torch.OutOfMemoryError as error:
            held = chunk or options.local_micro_batch * len(options.coordinates)
            smaller = 1 << (held // 2).bit_length() - 1
            if options.dist.world_size > 1 or smaller < MIN_CHUNK:
                raise TrainingError(
                    f"the GPU's memory ran out in chunks of {held} pixels; the run goes on from its last training "
                    "state with a smaller --micro-batch or --chunk"
                ) from error
            state.max_chunk = smaller
        # not within `except`, where the error still holds the memory of the pass
        torch.cuda.empty_cache()
        logger.warning("the GPU's memory ran out: continuing in chunks of %d pixels", state.max_chunk)
        copy_all(buffers, kept)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each tensor to another one, by one kernel for all of a dtype."""
    for dtype in {tensor.dtype for tensor in targets}:
        pairs = [pair for pair in zip(targets, sources, strict=True) if pair[0].dtype == dtype]
        torch._foreach_copy_([target for target, _ in pairs], [source for _, source in pairs])


def train_generator(
    state: TrainingState,
    options: StepOptions,
    fakes: Batch,
    *,
    reals: Batch | None = None,
    real_maps: Maps | None = None,
) -> Tensor:
    """Step the generator against a fixed discriminator. Return the adversarial and the classifier loss, [2].

    The relativistic loss needs `reals`; `real_maps` are what `project` returned of them, if it was called.
    """
    stats = fakes.data.new_zeros(4)  # the result, and what failed
    state.g_optimizer.zero_grad(set_to_none=True)
    state.discriminator.heads.requires_grad_(False)
    real_parts = list(reals.split(options.local_micro_batch)) if options.relativistic and reals else []
    parts = list(fakes.split(options.local_micro_batch))
    for index, latents in enumerate(parts):
        weight = options.weight_of(latents, fakes)
        images = render_fakes(state.generator, options, latents)
        maps = project(state, options, images, passes=("generator",), index=index)
        (logits,) = discriminate(state, options, maps, images.label)
        real_logits = None
        if options.relativistic:
            real = real_parts[index]
            with torch.no_grad():
                maps = real_maps or project(state, options, real, passes=("real",), index=index)
                (real_logits,) = discriminate(state, options, maps, real.label)
        loss = generator_loss(logits, real_logits)
        stats[0] += weight * loss.detach()
        if options.classifier is not None and images.label is not None:
            with autocast(state, options, images.data.device):
                guidance = options.classifier(images.data, images.label)
            stats[1] += weight * guidance.detach()
            loss = loss + options.guidance * guidance
        stats[2:] += is_failure(loss, images.data)
        backward(weight * loss, state.generator, options, is_last=index + 1 == len(parts))
    stats = options.dist.all_reduce(stats)
    keep_failure(state, stats[2:])
    step_optimizer(state, state.generator, state.g_optimizer)
    return stats[:2]


def train_discriminator(
    state: TrainingState, options: StepOptions, *, fakes: Batch, reals: Batch, real_maps: Maps | None = None
) -> Tensor:
    """Step the discriminator's heads. `real_maps` are what `project` returned of `reals`, if it was called.

    Return the loss, the mean signs and the mean logits of fakes and reals, and the gradient penalty, [6].
    """
    stats = fakes.data.new_zeros(8)  # the result, and what failed
    copies = 1 if options.penalty is None else 2
    state.d_optimizer.zero_grad(set_to_none=True)
    state.discriminator.heads.requires_grad_(True)
    parts = list(zip(fakes.split(options.local_micro_batch), reals.split(options.local_micro_batch), strict=True))
    for index, (latents, real) in enumerate(parts):
        weight = options.weight_of(latents, fakes)
        with torch.no_grad():
            images = concatenate(render_fakes(state.generator, options, latents, update_w_avg=True), real)
            if options.penalty is not None:
                images = concatenate(images, perturb(images, options.penalty, index=index, dist=options.dist))
            if real_maps is None:
                maps = project(state, options, images, passes=("fake", "real") * copies, index=index)
            else:
                fake = Batch(images.data[: len(real.data)], None)
                pairs = zip(project(state, options, fake, passes=("fake",), index=index), real_maps, strict=True)
                maps = [[torch.cat(each) for each in zip(*scales, strict=True)] for scales in pairs]
        fake_logits, real_logits, *perturbed = discriminate(state, options, maps, images.label, parts=2, copies=copies)
        if options.relativistic:
            loss = relativistic_loss(real_logits, fake_logits)
        else:
            loss = hinge_disc_fake(fake_logits) + hinge_disc_real(real_logits)
        stats[0] += weight * loss.detach()
        if options.penalty is not None:
            sigma = options.penalty.sigma
            penalty = finite_difference_penalty(fake_logits, perturbed[0], sigma=sigma)
            penalty = penalty + finite_difference_penalty(real_logits, perturbed[1], sigma=sigma)
            stats[5] += weight * penalty.detach()
            loss = loss + options.penalty.weight * penalty
        if options.lecam and state.logit_means is not None:
            loss = loss + options.lecam * lecam_penalty(real_logits, fake_logits, means=state.logit_means)
        stats[6:] += is_failure(loss, images.data)
        backward(weight * loss, state.discriminator.heads, options, is_last=index + 1 == len(parts))
        for slot, by_backbone in enumerate((fake_logits, real_logits), start=1):
            values = torch.cat([rows.detach().flatten() for rows in by_backbone])
            stats[slot] += weight * values.sign().mean()
            stats[slot + 2] += weight * values.mean()
    stats = options.dist.all_reduce(stats)
    keep_failure(state, stats[6:])
    offset = sum(1 for _ in state.generator.parameters())
    step_optimizer(state, state.discriminator.heads, state.d_optimizer, offset=offset)
    return stats[:6]


def backward(loss: Tensor, network: nn.Module, options: StepOptions, *, is_last: bool) -> None:
    """Add up the gradients of `network`; in the last micro-batch's pass those of all ranks, while it runs."""
    with GradientSum(network.parameters(), options.dist) if is_last else nullcontext():
        loss.backward()


def render_fakes(generator: Generator, options: StepOptions, latents: Batch, *, update_w_avg: bool = False) -> Batch:
    """Render the images [N, 3, r, r] of latents z; `update_w_avg` moves the generator's running mean of w."""
    w = generator.mapping(latents.data, latents.label)
    if update_w_avg:
        label = None if latents.label is None else options.dist.all_gather(latents.label, equal=True)
        generator.mapping.update_w_avg(options.dist.all_gather(w, equal=True), label)
    affine = generator.affine(w.unsqueeze(1).expand(-1, generator.config.levels, -1))
    if options.chunk:
        colors = render_checkpointed(generator.synthesis, affine, options.coordinates, chunk=options.chunk)
    else:
        colors = generator.synthesis(affine, options.coordinates)  # [N, r*r, 3]
    resolution = round(len(options.coordinates) ** 0.5)
    return Batch(colors.transpose(1, 2).unflatten(2, (resolution, resolution)), latents.label)


def concatenate(first: Batch, second: Batch) -> Batch:
    """Return the two batches as one."""
    label = None if first.label is None or second.label is None else torch.cat([first.label, second.label])
    return Batch(torch.cat([first.data, second.data]), label)


def perturb(images: Batch, penalty: Penalty, *, index: int, dist: DistributedContext) -> Batch:
    """Return fakes and reals, the halves of `images`, with noise of width `penalty.sigma` added."""
    shape = images.data.shape[1:]
    count = len(images.data) // 2 * dist.world_size
    noise = [
        torch.randn(count, *shape, generator=penalty.rng(name, index))[dist.local_slice(count)]
        for name in ("fake", "real")
    ]
    noisy = images.data + penalty.sigma * to_device(torch.cat(noise), images.data.device, images.data.dtype)
    return Batch(noisy, images.label)


def project(state: TrainingState, options: StepOptions, images: Batch, *, passes: Sequence[str], index: int) -> Maps:
    """Return what the discriminator's heads read of the `passes`, equal parts of `images`, augmented and blurred.

    A pass that is named twice has the same augmentation both times.
    """
    draws, dist = None, options.dist
    if options.augment_rng:
        count, resolution = len(images.data) // len(passes) * dist.world_size, images.data.shape[2]
        rngs = {name: options.augment_rng(name, index) for name in passes}
        draws = []
        for _ in state.discriminator.config.backbones:
            drawn = {name: draw_augmentation(count, resolution, rng, p=options.augment_p) for name, rng in rngs.items()}
            local = Draws.of_all([drawn[name].of(dist.local_slice(count)) for name in passes])
            draws.append(local.to(images.data.device))
    with autocast(state, options, images.data.device):
        return state.discriminator.project(images.data, draws=draws, sigma=options.blur_sigma)


def discriminate(
    state: TrainingState, options: StepOptions, maps: Maps, label: Tensor | None, *, parts: int = 1, copies: int = 1
) -> list[list[Tensor]]:
    """Return the logits of what `project` returned, for each pass one [N, K] a backbone.

    The passes are `copies` times `parts` (see `ProjectedDiscriminator.forward`).
    """
    with autocast(state, options, maps[0][0].device):
        logits = state.discriminator.logits(maps, label, parts=parts, copies=copies)
    by_backbone = [rows.to(torch.promote_types(rows.dtype, torch.float32)).chunk(parts * copies) for rows in logits]
    return [list(logits_of_pass) for logits_of_pass in zip(*by_backbone, strict=True)]


def autocast(state: TrainingState, options: StepOptions, device: torch.device) -> torch.autocast:
    """Return the context of discriminator and classifier. Finite differences need all digits of float32."""
    dtype = None if options.penalty is not None else state.generator.synthesis.product_dtype
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@torch.no_grad()
def mean_logit(state: TrainingState, options: StepOptions, images: Batch, *, name: str) -> float:
    """Return the discriminator's mean logit of images that it is not trained on; its buffers are restored."""
    buffers = {key: tensor.clone() for key, tensor in state.discriminator.heads.named_buffers()}
    maps = project(state, options, images, passes=(name,), index=0)
    (logits,) = discriminate(state, options, maps, images.label)
    for key, tensor in state.discriminator.heads.named_buffers():
        tensor.copy_(buffers[key])
    mean = torch.cat([rows.flatten() for rows in logits]).mean().cpu()
    return float(options.dist.all_reduce(mean[None])) / options.dist.world_size


def update_logit_means(means: Tensor | None, logits: Tensor, *, decay: float = 0.99) -> Tensor:
    """Return the running means of the logits of reals and of fakes [2], LeCam's anchors, after one more iteration."""
    return logits if means is None else decay * means + (1 - decay) * logits


def ema_half_life(batch: int) -> float:
    """Return the half-life of the moving average in images: batch * 10 / 32 thousand, as in the release."""
    return batch * 10 / 32 * 1000


def ema_beta(*, batch: int, images: int, half_life: float) -> float:
    """Return the weight of the old average after `images` images, before this step: 0 in the first step."""
    return 0.5 ** (batch / max(min(half_life, EMA_RAMP_UP * images), 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, *, beta: float) -> None:
    """Set each parameter of `ema` to p + beta (ema - p), p being that of `model`; copy the buffers."""
    averages: list[Tensor] = list(ema.parameters())
    parameters: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(averages, parameters, 1.0 - beta)
    copy_all(list(ema.buffers()), list(model.buffers()))
