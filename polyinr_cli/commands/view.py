"""`polyinr view`: an interactive deep-zoom viewer, served to this machine only."""

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

from polyinr_cli import console
from polyinr_cli.options import Device, Json, Label, Model, Precision, PrecisionOption, Psi, Quiet, Tolerance, Verbose
from polyinr_cli.rendering import RunOptions
from polyinr_cli.runtime import interrupt, interruption
from polyinr_core.errors import PolyinrError, RequestError

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"  # loopback: not reachable from other machines
PORT = 8421
REQUIRED = ("starlette", "uvicorn")
TOLERANCE = 1.0  # many times as fast as exact rendering, without visible difference


def view(
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the image shown at first, 0-4294967295.")] = 0,
    label: Label = None,
    psi: Psi = None,
    port: Annotated[
        int, typer.Option(metavar="N", help="Serve at http://127.0.0.1:N/, 0-65535; 0 selects a free port.")
    ] = PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    model: Model = None,
    tolerance: Tolerance = TOLERANCE,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Open an interactive deep-zoom viewer in the browser; tiles are rendered on demand.

    In the page, pan and zoom, also beyond the border, and change the seed, class, psi and the levels mixed in from
    another seed. The address of the page holds the image and the viewport, and the page shows the command that
    renders it. The server accepts requests from this machine only; its address is printed, and opened if there is
    a terminal and a display. Small pixels are rendered in float64 with any --precision. Stop the server with Ctrl-C;
    the exit code is 130.

    Example: polyinr view --seed 7 --psi 0.7
    """
    if missing := [name for name in REQUIRED if importlib.util.find_spec(name) is None]:
        raise PolyinrError(f"the viewer requires {' and '.join(missing)}; run pip install {' '.join(missing)}")
    with listen(port) as listening:
        opened = RunOptions(model, precision, device, quiet=quiet).open()
        from polyinr_core.checkpoints.locate import model_argument
        from polyinr_core.viewer.server import ViewerServer
        from polyinr_core.viewer.tiles import TileRenderer, parse_selection

        assert opened.path is not None
        fields = {"seed": str(seed), "label": label or "", "psi": "" if psi is None else repr(psi)}
        server = ViewerServer(
            TileRenderer(opened.checkpoint, opened.dtype, tolerance or 0.0),
            initial=parse_selection(fields, opened.checkpoint),
            options=("-m", model_argument(opened.path)),
        )
        port = listening.getsockname()[1]
        announce(f"http://{HOST}:{port}/", port, as_json=as_json, quiet=quiet, open_browser=not no_open)
        serve(server.app(port=port), listening)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of the loopback interface. Raises RequestError, PolyinrError."""
    if not 0 <= port <= 65535:
        raise RequestError(f"--port {port} is out of range 0-65535")
    try:
        return socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        advice = "select another with --port N, or a free one with --port 0"
        if error.errno == errno.EADDRINUSE:
            raise PolyinrError(f"port {port} is in use; {advice}") from error
        raise PolyinrError(f"port {port} is not available ({error.strerror}); {advice}") from error


def announce(url: str, port: int, *, as_json: bool, quiet: bool, open_browser: bool) -> None:
    """Print the address of the page, and open it if there is a terminal and a display."""
    if as_json:
        console.json_line({"url": url, "port": port})
    else:
        console.line(url)
        sys.stdout.flush()
    console.say("polyinr: serving; stop with Ctrl-C", quiet=quiet)
    if open_browser and console.is_terminal(sys.stderr) and has_display():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def has_display() -> bool:
    """Return whether a graphical browser can open; a text browser would take over the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def serve(app: "Starlette", listening: socket.socket) -> None:
    """Serve until a signal arrives. Raises KeyboardInterrupt."""
    from polyinr_core.viewer.server import limited_server

    server = limited_server(app)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is interrupt:  # uvicorn handles the others

        def hang_up(number: int, frame: FrameType | None) -> None:
            interruption.record(number)
            server.should_exit = True

        signal.signal(signal.SIGHUP, hang_up)
    server.run(sockets=[listening])
    raise KeyboardInterrupt
