"""An iteration never waits for the device: nothing that it computes is read on the host."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_step import latents, options, reals, small_state
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from polyinr_core.errors import TrainingError
from polyinr_core.runtime.device import to_device
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training import loop
from polyinr_core.training.config import make_config
from polyinr_core.training.diagnostics import Diagnostics
from polyinr_core.training.hooks import READ_EVERY, Hooks
from polyinr_core.training.state import TrainingState
from polyinr_core.training.step import Batch, Penalty, StepOptions, train_step
from polyinr_core.training.step_stats import GRADIENT, DeviceStats

pytestmark = pytest.mark.no_numbers  # but which operations there are
READING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim"}
# a CPU's tensors answer these without an operation, so they are looked for by name
ASKING = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__"}
MAKING = {"new_tensor"}  # copies from the host, for which it waits


class Operations(TorchDispatchMode):
    """Counts operations whose result the host has to know, in the forward and the backward pass."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in READING or by_mask:
            self.found[name] += 1
        return func(*args, **kwargs or {})


class Calls(TorchFunctionMode):
    """Counts calls from Python that ask a tensor for its values, or make one from Python's."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in ASKING | MAKING:
            self.found[name] += 1
        return func(*args, **kwargs or {})


@contextmanager
def counted() -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    with Operations(found), Calls(found):
        yield found


def fused_state(device: torch.device) -> TrainingState:
    state = small_state()
    for network in (state.generator, state.ema, state.discriminator):
        network.to(device)
    state.g_optimizer = torch.optim.Adam(state.generator.parameters(), lr=1e-3, fused=True)
    state.d_optimizer = torch.optim.Adam(state.discriminator.heads.parameters(), lr=1e-3, fused=True)
    return state


PENALTY = Penalty(1.0, 0.05, lambda name, part: generator_for("noise", name, part))
WHITENESS: Callable[[Tensor, Tensor], Tensor] = lambda images, label: -images.mean()  # noqa: E731
KINDS = {
    "hinge, two micro-batches": {"micro_batch": 2},
    "every option": {
        "relativistic": True,
        "lecam": 0.1,
        "penalty": PENALTY,
        "augment_p": 0.5,
        "chunk": 24,
        "classifier": WHITENESS,
        "guidance": 1.0,
    },
    "bfloat16": {},
}


def iterate(state: TrainingState, given: StepOptions, device: torch.device) -> object:
    batches = {"reals": reals(), "g_fakes": latents(), "d_fakes": latents()}
    moved = {
        name: Batch(to_device(batch.data, device), to_device(batch.label, device)) for name, batch in batches.items()
    }
    return train_step(state, given, **moved, ema_beta=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_is_read_in_an_iteration(kind: str) -> None:
    """On a CPU by counting what would wait on a GPU; the second iteration, whose optimizers have their moments."""
    cpu = torch.device("cpu")
    state = fused_state(cpu)
    if kind == "bfloat16":
        state.generator.synthesis.product_dtype = torch.bfloat16
    given = options(**KINDS[kind])
    iterate(state, given, cpu)
    with counted() as found:
        iterate(state, given, cpu)
    assert dict(found) == {}


def test_what_reads_is_counted() -> None:
    """So that the count of zero above means something, in the backward pass too."""
    x = torch.tensor([1.0, 2.0])
    for read in (lambda: x[0].item(), x.tolist, lambda: bool(x[0]), lambda: x[x > 1], x.cpu, lambda: float(x[0])):
        with counted() as found:
            read()
        assert found, read
    x.requires_grad_().register_hook(lambda grad: grad if grad.isfinite().all() else None)
    with counted() as found:
        loss = (x * 2).sum()
        assert not found
        loss.backward()
    assert found["_local_scalar_dense"]  # in the backward pass operations are seen, not calls
    with counted() as found:
        iterate(fused_state(x.device), options(classifier=reading_guide, guidance=1.0), x.device)
    assert found["item"] == 1


def reading_guide(images: Tensor, label: Tensor) -> Tensor:
    return images.mean() * images.detach().std().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_sees_no_synchronization(kind: str) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    state = fused_state(device)
    if kind == "bfloat16":
        state.generator.synthesis.product_dtype = torch.bfloat16
    given = options(**KINDS[kind])
    given = replace(given, coordinates=given.coordinates.to(device))
    for _ in range(2):
        iterate(state, given, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        iterate(state, given, device)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waiting_hooks(device: str) -> Hooks:
    """Return hooks that only wait for statistics: nothing is due for 60 iterations."""
    hooks = Hooks.__new__(Hooks)
    hooks.config = make_config("tiny", batch=4, stages="8:10", state_every=1.0, checkpoint_every=1.0, metric_every=0.0)
    hooks.device, hooks.pending, hooks.diagnostics = torch.device(device), [], Diagnostics()
    hooks.seconds, hooks.clock = 0.0, 0.0
    return hooks


@pytest.mark.parametrize(("device", "noticed"), [("cpu", 3), ("meta", READ_EVERY)])  # the second as a GPU
def test_a_failure_is_noticed_within_a_few_iterations(device: str, noticed: int) -> None:
    """It happens in the third; until it is read nothing is written."""
    hooks, names = waiting_hooks(device), SimpleNamespace(heads=nn.Linear(1, 1))
    state: Any = SimpleNamespace(generator=nn.Linear(2, 2), discriminator=names, stage=0, images=0, total_images=0)
    for iteration in range(1, noticed + 1):
        state.images = state.total_images = 4 * iteration
        values = torch.tensor([0.0] * 8 + [GRADIENT + 1.0 if iteration >= 3 else 0.0])
        stats = DeviceStats(values, state)
        if iteration < noticed:
            assert not hooks.on_step_end(state, options(), stats, ended=False, stopped=False)
    with pytest.raises(TrainingError, match="gradient of bias \\(generator\\)"):
        hooks.on_step_end(state, options(), stats, ended=False, stopped=False)


@pytest.mark.parametrize("reason", ["ended", "stopped", "save"])
def test_all_is_read_before_anything_is_saved(reason: str) -> None:
    hooks = waiting_hooks("meta")
    state: Any = SimpleNamespace(generator=nn.Linear(2, 2), stage=0, images=4, total_images=4)
    state.discriminator = SimpleNamespace(heads=nn.Linear(1, 1))
    stats = DeviceStats(torch.tensor([0.0] * 8 + [GRADIENT]), state)
    asked = {"ended": False, "stopped": False} | {reason: True}
    with pytest.raises(TrainingError, match="gradient of weight"):
        hooks.on_step_end(state, options(), stats, **asked)


class Pair(DistributedContext):
    """Two ranks whose other one asks for an end in the third iteration; counts when they are asked."""

    def all_gather_int(self, value: int) -> list[int]:
        self.iterations.append(self.state.images // 4)
        return [value, loop.STOP if self.state.images >= 12 else 0]

    iterations: list[int]
    state: Any


@pytest.mark.parametrize(("device", "asked"), [("cpu", [1, 2, 3]), ("meta", [READ_EVERY])])  # the second as a GPU
def test_several_gpus_ask_one_another_only_where_they_wait_anyway(
    device: str, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that one rank asks for in the second iteration is not forgotten."""
    hooks, dist = waiting_hooks(device), Pair(0, 2)
    for name in ("on_stage_start", "log_stats", "save_checkpoint", "save_state", "warn"):
        monkeypatch.setattr(hooks, name, lambda *_, **__: None, raising=False)
    state: Any = SimpleNamespace(stage=0, images=0, total_images=0, hooks={})
    saved: list[int] = []
    monkeypatch.setattr(hooks, "info", lambda message: saved.append(state.images // 4))
    monkeypatch.setattr(loop, "resume", lambda *_: state)
    object.__setattr__(dist, "iterations", [])
    object.__setattr__(dist, "state", state)

    def train_iteration(*_: object) -> tuple[StepOptions, DeviceStats]:
        state.images = state.total_images = state.images + 4
        return options(), DeviceStats(torch.zeros(9), state)

    trainer: Any = SimpleNamespace(config=hooks.config, dist=dist, train_iteration=train_iteration)
    trainer.loader = lambda stage: SimpleNamespace(batches=lambda *_, **__: (None for _ in range(99)))
    assert not loop.run_stages(trainer, hooks, save=lambda: state.images == 8)
    assert dist.iterations == asked
    assert saved == [2 if device == "cpu" else READ_EVERY]
    assert state.images == 4 * asked[-1]
