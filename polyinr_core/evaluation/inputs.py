"""What is evaluated: pictures of one size in a fixed order, or what was once seen of such."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor


class Judged(Protocol):
    """Pictures, or what was seen of them, all of `side` pixels squared, and what a card says of them.

    `sha256` tells them from others: it changes with any byte that they are made of. Where side or number are not
    known they are 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def side(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...


class Pictures(Judged, Protocol):
    """Pictures in a fixed order."""

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        """Yield pictures of those numbers, all without them, some at a time: uint8 [n, 3, side, side].

        A picture is the same whatever is asked for beside it.
        """
