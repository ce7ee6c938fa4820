"""`polyinr view`: a page, served to this machine alone, in which one image is zoomed into without end."""

import errno
import importlib.util
import os
import signal
import socket
import sys
import threading
import webbrowser
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.drawing import load_painter
from polyinr_cli.options import Device, Json, Label, Model, Precision, PrecisionOption, Psi, Quiet, Tolerance, Verbose
from polyinr_cli.runtime import interrupt, interruption
from polyinr_core.errors import PolyinrError, RequestError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

HOST = "127.0.0.1"  # the loopback: no other machine can ask
PORT = 8421
EXTRA = ("starlette", "uvicorn")
TOLERANCE = 1.0  # many times as fast as exactly, and looks the same


def view(
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The image to begin with.")] = 0,
    label: Label = None,
    psi: Psi = None,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The page is at http://127.0.0.1:N/; 0: any free port.")
    ] = PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Leave it to me to open the page.")] = False,
    model: Model = None,
    tolerance: Tolerance = TOLERANCE,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Zoom into an image without end, in a page whose tiles are drawn as they are looked at.

    In the page: pan, also outside the border; another seed, class, psi; levels of another seed. Its address
    keeps the view, and it shows the command that draws it. Only this machine can ask for it. Small pixels are
    drawn in float64 whatever the precision. The address is printed, and opened where there is a terminal and a
    screen. Tiles are drawn with --tolerance 1 unless told otherwise. Ctrl-C ends it, with exit code 130.

    Example: polyinr view --seed 7 --psi 0.7
    """
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise PolyinrError(f"the page needs {' and '.join(missing)}; pip install 'polyinr[view]'")
    with bound(port) as listening:
        painter = load_painter(model, precision=precision, device=device, eight_bits=True, quiet=quiet)
        from polyinr_core.viewer.selection import parse_choice
        from polyinr_core.viewer.server import Server
        from polyinr_core.viewer.tiles import TilePainter

        fields = {"seed": str(seed), "label": label or "", "psi": "" if psi is None else repr(psi)}
        server = Server(
            TilePainter(painter.checkpoint, painter.dtype, tolerance or 0.0),
            start=parse_choice(fields, painter.checkpoint),
            options=() if model is None else ("-m", str(model)),
        )
        port = listening.getsockname()[1]
        announce(f"http://{HOST}:{port}/", port, as_json=as_json, quiet=quiet, opens=not no_open)
        serve(server.app(port=port), listening)


def bound(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine. Raises RequestError, PolyinrError."""
    if not 0 <= port <= 65535:
        raise RequestError(f"--port {port} is outside 0-65535")
    try:
        return socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        advice = "name another with --port N, or any free one with --port 0"
        if error.errno == errno.EADDRINUSE:
            raise PolyinrError(f"port {port} is in use; {advice}") from error
        raise PolyinrError(f"port {port} cannot be had ({error.strerror}); {advice}") from error


def announce(url: str, port: int, *, as_json: bool, quiet: bool, opens: bool) -> None:
    """Print the page's address, and open it where a person sits at a terminal."""
    if as_json:
        streams.json_line({"url": url, "port": port})
    else:
        streams.line(url)
        sys.stdout.flush()
    streams.say("polyinr: the page is served until Ctrl-C", quiet=quiet)
    if opens and streams.is_terminal(sys.stderr) and has_screen():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def has_screen() -> bool:
    """Say whether a browser would have a window; one inside the terminal would take it away from us."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def serve(app: "Starlette", listening: socket.socket) -> None:
    """Answer until somebody wants an end. Raises KeyboardInterrupt."""
    server = server_of(app)
    if signal.getsignal(signal.SIGHUP) is interrupt:  # the others it hears itself

        def hang_up(number: int, frame: FrameType | None) -> None:
            interruption.note(number)
            server.should_exit = True

        signal.signal(signal.SIGHUP, hang_up)
    server.run(sockets=[listening])  # until a signal asks it to end
    raise KeyboardInterrupt


def server_of(app: "Starlette") -> "uvicorn.Server":
    """Return what answers from an app."""
    from polyinr_core.viewer.connections import bounded_server

    return bounded_server(app)
