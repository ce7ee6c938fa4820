"""A painter whose tiles take no time, or as long as a test wants; it notes what it drew."""

import threading
from collections.abc import Callable
from pathlib import Path

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.viewer.selection import Choice
from polyinr_core.viewer.tiles import GivenUp, Tile, TilePainter


class QuickPainter(TilePainter):
    """Draws a thousand bytes at once; while `held`, waits to be let go or to be wanted no more."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_checkpoint(path))
        self.drawn: list[tuple[Choice, Tile]] = []
        self.given_up: list[Tile] = []
        self.free = threading.Event()
        self.free.set()
        self.at_work = threading.Event()

    def draw(self, choice: Choice, tile: Tile, *, wanted: Callable[[], bool] = lambda: True) -> bytes:
        self.drawn.append((choice, tile))
        self.at_work.set()
        while not self.free.wait(0.002):
            if not wanted():
                self.given_up.append(tile)
                raise GivenUp("nobody waits for it")
        return bytes(1000)
