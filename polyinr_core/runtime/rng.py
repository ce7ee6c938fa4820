"""Randomness by seed: each purpose has a generator of its own, so no draw ever shifts another."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

START_VALUES = {"normal_", "uniform_", "trunc_normal_", "div_", "mul_"}  # what initializers do to a fresh tensor


def generator_for(*key: int | str) -> torch.Generator:
    """Return a CPU generator determined by `key` alone, e.g. `generator_for(seed, "augment", step)`."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def start_values_of(*key: int | str) -> Iterator[None]:
    """Build modules whose start values `key` alone determines; torch's initializers know no other generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_for(*key).initial_seed())
        yield


@contextmanager
def no_start_values() -> Iterator[None]:
    """Build modules as mere shapes on the meta device, to assign weights to: no memory, no draws.

    Even for shapes PyTorch would import its compiler, which takes seconds, to do what initializers ask.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leave tensors as they are where an initializer would fill them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in START_VALUES:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
