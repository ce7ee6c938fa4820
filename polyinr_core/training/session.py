"""Where a run stands: the stage, the pictures seen, the networks; to and from a state."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam

from ..critic import ProjectedDiscriminator
from ..critic.discriminator import Weights
from ..model import Generator
from ..seeds import generator_for, start_values_of
from .config import TrainingConfig
from .start import balance
from .state import State, pack_optimizer, unpack_optimizer
from .step import Networks

MOST_STAGES = 1000  # of one seed, each with its own critic


@dataclass
class Session:
    """What a run carries from iteration to iteration. Every random draw is a function of the seed and of this."""

    networks: Networks
    stage: int = 0
    images: int = 0  # seen in this stage
    images_before: int = 0  # seen in earlier stages

    @property
    def seen(self) -> int:
        """Return the pictures seen in all stages."""
        return self.images_before + self.images


def first_generator(config: TrainingConfig, classes: int, table: Tensor | None) -> Generator:
    """Make the generator that the first stage starts from; `table` [classes, 320] starts its class table."""
    with start_values_of("generator", config.seed):
        generator = Generator(config.generator(classes))
    if config.start == "balanced":
        balance(generator, generator_for("start", config.seed))
    if table is not None:
        generator.mapping.table.weight.data[: len(table)] = table
    return generator


def begin_stage(
    config: TrainingConfig,
    generator: Generator,
    *,
    stage: int,
    weights: Weights,
    device: torch.device,
    table: Tensor | None = None,
) -> Session:
    """Start a stage: the generator goes on from `generator`; critic, optimisers and average start anew.

    `table` [classes, 320] starts the class tables of the critic's heads.
    """
    critic = ProjectedDiscriminator(
        config.critic(generator.config.classes), weights, seed=config.seed * MOST_STAGES + stage
    )
    if table is not None:
        critic.start_tables(table)
    generator = generator.to(device).train().requires_grad_(True)
    critic = critic.to(device).train()
    g_optimizer = Adam(generator.parameters(), lr=config.g_lr, betas=(0.0, config.g_beta2), eps=1e-8)
    d_optimizer = Adam(critic.head_parameters(), lr=config.d_lr, betas=(0.0, config.d_beta2), eps=1e-8)
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return Session(Networks(generator, ema, critic, g_optimizer, d_optimizer), stage)


def pack(session: Session) -> State:
    """Return the session as a state."""
    networks = session.networks
    parts = {
        "generator": networks.generator.state_dict(),
        "ema": networks.ema.state_dict(),
        "critic": networks.critic.own_state(),
        "g_optimizer": pack_optimizer(networks.g_optimizer),
        "d_optimizer": pack_optimizer(networks.d_optimizer),
    }
    tensors = {f"{part}/{key}": value.detach() for part, values in parts.items() for key, value in values.items()}
    counters = {"stage": session.stage, "images": session.images, "images_before": session.images_before}
    return State(tensors, counters)


def unpack(session: Session, state: State) -> None:
    """Put the tensors of a state into a session that has just begun the same stage, and set its counters."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    networks = session.networks
    networks.generator.load_state_dict(parts["generator"])
    networks.ema.load_state_dict(parts["ema"])
    networks.critic.load_own_state(parts["critic"])
    unpack_optimizer(networks.g_optimizer, parts.get("g_optimizer", {}))
    unpack_optimizer(networks.d_optimizer, parts.get("d_optimizer", {}))
    session.images = state.counters["images"]
    session.images_before = state.counters["images_before"]
