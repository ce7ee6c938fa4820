"""The viewer's web application: its page, the model's description, and tiles; for this machine only.

Its HTTP server limits the number of connections and the time to send a request. Without limits, idle connections take
all file descriptors, and asyncio logs a traceback for each that it refuses.
"""

import asyncio
import logging
import os
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.runtime.strict_json import to_unicode

from . import tiles
from .tiles import RenderCancelled, Selection, TileIndex, TileRenderer, dtype_of_level, parse_selection
from .worker import QueueFull, RenderWorker, TileCache

logger = logging.getLogger(__name__)
MAX_CONNECTIONS = 256
MIN_CONNECTIONS = 8
RESERVED_DESCRIPTORS = 32  # for files, and for connections that are accepted to be refused
BACKLOG = 16  # connections that the system queues
REQUEST_SECONDS = 10.0  # to send a request
LOG_INTERVAL = 60.0  # seconds
SHUTDOWN_SECONDS = 1  # to finish responses

HOST_NAMES = ("127.0.0.1", "localhost")
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # the empty style element of index.html
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY_STYLE}; img-src 'self' data: blob:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
CACHE_BYTES = 256 * 2**20
RETRY_SECONDS = 1
SCRIPTS = ("view.js", "controls.js", "exact.js", "frame.js", "loader.js", "window.js", "errors.js")
ASSETS = {  # URL path: (file below assets/, media type)
    "/": ("view/index.html", "text/html"),
    "/view.css": ("view/view.css", "text/css"),
    **{f"/{name}": (f"view/{name}", "text/javascript") for name in SCRIPTS},
    "/openseadragon.js": ("openseadragon/openseadragon.min.js", "text/javascript"),
}
TileKey = tuple[Selection, TileIndex]
Endpoint = Callable[[Request], Awaitable[Response]]


class SecurityMiddleware:
    """Refuses requests under other host names (421: DNS rebinding) and from other origins (403).

    A link on another site may open the page, but the site cannot read it.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in HOST_NAMES} | (set(HOST_NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        refusal = self.refusal(Headers(scope=scope), scope["path"])
        await (refusal or self.app)(scope, receive, send_with_headers)

    def refusal(self, headers: Headers, path: str) -> PlainTextResponse | None:
        """Return the response to a request that is refused, None if it is allowed."""
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            return PlainTextResponse(f"this server only answers as {' or '.join(sorted(self.hosts))}\n", 421)
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return PlainTextResponse("only the page of this server may send requests\n", 403)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return None
        if path == "/" and headers.get("sec-fetch-dest") == "document":
            return None
        return PlainTextResponse("only the page of this server may send requests\n", 403)


class ViewerServer:
    """The viewer of one model.

    Args:
        renderer: renders the tiles.
        initial: the image shown at first.
        options: words that are appended to the commands shown in the page.
        cache_bytes: the size of the cache of rendered tiles.
    """

    def __init__(
        self,
        renderer: TileRenderer,
        *,
        initial: Selection,
        options: tuple[str, ...] = (),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.renderer = renderer
        self.checkpoint = renderer.checkpoint
        self.initial = initial
        self.options = options
        self.cache: TileCache[TileKey] = TileCache(cache_bytes)
        self.worker: RenderWorker[TileKey] = RenderWorker(self.render)

    def render(self, key: TileKey, is_wanted: Callable[[], bool]) -> bytes:
        """Render and cache a tile."""
        selection, tile = key
        data = self.renderer.render(selection, tile, is_wanted=is_wanted)
        self.cache.put(key, data)
        return data

    def app(self, *, port: int) -> Starlette:
        """Return the application, to be served on a port of this machine."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            self.worker.close()

        routes = [Route(path, asset_endpoint(name, media_type)) for path, (name, media_type) in ASSETS.items()]
        routes += [
            Route("/model", with_errors(self.model)),
            Route("/image", with_errors(self.image)),
            Route("/tile/{level}/{column}/{row}", with_errors(self.tile)),
        ]
        return Starlette(routes=routes, middleware=[Middleware(SecurityMiddleware, port=port)], lifespan=lifespan)

    async def model(self, request: Request) -> Response:
        """Describe the model and the tiles, as JSON."""
        checkpoint, config = self.checkpoint, self.checkpoint.generator.config
        dtypes = [
            str(dtype_of_level(level, resolution=checkpoint.resolution, dtype=self.renderer.dtype))
            for level in range(tiles.MAX_LEVEL + 1)
        ]
        initial = self.initial
        return JSONResponse(
            {
                "model": checkpoint.sha256,
                "classes": config.classes,
                "class_names": list(checkpoint.class_names),
                "levels": config.levels,
                "resolution": checkpoint.resolution,
                "world": {"min": tiles.WORLD_MIN, "size": tiles.WORLD_SIZE},
                "tiles": {"size": tiles.TILE_SIZE, "min_level": tiles.MIN_LEVEL, "max_level": tiles.MAX_LEVEL},
                "dtypes": [name.removeprefix("torch.") for name in dtypes],
                "tolerance": self.renderer.tolerance,
                "initial": {"seed": initial.seed, "label": initial.label, "psi": initial.psi},
            }
        )

    async def image(self, request: Request) -> Response:
        """Return the class of an image and the command that renders it, as JSON."""
        selection = self.selection(request)
        label = selection.label_shown(self.checkpoint)
        command = [*selection.command(), *self.options]
        return JSONResponse({"label": label, "command": to_unicode(shlex.join(command))})

    def selection(self, request: Request) -> Selection:
        """Return the image of a request. Raises RequestError, also if the request names another model."""
        fields = query_fields(request)
        if fields.pop("model", self.checkpoint.sha256) != self.checkpoint.sha256:
            raise RequestError("this server now has another model; reload the page")
        return parse_selection(fields, self.checkpoint)

    async def tile(self, request: Request) -> Response:
        """Return a tile as PNG; rendering is cancelled when the browser disconnects."""
        tile = TileIndex(*(parse_index(request.path_params[name], name) for name in ("level", "column", "row")))
        key = self.selection(request), tile
        data = self.cache.get(key)
        if data is None:
            with self.worker.request(key) as result:
                data = await result_or_disconnect(request, result)
        return Response(data, media_type="image/png")


def asset_endpoint(name: str, media_type: str) -> Endpoint:
    """Return the endpoint of a file below assets/."""
    data = (files("polyinr_core") / "assets" / name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=media_type)

    return endpoint


def with_errors(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that reports errors as one line of text with a status code."""

    async def wrapped(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except (QueueFull, RenderCancelled) as error:
            return PlainTextResponse(f"{error}; retry\n", 503, headers={"retry-after": str(RETRY_SECONDS)})
        except (PolyinrError, MemoryError, RuntimeError) as error:
            return PlainTextResponse(f"{str(error).partition(chr(10))[0]}\n", 500)

    return wrapped


def query_fields(request: Request) -> dict[str, str]:
    """Return the query of a request. Raises RequestError if a field is repeated."""
    pairs = request.query_params.multi_items()
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RequestError("a field is given more than once")
    return fields


def parse_index(text: str, name: str) -> int:
    """Parse the level, column or row of a tile. Raises RequestError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise RequestError(f"{name} {text[:40]!r} is not an integer")
    return int(text)


async def result_or_disconnect(request: Request, result: Future[bytes]) -> bytes:
    """Wait for a tile. Raises RenderCancelled if the client disconnects first, and the error of the rendering."""
    rendering = asyncio.wrap_future(result)
    disconnect = asyncio.ensure_future(disconnected(request))
    try:
        either: list[asyncio.Future[Any]] = [rendering, disconnect]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not rendering.done():
            raise RenderCancelled("the client disconnected")
        return rendering.result()
    finally:
        disconnect.cancel()
        rendering.cancel()


async def disconnected(request: Request) -> None:
    """Return when the client has closed the connection or aborted the request."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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
    try:
        import resource
    except ImportError:  # Windows, where sockets are no file descriptors
        return MAX_CONNECTIONS
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
