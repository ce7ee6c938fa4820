"""One training iteration: the generator's step, the critic's step, the average."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..critic.augment import draw_augmentation
from ..critic.discriminator import ProjectedDiscriminator
from ..critic.losses import Reduction, generator_loss, hinge_critic_fake, hinge_critic_real
from ..errors import TrainingError
from ..model import Generator
from .ema import update_ema


@dataclass
class Networks:
    """What an iteration changes."""

    generator: Generator
    ema: Generator
    critic: ProjectedDiscriminator
    g_optimizer: Optimizer
    d_optimizer: Optimizer


@dataclass(frozen=True)
class Batch:
    """Pictures [B, 3, r, r] in [-1, 1], or the z [B, z_dim] of pictures to draw, and their labels [B] or None."""

    content: Tensor
    label: Tensor | None

    def parts(self, size: int) -> Iterator["Batch"]:
        """Cut into micro-batches of `size`."""
        labels = [None] * len(self.content) if self.label is None else self.label.split(size)
        for content, label in zip(self.content.split(size), labels, strict=False):
            yield Batch(content, label)


@dataclass(frozen=True)
class Setting:
    """How an iteration looks at pictures.

    `points` [r*r, 3] is the grid, `sigma` the blur's width in pixels. `rng(pass, part)` gives the augmentation's
    randomness (None: no augmentation). Gradients are those of the mean over samples, or, with
    `reduction="sum"`, of their sum, as in the release.
    """

    points: Tensor
    micro_batch: int
    sigma: float = 0.0
    rng: Callable[[str, int], torch.Generator] | None = None
    reduction: Reduction = "mean"

    def scale(self, share: float) -> float:
        """Return the weight of the loss of a micro-batch that is this share of the batch."""
        return 1.0 if self.reduction == "sum" else share


@dataclass(frozen=True)
class Losses:
    """What an iteration tells: both losses, and the mean sign of the critic's logits, -1 to 1."""

    generator: float
    critic: float
    fake_sign: float
    real_sign: float


def iterate(
    networks: Networks, setting: Setting, *, reals: Batch, g_fakes: Batch, d_fakes: Batch, beta: float
) -> Losses:
    """Train both networks once, then average the generator with weight `beta`. Raises TrainingError.

    The generator learns from `g_fakes`; then the critic from `d_fakes`, drawn by the generator just trained,
    and `reals`, in passes of their own so that its BatchNorm never mixes them. Paper, section 3; the order is
    the release's.
    """
    generator_told = train_generator(networks, setting, g_fakes)
    critic_told = train_critic(networks, setting, fakes=d_fakes, reals=reals)
    update_ema(networks.ema, networks.generator, beta=beta)
    return Losses(*torch.cat([generator_told, critic_told]).tolist())


def train_generator(networks: Networks, setting: Setting, fakes: Batch) -> Tensor:
    """Step the generator against a critic that holds still. Return its loss, [1]."""
    told = torch.zeros(1)
    networks.g_optimizer.zero_grad(set_to_none=True)
    networks.critic.heads.requires_grad_(False)
    for index, part in enumerate(fakes.parts(setting.micro_batch)):
        logits = look(networks, setting, draw(networks.generator, setting, part), name="generator", index=index)
        share = len(part.content) / len(fakes.content)
        loss = generator_loss(logits, reduction=setting.reduction) * setting.scale(share)
        loss.backward()
        told += loss.detach().cpu()
    finish(networks.generator, networks.g_optimizer, name="generator")
    return told


def train_critic(networks: Networks, setting: Setting, *, fakes: Batch, reals: Batch) -> Tensor:
    """Step the critic's heads on pictures drawn and real. Return its loss and the two signs, [3]."""
    told = torch.zeros(3)
    networks.d_optimizer.zero_grad(set_to_none=True)
    networks.critic.heads.requires_grad_(True)
    pairs = zip(fakes.parts(setting.micro_batch), reals.parts(setting.micro_batch), strict=True)
    for index, (fake, real) in enumerate(pairs):
        with torch.no_grad():
            drawn = draw(networks.generator, setting, fake, track=True)
        for slot, name, pictures, hinge in (
            (1, "fake", drawn, hinge_critic_fake),
            (2, "real", real, hinge_critic_real),
        ):
            logits = look(networks, setting, pictures, name=name, index=index)
            share = len(fake.content) / len(fakes.content)
            loss = hinge(logits, reduction=setting.reduction) * setting.scale(share)
            loss.backward()
            told[0] += loss.detach().cpu()
            told[slot] += torch.cat([row.detach().sign().flatten() for row in logits]).mean().cpu() * share
    finish(networks.critic, networks.d_optimizer, name="critic")
    return told


def draw(generator: Generator, setting: Setting, latents: Batch, *, track: bool = False) -> Batch:
    """Draw the pictures of `latents`, [N, 3, r, r]; `track` moves the generator's mean of w."""
    w = generator.mapping(latents.content, latents.label)
    if track:
        generator.mapping.update_w_avg(w, latents.label)
    affine = generator.affine(w.unsqueeze(1).expand(-1, generator.config.levels, -1))
    colours = generator.synthesis(affine, setting.points)  # [N, r*r, 3]
    side = round(len(setting.points) ** 0.5)
    return Batch(colours.transpose(1, 2).unflatten(2, (side, side)), latents.label)


def look(networks: Networks, setting: Setting, pictures: Batch, *, name: str, index: int) -> list[Tensor]:
    """Show pictures to the critic: one tensor of logits a backbone."""
    draws = None
    if setting.rng:
        rng, (count, _, side, _) = setting.rng(name, index), pictures.content.shape
        draws = [draw_augmentation(count, side, rng) for _ in networks.critic.config.backbones]
    return networks.critic(pictures.content, pictures.label, draws=draws, sigma=setting.sigma)


def finish(network: nn.Module, optimizer: Optimizer, *, name: str) -> None:
    """Step the optimiser, unless a gradient is not finite: that stops the run and is never made a zero."""
    named = [(key, p.grad) for key, p in network.named_parameters() if p.grad is not None]
    norms = torch._foreach_norm([grad for _, grad in named])
    finite = torch.stack(norms).isfinite()
    if not finite.all():
        first = named[int(finite.logical_not().nonzero()[0])][0]
        raise TrainingError(
            f"the gradient of {first} ({name}) is not finite; the last state is sound, but goes on to the same "
            "place: start anew with another --seed or a larger --batch"
        )
    optimizer.step()
