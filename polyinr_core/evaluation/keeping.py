"""What an unfinished pass has seen so far, kept every so often, so that the next one goes on from there."""

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import PolyinrError
from ..metrics.rules import Sense
from .cache import Cache
from .taking import Taker

EVERY = 30.0  # seconds between two states
SHARE = 20  # and at least so many times what writing one takes


class Interrupted(PolyinrError):
    """A pass that a person has stopped; what it had seen is kept."""

    exit_code = 130


class Keeper:
    """The place of one pass's state in the cache: of all its senses together, whole or absent.

    `key` holds all that the state depends on, the batch and this process's share of the pictures included:
    going on gives to the bit what an undisturbed pass gives.
    """

    def __init__(self, cache: Cache, key: Mapping[str, Any]) -> None:
        self.cache = cache
        self.key = key
        self.next = time.monotonic() + EVERY

    def restore(self, takers: Mapping[Sense, Taker]) -> None:
        """Give takers the state that is kept, if there is one."""
        found = self.cache.load(self.key)
        if found is None:
            return
        count, tensors = found
        for number, taker in enumerate(takers.values()):
            state: dict[str, Tensor] = {}
            for name, tensor in tensors.items():
                owner, _, part = name.partition(".")
                if owner == str(number):
                    state[part] = tensor
            taker.restore(state, count)

    def keep_if_due(self, takers: Mapping[Sense, Taker]) -> None:
        """Keep the state if it is time to."""
        if (start := time.monotonic()) >= self.next:
            self.keep(takers)
            now = time.monotonic()
            self.next = now + max(EVERY, SHARE * (now - start))

    def keep(self, takers: Mapping[Sense, Taker]) -> None:
        """Keep the state. Raises FileError."""
        tensors = {
            f"{number}.{name}": tensor
            for number, taker in enumerate(takers.values())
            for name, tensor in taker.state().items()
        }
        self.cache.store(self.key, next(iter(takers.values())).count, tensors)

    def forget(self) -> None:
        """Remove the state: the pass is finished."""
        self.cache.forget(self.key)
