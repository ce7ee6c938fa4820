"""Limits on the viewer's HTTP connections: their number, and the time to send a request.

Without limits, idle connections take all file descriptors, and asyncio logs a traceback for each that it refuses.
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
MAX_CONNECTIONS = 256
MIN_CONNECTIONS = 8
RESERVED_DESCRIPTORS = 32  # for files, and for connections that are accepted to be refused
BACKLOG = 16  # connections that the system queues
REQUEST_SECONDS = 10.0  # to send a request
LOG_INTERVAL = 60.0  # seconds
SHUTDOWN_SECONDS = 1  # to finish responses


class LimitedConnection(H11Protocol):
    """A connection that is closed if there are too many, or if its next request takes too long to arrive."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > (self.config.limit_concurrency or MAX_CONNECTIONS):
            transport.abort()
        else:
            self.start_timeout()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.start_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timeout()
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """Whether no response is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def start_timeout(self) -> None:
        """Limit the time until a request is complete; partial data does not extend it."""
        if not self.is_waiting:
            self.stop_timeout()
        elif self.timer is None:
            self.timer = self.loop.call_later(REQUEST_SECONDS, self.time_out)

    def stop_timeout(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def time_out(self) -> None:
        self.timer = None
        if self.is_waiting:
            self.transport.abort()


class LimitedServer(uvicorn.Server):
    """A server that logs errors of its event loop in one line, at most once a minute."""

    last_log = -LOG_INTERVAL

    async def startup(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.log_exception)
        await super().startup(sockets)

    def log_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if (now := time.monotonic()) - self.last_log < LOG_INTERVAL:
            return
        self.last_log = now
        error = context.get("exception")
        reason = (error.strerror if isinstance(error, OSError) else None) or context["message"]
        logger.warning("a connection failed: %s", reason.lower())


def max_connections() -> int:
    """Return the number of connections that the process has file descriptors for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    free = limit - len(os.listdir("/dev/fd")) - RESERVED_DESCRIPTORS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, free))


def limited_server(app: ASGIApp) -> LimitedServer:
    """Return an HTTP server for an app, with these limits and without an access log."""
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=max_connections(),
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return LimitedServer(config)
