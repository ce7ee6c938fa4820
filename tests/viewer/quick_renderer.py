"""A renderer whose tiles take no time, or as long as a test wants; it notes what it drew."""

import threading
from collections.abc import Callable
from pathlib import Path

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.viewer.tiles import RenderCancelled, Selection, TileIndex, TileRenderer


class QuickRenderer(TileRenderer):
    """Draws a thousand bytes at once; while `held`, waits to be let go or to be is_wanted no more."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_checkpoint(path))
        self.drawn: list[tuple[Selection, TileIndex]] = []
        self.cancelled: list[TileIndex] = []
        self.free = threading.Event()
        self.free.set()
        self.at_work = threading.Event()

    def render(self, selection: Selection, tile: TileIndex, *, is_wanted: Callable[[], bool] = lambda: True) -> bytes:
        self.drawn.append((selection, tile))
        self.at_work.set()
        while not self.free.wait(0.002):
            if not is_wanted():
                self.cancelled.append(tile)
                raise RenderCancelled("nobody waits for it")
        return bytes(1000)
