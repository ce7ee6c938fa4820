"""Who may ask: the page itself, by this machine's own name; and what each answer has the browser keep to."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
