"""A fast drawer that may fail where it first runs, and the plain one that takes its place."""

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .select import Drawer

logger = logging.getLogger(__name__)
WIDTH = 160  # of a reason: compilers tell long stories
FAILED: set[str] = set()  # names of what has failed in this process; drawers are made anew for every few images


class Tried:
    """Draw with a compiler's code; from its first failure in this process on plainly, and say so once.

    What cannot be drawn plainly either, as it is wrong itself, is no failure of the compiler's.
    """

    def __init__(self, fast: "Drawer", plain: "Drawer", *, name: str) -> None:
        self.fast, self.plain, self.name = fast, plain, name

    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3]."""
        if self.name not in FAILED:
            try:
                return self.fast(affine, points)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # compilers share no class of errors
                drawn = self.plain(affine, points)
                FAILED.add(self.name)
                logger.warning("%s does not work here (%s); drawing without it", self.name, reason(error))
                return drawn
        return self.plain(affine, points)


def reason(error: Exception) -> str:
    """Return an error's class and its first line, no longer than a terminal's two."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = ": ".join([type(error).__name__, *lines[:1]])
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
