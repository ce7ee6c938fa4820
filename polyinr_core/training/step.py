"""One training iteration: a generator step, a discriminator step, then the moving average of the generator."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polyinr_core.discriminator.diffaugment import Draws, draw_augmentation
from polyinr_core.discriminator.losses import generator_loss, hinge_disc_fake, hinge_disc_real
from polyinr_core.errors import TrainingError
from polyinr_core.models.generator import Generator, render_checkpointed
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .state import TrainingState

EMA_RAMP_UP = 0.05  # the half-life is at most this fraction of the images seen
ADVICE = (
    "the last training state is finite, but resuming from it leads to the same error: start a new run with another "
    "--seed or a larger --batch"
)

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
class StepOptions:
    """What an iteration depends on, beside the networks and its batches.

    Args:
        coordinates: The grid of the stage's resolution r, homogeneous, [r*r, 3].
        micro_batch: Images of one forward pass, all ranks together. Each rank holds its part of every micro-batch;
            batch statistics, gradients and the mean of w are those of the whole micro-batch.
        blur_sigma: Width of the blur in front of the discriminator, in pixels.
        augment_rng: Returns the CPU generator of DiffAugment for a pass ("generator", "fake" or "real") and the
            index of a micro-batch. None: no augmentation.
        chunk: Pixels of the generator's backward pass at a time. 0: all.
        classifier: Its loss, times `guidance`, is added to the generator's.
        dist: The ranks that share each batch.
    """

    coordinates: Tensor
    micro_batch: int
    blur_sigma: float = 0.0
    augment_rng: Callable[[str, int], torch.Generator] | None = None
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


@dataclass(frozen=True)
class StepStats:
    """Losses of an iteration, and the mean sign (-1 to 1) and mean value of the discriminator's logits.

    `loss_g` is the adversarial loss alone; `loss_guidance` is the classifier's, before its weight.
    """

    loss_g: float
    loss_guidance: float
    loss_d: float
    d_sign_fake: float
    d_sign_real: float
    d_logit_fake: float
    d_logit_real: float


def train_step(
    state: TrainingState, options: StepOptions, *, reals: Batch, g_fakes: Batch, d_fakes: Batch, ema_beta: float
) -> StepStats:
    """Train the generator, then the discriminator, once; then update the moving average. Paper, section 3.

    The generator is trained on the latents `g_fakes`; then the discriminator on the images that the updated generator
    makes of `d_fakes`, and on `reals`: one pass, but BatchNorm never mixes fakes and reals. The order is the release's.

    Args:
        state: The networks and optimizers; changed in place. Its counters stay.
        reals: Images of this rank's part of the batch, [B, 3, r, r]; a conditional model needs their labels.
        g_fakes, d_fakes: As many latents z [B, z_dim] with their labels.
        ema_beta: Weight of the old average, 0 to 1 (see `ema_beta`).

    Raises:
        TrainingError: A loss or gradient is not finite.
    """
    g_stats = train_generator(state, options, g_fakes)
    d_stats = train_discriminator(state, options, fakes=d_fakes, reals=reals)
    update_ema(state.ema, state.generator, beta=ema_beta)
    return StepStats(*torch.cat([g_stats, d_stats]).tolist())


def train_generator(state: TrainingState, options: StepOptions, fakes: Batch) -> Tensor:
    """Step the generator against a fixed discriminator. Return the adversarial and the classifier loss, [2]."""
    stats, nonfinite = torch.zeros(2), 0
    state.g_optimizer.zero_grad(set_to_none=True)
    state.discriminator.heads.requires_grad_(False)
    for index, latents in enumerate(fakes.split(options.local_micro_batch)):
        weight = options.weight_of(latents, fakes)
        images = render_fakes(state.generator, options, latents)
        (logits,) = discriminate(state, options, images, passes=("generator",), index=index)
        loss = generator_loss(logits)
        stats[0] += weight * loss.detach().cpu()
        if options.classifier is not None and images.label is not None:
            guidance = options.classifier(images.data, images.label)
            stats[1] += weight * guidance.detach().cpu()
            loss = loss + options.guidance * guidance
        nonfinite = nonfinite or first_nonfinite(loss, state, images)
        (weight * loss).backward()
    check_finite(nonfinite, state, options.dist)
    step_optimizer(state.generator, state.g_optimizer, options.dist, name="generator")
    return options.dist.all_reduce(stats)


def train_discriminator(state: TrainingState, options: StepOptions, *, fakes: Batch, reals: Batch) -> Tensor:
    """Step the discriminator's heads. Return the loss, the mean signs and the mean logits of fakes and reals, [5]."""
    stats, nonfinite = torch.zeros(5), 0
    state.d_optimizer.zero_grad(set_to_none=True)
    state.discriminator.heads.requires_grad_(True)
    parts = zip(fakes.split(options.local_micro_batch), reals.split(options.local_micro_batch), strict=True)
    for index, (latents, real) in enumerate(parts):
        weight = options.weight_of(latents, fakes)
        with torch.no_grad():
            images = concatenate(render_fakes(state.generator, options, latents, update_w_avg=True), real)
        logits = discriminate(state, options, images, passes=("fake", "real"), index=index)
        loss = hinge_disc_fake(logits[0]) + hinge_disc_real(logits[1])
        nonfinite = nonfinite or first_nonfinite(loss, state, images)
        (weight * loss).backward()
        stats[0] += weight * loss.detach().cpu()
        for slot, by_backbone in enumerate(logits, start=1):
            values = torch.cat([rows.detach().flatten() for rows in by_backbone])
            stats[slot] += weight * values.sign().mean().cpu()
            stats[slot + 2] += weight * values.mean().cpu()
    check_finite(nonfinite, state, options.dist)
    step_optimizer(state.discriminator, state.d_optimizer, options.dist, name="discriminator")
    return options.dist.all_reduce(stats)


def render_fakes(generator: Generator, options: StepOptions, latents: Batch, *, update_w_avg: bool = False) -> Batch:
    """Render the images [N, 3, r, r] of latents z; `update_w_avg` moves the generator's running mean of w."""
    w = generator.mapping(latents.data, latents.label)
    if update_w_avg:
        label = None if latents.label is None else options.dist.all_gather(latents.label)
        generator.mapping.update_w_avg(options.dist.all_gather(w), label)
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


def discriminate(
    state: TrainingState, options: StepOptions, images: Batch, *, passes: Sequence[str], index: int
) -> list[list[Tensor]]:
    """Return the discriminator's logits for each of the `passes`, equal parts of `images`: one [N, K] a backbone."""
    draws, dist, parts = None, options.dist, len(passes)
    if options.augment_rng:
        count, resolution = len(images.data) // parts * dist.world_size, images.data.shape[2]
        rngs = [options.augment_rng(name, index) for name in passes]
        draws = [
            Draws.of_all([draw_augmentation(count, resolution, rng).of(dist.local_slice(count)) for rng in rngs])
            for _ in state.discriminator.config.backbones
        ]
    dtype = state.generator.synthesis.product_dtype
    with torch.autocast(images.data.device.type, dtype, enabled=dtype is not None):
        logits = state.discriminator(images.data, images.label, draws=draws, sigma=options.blur_sigma, parts=parts)
    by_backbone = [rows.to(images.data.dtype).chunk(parts) for rows in logits]
    return [list(logits_of_pass) for logits_of_pass in zip(*by_backbone, strict=True)]


@torch.no_grad()
def mean_logit(state: TrainingState, options: StepOptions, images: Batch, *, name: str) -> float:
    """Return the discriminator's mean logit of images that it is not trained on; its buffers are restored."""
    buffers = {key: tensor.clone() for key, tensor in state.discriminator.heads.named_buffers()}
    (logits,) = discriminate(state, options, images, passes=(name,), index=0)
    for key, tensor in state.discriminator.heads.named_buffers():
        tensor.copy_(buffers[key])
    mean = torch.cat([rows.flatten() for rows in logits]).mean().cpu()
    return float(options.dist.all_reduce(mean[None])) / options.dist.world_size


def step_optimizer(network: nn.Module, optimizer: Optimizer, dist: DistributedContext, *, name: str) -> None:
    """Sum the gradients over all ranks and step. A gradient that is not finite raises, and never becomes a zero."""
    gradients = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    dist.all_reduce_coalesced(list(gradients.values()))
    finite = torch.stack(torch._foreach_norm(list(gradients.values()))).isfinite()
    if not finite.all():
        first = list(gradients)[int(finite.logical_not().nonzero()[0])]
        raise TrainingError(f"the gradient of {first} ({name}) is not finite; {ADVICE}")
    optimizer.step()


def first_nonfinite(loss: Tensor, state: TrainingState, images: Batch) -> int:
    """Return 0 if the loss is finite, else the number of the first tensor that is not (see `name_nonfinite`).

    The order is that of the computation, so the first one is the cause, or what it led to. Numbers can be compared
    between ranks, which have the same tensors.
    """
    if loss.isfinite():
        return 0
    tensors = named_tensors(state)
    nonfinite = [index for index, tensor in enumerate(tensors.values()) if not tensor.isfinite().all()]
    if not images.data.isfinite().all():
        of_generator = [index for index in nonfinite if list(tensors)[index].startswith("generator.")]
        return 3 + of_generator[0] if of_generator else 1
    return 3 + nonfinite[0] if nonfinite else 2


def name_nonfinite(number: int, state: TrainingState) -> str:
    """Return the name of a tensor by its number: 1 the images, 2 the logits, 3 and above those of the networks."""
    return {1: "the images", 2: "the discriminator's logits"}.get(number) or list(named_tensors(state))[number - 3]


def named_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Return the tensors of both networks by name, in the order of the computation."""
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    return {f"{name}.{key}": t for name, network in networks.items() for key, t in network.state_dict().items()}


def check_finite(nonfinite: int, state: TrainingState, dist: DistributedContext) -> None:
    """Raise TrainingError, the same on all ranks, if the loss of any rank is not finite."""
    if numbers := [number for number in dist.all_gather_int(nonfinite) if number]:
        raise TrainingError(f"the loss is not finite, {name_nonfinite(min(numbers), state)} first; {ADVICE}")


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
    for old, new in zip(ema.buffers(), model.buffers(), strict=True):
        old.copy_(new)
