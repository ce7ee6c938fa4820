"""Connections to the viewer: never more than there are file descriptors for, none that waits for ever.

Without a bound, idle ones take all descriptors, and asyncio writes a traceback for each that it must refuse.
"""

import asyncio
import logging
import os
import resource
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)
MOST = 256
FEWEST = 8
RESERVE = 32  # descriptors for files that are read, and for connections that were accepted to be refused
BACKLOG = 16  # connections that the system holds until they are accepted, all of them at once
HEADER_SECONDS = 10.0  # for a request to be whole
SILENCE = 60.0  # seconds from one complaint to the next
GRACE = 1  # seconds for answers on their way, at the end


class Connection(H11Protocol):
    """A connection that ends if it is one too many, or if its next request is not whole in time."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > (self.config.limit_concurrency or MOST):
            transport.abort()
        else:
            self.watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def watch(self) -> None:
        """Let the time run while a request is awaited; more of its bytes do not prolong it."""
        if not self.is_waiting:
            self.unwatch()
        elif self.timer is None:
            self.timer = self.loop.call_later(HEADER_SECONDS, self.give_up)

    def unwatch(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def give_up(self) -> None:
        self.timer = None
        if self.is_waiting:
            self.transport.abort()


class BoundedServer(uvicorn.Server):
    """A server that says in one line, once a minute at most, what goes wrong in its event loop."""

    complained = -SILENCE

    async def startup(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.complain)
        await super().startup(sockets)

    def complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if (now := time.monotonic()) - self.complained < SILENCE:
            return
        self.complained = now
        reason = context.get("exception")
        words = (reason.strerror if isinstance(reason, OSError) else None) or context["message"]
        logger.warning("a connection could not be served: %s", words.lower())


def most_connections() -> int:
    """Return how many connections this process has file descriptors for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST
    return max(FEWEST, min(MOST, limit - len(os.listdir("/dev/fd")) - RESERVE))


def bounded_server(app: ASGIApp) -> BoundedServer:
    """Return what answers from an app, with bounds; it writes no log."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=GRACE,
    )
    return BoundedServer(config)
