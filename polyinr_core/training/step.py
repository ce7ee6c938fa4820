"""The exponential moving average of the generator: the model that is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polyinr_core.discriminator.diffaugment import Draws, draw_augmentation
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.discriminator.losses import Reduction, generator_loss, hinge_disc_fake, hinge_disc_real
from polyinr_core.errors import TrainingError
from polyinr_core.models.checkpointing import draw_replayed
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.distributed import ALONE, Ranks

RAMP_UP = 0.05  # the half-life is at most this part of the images seen


def half_life(batch: int) -> float:
    """Return the average's half-life in images: batch * 10 / 32 thousand, as in the release."""
    return batch * 10 / 32 * 1000


def ema_beta(*, batch: int, images: int, half_life: float) -> float:
    """Return the weight of the old average after `images` images (before this step): 0 in the first step."""
    return 0.5 ** (batch / max(min(half_life, RAMP_UP * images), 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, *, beta: float) -> None:
    """Move the parameters of `ema` towards those of `model`: p + beta (ema - p); copy the buffers."""
    averages: list[torch.Tensor] = list(ema.parameters())
    parameters: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(averages, parameters, 1.0 - beta)
    for old, new in zip(ema.buffers(), model.buffers(), strict=True):
        old.copy_(new)


Guide = Callable[[Tensor, Tensor], Tensor]  # images [N, 3, r, r] and labels [N] to a loss, the mean over N


@dataclass
class Networks:
    """What an iteration changes."""

    generator: Generator
    ema: Generator
    discriminator: ProjectedDiscriminator
    g_optimizer: Optimizer
    d_optimizer: Optimizer


@dataclass(frozen=True)
class Batch:
    """Images [B, 3, r, r] in [-1, 1], or the z [B, z_dim] of images to draw, and their labels [B] or None."""

    content: Tensor
    label: Tensor | None

    def parts(self, size: int) -> Iterator["Batch"]:
        """Cut into micro-batches of `size`."""
        labels = [None] * len(self.content) if self.label is None else self.label.split(size)
        for content, label in zip(self.content.split(size), labels, strict=False):
            yield Batch(content, label)


@dataclass(frozen=True)
class Setting:
    """How an iteration looks at images.

    `points` [r*r, 3] is the grid, `sigma` the blur's width in pixels. `rng(pass, part)` gives the augmentation's
    randomness (None: no augmentation). Gradients are those of the mean over samples, or, with
    `reduction="sum"`, of their sum, as in the release. `micro_batch` images make a pass, in equal parts on all
    `ranks`: each holds its part of every micro-batch, and batch statistics, gradients and the mean of w are
    those of the whole. With `chunk`, the generator's backward pass takes so many pixels at once. `guide` adds
    its loss, times `guidance`, to the generator's.
    """

    points: Tensor
    micro_batch: int
    sigma: float = 0.0
    rng: Callable[[str, int], torch.Generator] | None = None
    reduction: Reduction = "mean"
    ranks: Ranks = ALONE
    chunk: int = 0
    guide: Guide | None = None
    guidance: float = 0.0

    @property
    def own_part(self) -> int:
        """Return this rank's images of a micro-batch."""
        return self.micro_batch // self.ranks.count

    def share(self, part: Batch, batch: Batch) -> float:
        """Return the part of all ranks' batches that `part` of this rank's `batch` makes up."""
        return len(part.content) / (len(batch.content) * self.ranks.count)


@dataclass(frozen=True)
class Losses:
    """What an iteration tells: the losses, and the discriminator's logits: their mean sign, -1 to 1, and their mean.

    The generator's is the discriminator's opinion alone; `guidance` is the classifier's loss, without its weight.
    """

    loss_g: float
    guidance: float
    loss_d: float
    fake_sign: float
    real_sign: float
    fake_logit: float
    real_logit: float


def iterate(
    networks: Networks, setting: Setting, *, reals: Batch, g_fakes: Batch, d_fakes: Batch, beta: float
) -> Losses:
    """Train both networks once, then average the generator with weight `beta`. Raises TrainingError.

    The generator learns from `g_fakes`; then the discriminator from `d_fakes`, drawn by the generator just trained,
    and `reals`: its BatchNorm never mixes them, as if they had passes of their own. Paper, section 3; the
    order is the release's.
    """
    generator_told = train_generator(networks, setting, g_fakes)
    disc_told = train_disc(networks, setting, fakes=d_fakes, reals=reals)
    update_ema(networks.ema, networks.generator, beta=beta)
    return Losses(*torch.cat([generator_told, disc_told]).tolist())


def train_generator(networks: Networks, setting: Setting, fakes: Batch) -> Tensor:
    """Step the generator against a discriminator that holds still. Return its loss and the guide's, [2]."""
    told, odd = torch.zeros(2), 0
    networks.g_optimizer.zero_grad(set_to_none=True)
    networks.discriminator.heads.requires_grad_(False)
    for index, part in enumerate(fakes.parts(setting.own_part)):
        drawn = draw(networks.generator, setting, part)
        (logits,) = look(networks, setting, drawn, names=("generator",), index=index)
        share = setting.share(part, fakes)
        loss = generator_loss(logits, reduction=setting.reduction)
        told[0] += weighed(loss, setting, share)
        if setting.guide is not None and drawn.label is not None:
            guidance = setting.guide(drawn.content, drawn.label)
            told[1] += weighed(guidance, setting, share)
            loss = loss + setting.guidance * guidance
        odd = odd or oddity(loss, networks, drawn)
        backward(loss, setting, share)
    check_finite(odd, networks, setting.ranks)
    finish(networks.generator, networks.g_optimizer, setting.ranks, name="generator")
    return setting.ranks.total(told)


def train_disc(networks: Networks, setting: Setting, *, fakes: Batch, reals: Batch) -> Tensor:
    """Step the discriminator's heads on images drawn and real. Return its loss, two signs and two logits, [5]."""
    told, odd = torch.zeros(5), 0
    networks.d_optimizer.zero_grad(set_to_none=True)
    networks.discriminator.heads.requires_grad_(True)
    pairs = zip(fakes.parts(setting.own_part), reals.parts(setting.own_part), strict=True)
    for index, (fake, real) in enumerate(pairs):
        with torch.no_grad():
            drawn = draw(networks.generator, setting, fake, track=True)
        shown = together(drawn, real)
        logits = look(networks, setting, shown, names=("fake", "real"), index=index)
        share = setting.share(fake, fakes)
        loss = hinge_disc_fake(logits[0], reduction=setting.reduction)
        loss = loss + hinge_disc_real(logits[1], reduction=setting.reduction)
        odd = odd or oddity(loss, networks, shown)
        backward(loss, setting, share)
        told[0] += weighed(loss, setting, share)
        for slot, judged in enumerate(logits, start=1):
            rows = torch.cat([row.detach().flatten() for row in judged])
            told[slot] += rows.sign().mean().cpu() * share
            told[slot + 2] += rows.mean().cpu() * share
    check_finite(odd, networks, setting.ranks)
    finish(networks.discriminator, networks.d_optimizer, setting.ranks, name="discriminator")
    return setting.ranks.total(told)


def together(first: Batch, second: Batch) -> Batch:
    """Return two batches one after the other."""
    labeled = first.label is not None and second.label is not None
    label = torch.cat([first.label, second.label]) if labeled else None  # type: ignore[list-item]
    return Batch(torch.cat([first.content, second.content]), label)


def draw(generator: Generator, setting: Setting, latents: Batch, *, track: bool = False) -> Batch:
    """Draw the images of `latents`, [N, 3, r, r]; `track` moves the generator's mean of w."""
    w = generator.mapping(latents.content, latents.label)
    if track:
        label = None if latents.label is None else setting.ranks.gathered(latents.label)
        generator.mapping.update_w_avg(setting.ranks.gathered(w), label)
    affine = generator.affine(w.unsqueeze(1).expand(-1, generator.config.levels, -1))
    if setting.chunk:
        colors = draw_replayed(generator.synthesis, affine, setting.points, chunk=setting.chunk)
    else:
        colors = generator.synthesis(affine, setting.points)  # [N, r*r, 3]
    side = round(len(setting.points) ** 0.5)
    return Batch(colors.transpose(1, 2).unflatten(2, (side, side)), latents.label)


def look(
    networks: Networks, setting: Setting, images: Batch, *, names: Sequence[str], index: int
) -> list[list[Tensor]]:
    """Show images to the discriminator, equal parts of which are passes `names`: for each, its logits by backbone."""
    draws, ranks, parts = None, setting.ranks, len(names)
    if setting.rng:
        count, side = len(images.content) // parts * ranks.count, images.content.shape[2]
        rngs = [setting.rng(name, index) for name in names]
        draws = [
            Draws.of_all([draw_augmentation(count, side, rng).of(ranks.share(count)) for rng in rngs])
            for _ in networks.discriminator.config.backbones
        ]
    narrow = networks.generator.synthesis.product_dtype
    with torch.autocast(images.content.device.type, narrow, enabled=narrow is not None):
        logits = networks.discriminator(images.content, images.label, draws=draws, sigma=setting.sigma, parts=parts)
    by_backbone = [rows.to(images.content.dtype).chunk(parts) for rows in logits]
    return [list(of_part) for of_part in zip(*by_backbone, strict=True)]


@torch.no_grad()
def mean_logit(networks: Networks, setting: Setting, images: Batch, *, name: str) -> float:
    """Return the discriminator's mean logit of images it does not learn from; nothing of it changes."""
    buffers = {key: tensor.clone() for key, tensor in networks.discriminator.heads.named_buffers()}
    (logits,) = look(networks, setting, images, names=(name,), index=0)
    for key, tensor in networks.discriminator.heads.named_buffers():
        tensor.copy_(buffers[key])
    mean = torch.cat([row.flatten() for row in logits]).mean().cpu()
    return float(setting.ranks.total(mean[None])) / setting.ranks.count


def weighed(loss: Tensor, setting: Setting, share: float) -> Tensor:
    """Return what a micro-batch adds to the batch's loss: a sum over samples, or its share of the mean."""
    return loss.detach().cpu() * (1.0 if setting.reduction == "sum" else share)


def backward(loss: Tensor, setting: Setting, share: float) -> None:
    """Add the gradients of a micro-batch."""
    (loss * (1.0 if setting.reduction == "sum" else share)).backward()


def oddity(loss: Tensor, networks: Networks, images: Batch) -> int:
    """Return 0 for a loss that is finite, else the number of what is not, as `named_oddity` counts.

    It is the first tensor, in the order of the computation, of those that all ranks have, or what it led to.
    """
    if loss.isfinite():
        return 0
    tensors = all_tensors(networks)
    odd = [index for index, tensor in enumerate(tensors.values()) if not tensor.isfinite().all()]
    if not images.content.isfinite().all():
        of_generator = [index for index in odd if list(tensors)[index].startswith("generator.")]
        return 3 + of_generator[0] if of_generator else 1
    return 3 + odd[0] if odd else 2


def named_oddity(number: int, networks: Networks) -> str:
    """Return the name of what is not finite: 1 the images, 2 the logits, from 3 on a tensor of the networks."""
    return {1: "the images", 2: "the discriminator's logits"}.get(number) or list(all_tensors(networks))[number - 3]


def all_tensors(networks: Networks) -> dict[str, Tensor]:
    """Return the tensors of both networks by name, in the order of the computation."""
    parts = {"generator": networks.generator, "discriminator": networks.discriminator}
    return {f"{name}.{key}": t for name, part in parts.items() for key, t in part.state_dict().items()}


def check_finite(odd: int, networks: Networks, ranks: Ranks) -> None:
    """Raise TrainingError, the same on all ranks, if the loss of any is not finite: that stops the run."""
    if found := [number for number in ranks.numbers(odd) if number]:
        raise TrainingError(f"the loss is not finite, {named_oddity(min(found), networks)} first; {ADVICE}")


def finish(network: nn.Module, optimizer: Optimizer, ranks: Ranks, *, name: str) -> None:
    """Step the optimizer, unless a gradient is not finite: that stops the run and is never made a zero."""
    named = [(key, p.grad) for key, p in network.named_parameters() if p.grad is not None]
    ranks.total_of([grad for _, grad in named])
    norms = torch._foreach_norm([grad for _, grad in named])
    finite = torch.stack(norms).isfinite()
    if not finite.all():
        first = named[int(finite.logical_not().nonzero()[0])][0]
        raise TrainingError(f"the gradient of {first} ({name}) is not finite; {ADVICE}")
    optimizer.step()


ADVICE = "the last state is sound, but goes on to the same place: start anew with another --seed or a larger --batch"
