"""Tiles asked for and not waited for, far too many at once, or at the end: given up, bounded, answered."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from quick_renderer import QuickRenderer

from polyinr_core.viewer.server import ViewerServer
from polyinr_core.viewer.tiles import RenderCancelled, Selection, TileIndex
from polyinr_core.viewer.worker import MAX_WAITING

PORT = 8421
PATIENCE = 10.0


@pytest.fixture
def renderer(tiny_class_checkpoint: Path) -> QuickRenderer:
    renderer = QuickRenderer(tiny_class_checkpoint)
    renderer.free.clear()
    return renderer


@pytest.fixture
def server(renderer: QuickRenderer) -> ViewerServer:
    return ViewerServer(renderer, initial=Selection())


class Asked:
    """A request to the app as a server sends it; `leave` closes the connection."""

    def __init__(self, app: Any, path: str) -> None:
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"host", f"127.0.0.1:{PORT}".encode())],
            "server": ("127.0.0.1", PORT),
            "client": ("127.0.0.1", 1),
        }
        self.begun = False
        self.task = asyncio.ensure_future(app(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        if not self.begun:
            self.begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def test_what_the_browser_drops_is_not_drawn(server: ViewerServer, renderer: QuickRenderer) -> None:
    app = server.app(port=PORT)

    async def scene() -> None:
        first = Asked(app, "/tile/12/0/0")
        await until(renderer.at_work.is_set)
        dropped, kept = Asked(app, "/tile/12/1/0"), Asked(app, "/tile/12/2/0")
        await until(lambda: server.worker.waiting == 2)
        dropped.left.set()
        await until(lambda: server.worker.waiting == 1)
        first.left.set()
        await until(lambda: len(renderer.cancelled) == 1)  # while it was being drawn
        renderer.free.set()
        await asyncio.wait_for(asyncio.gather(first.task, dropped.task, kept.task), PATIENCE)
        assert kept.status == 200

    asyncio.run(scene())
    server.worker.close()
    assert [tile.column for _, tile in renderer.drawn] == [0, 2]
    assert [tile.column for tile in renderer.cancelled] == [0]


def test_a_thousand_at_once_are_bounded(server: ViewerServer, renderer: QuickRenderer) -> None:
    app = server.app(port=PORT)

    async def scene() -> list[Asked]:
        asked = [Asked(app, f"/tile/20/{column}/0") for column in range(1000)]
        await until(lambda: sum(bool(one.sent) for one in asked) >= 1000 - MAX_WAITING - 1)
        assert server.worker.waiting == MAX_WAITING
        renderer.free.set()
        await asyncio.wait_for(asyncio.gather(*(one.task for one in asked)), PATIENCE)
        return asked

    asked = asyncio.run(scene())
    server.worker.close()
    refused = [one for one in asked if one.status != 200]
    assert {one.status for one in refused} == {503}
    assert {one.headers[b"retry-after"] for one in refused} == {b"1"}
    assert len(refused) == 1000 - MAX_WAITING - 1
    assert all(one.status == 200 for one in asked[-MAX_WAITING:])  # the newest


def test_the_end_frees_who_still_waits(server: ViewerServer, renderer: QuickRenderer) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(server.worker.request((Selection(), TileIndex(12, 0, 0))))
        assert renderer.at_work.wait(PATIENCE)
        server.worker.close()
        assert isinstance(first.exception(PATIENCE), RenderCancelled)
