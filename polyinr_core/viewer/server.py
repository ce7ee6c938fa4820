"""Who may ask: the page itself, by this machine's own name; and what each answer has the browser keep to."""

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.runtime.strict_json import to_unicode

from . import tiles
from .selection import Choice, parse_choice
from .tiles import GivenUp, Tile, TilePainter, format_of
from .worker import Busy, Cache, Worker

NAMES = ("127.0.0.1", "localhost")
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # a style of nothing: see index.html
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY}; img-src 'self' data: blob:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KEPT_TO = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Gate:
    """Refuses other hosts' names (421: a name that somebody else points here) and other origins (403).

    A link from elsewhere may open the page, which then shows nothing to who made the link.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(KEPT_TO)
            await send(message)

        refusal = self.refusal(Headers(scope=scope), scope["path"])
        await (refusal or self.app)(scope, receive, guarded)

    def refusal(self, headers: Headers, path: str) -> PlainTextResponse | None:
        """Return the answer to a request that is refused, None if it may pass."""
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            return PlainTextResponse(f"this server is {' or '.join(sorted(self.hosts))} alone\n", 421)
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return PlainTextResponse("only the page of this server may ask\n", 403)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return None
        if path == "/" and headers.get("sec-fetch-dest") == "document":
            return None
        return PlainTextResponse("only the page of this server may ask\n", 403)


CACHE_BYTES = 256 * 2**20
RETRY_SECONDS = 1
SCRIPTS = ("view.js", "controls.js", "exact.js", "frame.js", "loader.js", "place.js", "trouble.js")
PARTS = {  # what the page is made of: where it is asked for, the file, what it is
    "/": ("view/index.html", "text/html"),
    "/view.css": ("view/view.css", "text/css"),
    **{f"/{name}": (f"view/{name}", "text/javascript") for name in SCRIPTS},
    "/openseadragon.js": ("openseadragon/openseadragon.min.js", "text/javascript"),
}
Drawn = tuple[Choice, Tile]
Endpoint = Callable[[Request], Awaitable[Response]]


class Server:
    """Answers from a painter's model.

    `start` is the image to begin with, `options` are words that every command ends with.
    """

    def __init__(
        self,
        painter: TilePainter,
        *,
        start: Choice,
        options: tuple[str, ...] = (),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.painter = painter
        self.checkpoint = painter.checkpoint
        self.start = start
        self.options = options
        self.cache: Cache[Drawn] = Cache(cache_bytes)
        self.worker: Worker[Drawn] = Worker(self.draw)

    def draw(self, drawn: Drawn, wanted: Callable[[], bool]) -> bytes:
        """Draw a tile and keep it."""
        choice, tile = drawn
        data = self.painter.draw(choice, tile, wanted=wanted)
        self.cache.put(drawn, data)
        return data

    def app(self, *, port: int) -> Starlette:
        """Return the routes, as served on a port of this machine."""

        @asynccontextmanager
        async def ending(app: Starlette) -> AsyncIterator[None]:
            yield
            self.worker.close()

        routes = [Route(path, part(name, kind)) for path, (name, kind) in PARTS.items()]
        routes += [
            Route("/facts", answered(self.facts)),
            Route("/image", answered(self.image)),
            Route("/tile/{level}/{column}/{row}", answered(self.tile)),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Gate, port=port)], lifespan=ending)

    async def facts(self, request: Request) -> Response:
        """Say what the model is and how the world is cut, as JSON."""
        checkpoint, config = self.checkpoint, self.checkpoint.generator.config
        formats = [
            str(format_of(level, resolution=checkpoint.resolution, coarsest=self.painter.coarsest))
            for level in range(tiles.LAST + 1)
        ]
        choice = self.start
        return JSONResponse(
            {
                "model": checkpoint.sha256,
                "classes": config.classes,
                "class_names": list(checkpoint.class_names),
                "levels": config.levels,
                "resolution": checkpoint.resolution,
                "world": {"low": tiles.LOW, "extent": tiles.EXTENT},
                "tiles": {"side": tiles.SIDE, "first": tiles.FIRST, "last": tiles.LAST},
                "formats": [name.removeprefix("torch.") for name in formats],
                "tolerance": self.painter.tolerance,
                "start": {"seed": choice.seed, "label": choice.label, "psi": choice.psi},
            }
        )

    async def image(self, request: Request) -> Response:
        """Say of an image which class it is of, and which command draws it, as JSON."""
        choice = self.chosen(request)
        label = choice.drawn_label(self.checkpoint)
        command = [*choice.command(), *self.options]
        return JSONResponse({"label": label, "command": to_unicode(shlex.join(command))})

    def chosen(self, request: Request) -> Choice:
        """Return the image that a request asks for, of the model that it may name. Raises RequestError."""
        fields = fields_of(request)
        if fields.pop("model", self.checkpoint.sha256) != self.checkpoint.sha256:
            raise RequestError("another model is served here now; reload the page")
        return parse_choice(fields, self.checkpoint)

    async def tile(self, request: Request) -> Response:
        """Draw a tile, or give it up as soon as the browser has gone."""
        at = Tile(*(index_of(request.path_params[name], name) for name in ("level", "column", "row")))
        drawn = self.chosen(request), at
        data = self.cache.get(drawn)
        if data is None:
            with self.worker.order(drawn) as order:
                data = await unless_gone(request, order)
        return Response(data, media_type="image/png")


def part(name: str, kind: str) -> Endpoint:
    """Return the endpoint that gives a file of the page."""
    data = (files("polyinr_core") / "assets" / name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=kind)

    return endpoint


def answered(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose errors are answers of one line."""

    async def safe(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except (Busy, GivenUp) as error:
            return PlainTextResponse(f"{error}; ask again\n", 503, headers={"retry-after": str(RETRY_SECONDS)})
        except (PolyinrError, MemoryError, RuntimeError) as error:
            return PlainTextResponse(f"{str(error).partition(chr(10))[0]}\n", 500)

    return safe


def fields_of(request: Request) -> dict[str, str]:
    """Return a request's query. Raises RequestError if it says something twice."""
    pairs = request.query_params.multi_items()
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RequestError("an image says each of its parts once")
    return fields


def index_of(text: str, name: str) -> int:
    """Read a tile's level, column or row. Raises RequestError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise RequestError(f"{name} {text[:40]!r} is no whole number")
    return int(text)


async def unless_gone(request: Request, order: Future[bytes]) -> bytes:
    """Wait for a drawing. Raises GivenUp when who asked for it has gone, and what the drawing raised."""
    drawing = asyncio.wrap_future(order)
    going = asyncio.ensure_future(gone(request))
    try:
        either: list[asyncio.Future[Any]] = [drawing, going]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not drawing.done():
            raise GivenUp("nobody waits for it")
        return drawing.result()
    finally:
        going.cancel()
        drawing.cancel()


async def gone(request: Request) -> None:
    """Return when the browser has closed the connection or dropped the request."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
