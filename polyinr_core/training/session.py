"""Where a run stands: the stage, the pictures seen, the networks; to and from a state."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ..critic import ProjectedDiscriminator
from ..critic.discriminator import Weights
from ..errors import ConfigError, TrainingError
from ..model import Generator
from ..ranks import ALONE, Ranks
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
    notes: dict[str, Any] = field(default_factory=dict)  # what those who watch a run remember, as JSON

    @property
    def seen(self) -> int:
        """Return the pictures seen in all stages."""
        return self.images_before + self.images

    @property
    def averaged(self) -> Generator:
        """Return the averaged generator in float32, as it is kept and judged."""
        ema = self.networks.ema
        return ema if ema.mapping.w_avg.dtype == torch.float32 else copy.deepcopy(ema).float()


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
    dtype: torch.dtype = torch.float32,
    table: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Session:
    """Start a stage: the generator goes on from `generator`; critic, optimisers and average start anew.

    `table` [classes, 320] starts the class tables of the critic's heads. In float64 all networks compute so; in
    a narrower format weights stay float32.
    """
    critic = ProjectedDiscriminator(
        config.critic(generator.config.classes), weights, seed=config.seed * MOST_STAGES + stage
    )
    if table is not None:
        critic.start_tables(table)
    critic.share_statistics(ranks)
    wide = torch.promote_types(dtype, torch.float32)
    generator = generator.to(device, wide).train().requires_grad_(True)
    generator.synthesis.product_dtype = dtype if dtype != wide else None
    critic = critic.to(device, wide).train()
    ranks.same_as_first([*generator.state_dict().values(), *critic.own_state().values()])
    # fused: one pass over the weights, measured five times as fast as PyTorch's default on a CPU
    g_optimizer = Adam(generator.parameters(), lr=config.g_lr, betas=(0.0, config.g_beta2), eps=1e-8, fused=True)
    d_optimizer = Adam(
        critic.head_parameters(), lr=config.d_lr, betas=(0.0, config.d_beta2), eps=1e-8, fused=True
    )
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    ema.synthesis.product_dtype = None
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
    counters = {
        "stage": session.stage,
        "images": session.images,
        "images_before": session.images_before,
        "notes": session.notes,
    }
    return State(tensors, counters)


def unpack(session: Session, state: State) -> None:
    """Put the tensors of a state into a session that has just begun the same stage, and set its counters.

    Raises TrainingError where they do not fit: the state of another run.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    networks = session.networks
    try:
        networks.generator.load_state_dict(parts["generator"])
        networks.ema.load_state_dict(parts["ema"])
        networks.critic.load_own_state(parts["critic"])
        unpack_optimizer(networks.g_optimizer, parts.get("g_optimizer", {}))
        unpack_optimizer(networks.d_optimizer, parts.get("d_optimizer", {}))
        images, images_before = state.counters["images"], state.counters["images_before"]
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, ConfigError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(
            f"the state does not fit this run ({reason}); put its own state/ back, or move it away to start anew"
        ) from error
    session.images, session.images_before = images, images_before
    session.notes = state.counters.get("notes", {})


def shared_state(state: State | None, ranks: Ranks) -> State | None:
    """Return the first rank's state on every rank; only that one reads files."""
    if ranks.count == 1:
        return state
    layout = ranks.fact(state and (state.counters, {key: (t.shape, t.dtype) for key, t in state.tensors.items()}))
    if layout is None:
        return None
    counters, shapes = layout
    tensors = (
        state.tensors
        if state
        else {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in shapes.items()}
    )
    ranks.same_as_first(tensors.values())
    return State(tensors, counters)
