"""Random numbers: a generator for each purpose and seed, so no draw shifts another."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

INITIALIZERS = {"normal_", "uniform_", "trunc_normal_", "div_", "mul_"}  # what initializers call on a new tensor


def generator_for(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on `key` alone, e.g. `generator_for(seed, "augment", step)`."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def seeded_init(*key: int | str) -> Iterator[None]:
    """Build modules whose initial weights depend on `key` alone; torch's initializers use the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_for(*key).initial_seed())
        yield


@contextmanager
def meta_init() -> Iterator[None]:
    """Build modules on the meta device, to assign weights to: without memory and initialization.

    Initializers on the meta device would make PyTorch import its compiler, which takes seconds.
    """
    with torch.device("meta"), _SkipInitializers():
        yield


class _SkipInitializers(TorchFunctionMode):
    """Return tensors unchanged where an initializer would fill them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in INITIALIZERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
