"""Count what one iteration of training starts, and what one level moves through memory: python benchmarks/launches.py

Nothing is timed and no GPU is needed: operations are counted as PyTorch dispatches them, Triton's kernels where they
are called. `gpu.py` counts its iterations on a GPU in the same way.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
import typer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polyinr_core.models import generator, layers
from polyinr_core.models.layers import LevelFunction
from polyinr_core.training.config import TrainingConfig

NOTHING_MOVES = {"empty", "empty_like", "new_empty", "empty_strided", "detach"}
KERNELS = ("modulate_kernel", "activate_kernel", "activation_backward_kernel", "modulation_backward_kernel")
IN_PLACE = {"activate_kernel"}
BF16 = torch.bfloat16
CPU = torch.device("cpu")


class Launches(TorchDispatchMode):
    """Counts the operations that start at least one kernel, and training's Triton kernels.

    With `features`, also the bytes of tensors of so many numbers, or more, that these read and write. Where there is no
    GPU, Triton's kernels are counted but not run, and what is computed with them is arbitrary.
    """

    def __init__(self, features: int | None = None) -> None:
        super().__init__()
        self.count = self.bytes = 0
        self.features = features

    def __enter__(self) -> "Launches":
        self.kernels = counted_kernels(self)
        self.kernels.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.kernels.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results, name = func(*args, **kwargs or {}), func.overloadpacket.__name__
        if not (func.is_view or name in NOTHING_MOVES):
            self.count += 1
            self.add_bytes(tree_leaves(args[name == "copy_" :]))  # a target, as what is given as out=, is not read
            self.add_bytes(tree_leaves(results))
        return results

    def add_bytes(self, values: list[Any]) -> None:
        """Count the bytes of the tensors of features among some values."""
        if self.features is not None:
            tensors = (value for value in values if isinstance(value, Tensor))
            self.bytes += sum(x.numel() * x.element_size() for x in tensors if x.numel() >= self.features)


class CountedKernel:
    """A Triton kernel whose launches are counted; each tensor of features is read or written once, or both."""

    def __init__(self, name: str, kernel: Any, launches: Launches) -> None:
        self.name, self.kernel, self.launches = name, kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            self.launches.count += 1
            for _ in range(1 + (self.name in IN_PLACE)):
                self.launches.add_bytes(list(args))
            if torch.cuda.is_available():
                self.kernel[grid](*args, **options)

        return launch


@contextmanager
def counted_kernels(launches: Launches) -> Iterator[None]:
    """Count the launches of training's Triton kernels, where Triton is installed."""
    if find_spec("triton") is None:
        yield
        return
    from polyinr_core.models import level_triton

    counted = {name: CountedKernel(name, getattr(level_triton, name), launches) for name in KERNELS}
    with patch.multiple(level_triton, **counted):
        yield


def level_bytes(function: Any, *, n: int = 64, pixels: int = 256) -> dict[str, float]:
    """Return the bytes per feature of a level's forward and backward pass, products in bfloat16."""
    h = torch.randn(2, pixels, n).to(BF16).requires_grad_()
    leaves = [torch.randn(2, 3, n), torch.randn(n, n), torch.randn(n)]
    matrix, weight, bias = (leaf.requires_grad_() for leaf in leaves)
    grad, coordinates = torch.ones_like(h), torch.rand(pixels, 3)
    with patch.object(layers, "CHUNK_FEATURES", 2**30):
        with Launches(h.numel()) as forward:
            x = function.apply(h, matrix, coordinates, weight, bias, True, 256.0, BF16)
        with Launches(h.numel()) as backward:
            torch.autograd.grad(x, (h, matrix, weight, bias), grad)
    return {"forward": forward.bytes / h.numel(), "backward": backward.bytes / h.numel()}


def iteration_launches(function: Any = None) -> int:
    """Return the launches of an iteration in bfloat16, as on a GPU, with a level's function; None: the literal form."""
    from gpu import iterate, iteration_of, new_state, random_batches
    from timing import Bench

    from polyinr_core.runtime.pretrained import load_pretrained

    weights = {"lite0": load_pretrained("lite0")}
    sizes = {"side": 8, "n": 16, "batch": 2}
    if function is None:
        bench = Bench(CPU, seconds=600, quick=True)
        work = iteration_of("literal", bench, weights, **sizes, dtype=torch.float32, chunk=0)
    else:
        state = new_state(TrainingConfig(batch=2, channels=16, backbones=("lite0",), cond=False), weights, CPU, BF16)
        state.discriminator.store_pretrained(BF16)
        work = partial(iterate, state, *random_batches(2, 8, state, CPU), augment=True)
    work()  # makes the moments
    with patch.object(generator, "select_level", lambda *_: function), Launches() as launches:
        work()
    return launches.count


def main() -> None:
    """Print the counts as JSON."""
    forms: dict[str, Any] = {"step by step": LevelFunction}
    if find_spec("triton") is not None:
        from polyinr_core.models.level_triton import FusedLevelFunction

        forms["kernels"] = FusedLevelFunction
    counts = {
        "bytes_per_feature": {form: level_bytes(function) for form, function in forms.items()},
        "launches_per_iteration": {
            form: iteration_launches(function) for form, function in {"literal": None, **forms}.items()
        },
    }
    print(json.dumps(counts, indent=2))


if __name__ == "__main__":
    typer.run(main)
