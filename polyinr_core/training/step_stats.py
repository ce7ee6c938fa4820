"""What iterations leave on the device until somebody reads it: statistics, and which number was not finite first.

A GPU computes behind the host, which waits at every number that it reads. So an iteration reads none: a failure is
kept as a number in `TrainingState.failure`, from which on no optimizer steps any more, and raised by `read_stats`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polyinr_core.errors import TrainingError

from .state import TrainingState

IMAGES, LOGITS, GRADIENT = 1, 2, 3  # failures; from GRADIENT on that of each parameter, the generator's first
ADVICE = (
    "the last training state is finite, but resuming from it leads to the same error: start a new run with another "
    "--seed or a larger --batch"
)


@dataclass(frozen=True)
class StepStats:
    """Losses of an iteration, and the mean sign (-1 to 1) and mean value of the discriminator's logits.

    `loss_g` and `loss_d` are the adversarial losses alone. `loss_guidance` is the classifier's and `loss_penalty` the
    gradient penalty, both before their weights; 0 in an iteration without.
    """

    loss_g: float
    loss_guidance: float
    loss_d: float
    d_sign_fake: float
    d_sign_real: float
    d_logit_fake: float
    d_logit_real: float
    loss_penalty: float


@dataclass(frozen=True)
class DeviceStats:
    """The statistics of an iteration, and the number of the first failure until then, [9] on the device."""

    values: Tensor
    state: TrainingState

    def read(self) -> StepStats:
        """Wait for the device and return the numbers. Raises TrainingError: a loss or gradient was not finite."""
        return read_stats([self])[0]


def read_stats(stats: Sequence[DeviceStats]) -> list[StepStats]:
    """Read the statistics of several iterations of one run, waiting for the device once. Raises TrainingError."""
    rows = torch.stack([each.values for each in stats]).tolist() if stats else []
    for row in rows:
        if row[-1]:
            raise_failure(stats[0].state, int(row[-1]))
    return [StepStats(*row[:-1]) for row in rows]


def is_failure(loss: Tensor, images: Tensor) -> Tensor:
    """Return [2] float32, each 0 or 1: whether the loss is not finite, and whether the images are not as well."""
    bad = loss.detach().isfinite().logical_not()
    return torch.stack([bad, bad & images.detach().isfinite().all().logical_not()]).float()


def keep_failure(state: TrainingState, failures: Tensor) -> None:
    """Keep IMAGES or LOGITS if the sum of `is_failure` over micro-batches and ranks says so."""
    bad, bad_images = failures > 0
    keep_first(state, torch.where(bad_images, IMAGES, torch.where(bad, LOGITS, 0)))


def keep_first(state: TrainingState, number: Tensor) -> None:
    """Keep a failure's number, 0 for none, unless there is an earlier one."""
    number = number.float()
    state.failure = number if state.failure is None else torch.where(state.failure == 0, number, state.failure)


def step_optimizer(state: TrainingState, network: nn.Module, optimizer: Optimizer, *, offset: int = 0) -> None:
    """Step, unless something has failed: then the weights stay as they are. Gradients are those of all ranks.

    A gradient that is not finite never becomes a zero: it is a failure, whose number is GRADIENT + `offset` + the index
    of the parameter. A fused optimizer leaves the step out by itself. For any other the host has to look, and a failure
    raises TrainingError here.
    """
    gradients = [parameter.grad for parameter in network.parameters()]
    present = [gradient for gradient in gradients if gradient is not None]
    norms, none = iter(torch._foreach_norm(present)), present[0].new_zeros(())
    finite = torch.stack([none if gradient is None else next(norms) for gradient in gradients]).isfinite()
    first = finite.logical_not().int().argmax()
    keep_first(state, torch.where(finite.all(), 0, GRADIENT + offset + first))
    assert state.failure is not None
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (state.failure > 0).float()  # type: ignore[attr-defined]
    elif number := int(state.failure):
        raise_failure(state, number)
    optimizer.step()


def raise_failure(state: TrainingState, number: int) -> None:
    """Raise TrainingError for a failure, and forget it.

    A loss is traced to the first tensor that is not finite, in the order of the computation: the cause, or what it led
    to. The weights are those of the failure, as nothing has stepped since; and all ranks have the same.
    """
    state.failure = None
    if number >= GRADIENT:
        name, player = parameter_names(state)[number - GRADIENT]
        raise TrainingError(f"the gradient of {name} ({player}) is not finite; {ADVICE}")
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    if number == IMAGES:
        del networks["discriminator"]
    tensors = ((f"{name}.{key}", t) for name, network in networks.items() for key, t in network.state_dict().items())
    first = next((name for name, tensor in tensors if not tensor.isfinite().all()), None)
    cause = first or ("the images" if number == IMAGES else "the discriminator's logits")
    raise TrainingError(f"the loss is not finite, {cause} first; {ADVICE}")


def parameter_names(state: TrainingState) -> list[tuple[str, str]]:
    """Return name and network of each parameter that learns, in the order of the failures' numbers."""
    generator = [(name, "generator") for name, _ in state.generator.named_parameters()]
    return generator + [(f"heads.{name}", "discriminator") for name, _ in state.discriminator.heads.named_parameters()]
