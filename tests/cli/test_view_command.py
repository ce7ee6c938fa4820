"""`polyinr view`: what it prints and refuses; as a process it serves, ends at Ctrl-C, and leaves its port."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from conftest import Run, refused
from starlette.testclient import TestClient

from polyinr_cli.commands import view as command

PATIENCE = 60.0


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[str], Any]]:
    """Serve nothing: what would be served is in the list, as a question by path."""
    asking = []

    def serve(app: Any, listening: socket.socket) -> None:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        asking.append(lambda path: TestClient(app, base_url=url).get(path).json())
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "serve", serve)
    return asking


def test_the_address_is_printed(polyinr: Run, tiny_class_checkpoint: Path, served: list) -> None:
    ran = polyinr("view", "-m", tiny_class_checkpoint, "--port", "0", "--no-open")
    assert (ran.code, ran.stderr) == (130, "polyinr: interrupted\n")
    assert ran.stdout.startswith(b"http://127.0.0.1:")
    assert ran.stdout.endswith(b"/\n")
    ran = polyinr("view", "-m", tiny_class_checkpoint, "--port", "0", "--json")
    (line,) = ran.lines
    assert line["url"] == f"http://127.0.0.1:{line['port']}/"


def test_the_image_to_begin_with(polyinr: Run, tiny_class_checkpoint: Path, served: list) -> None:
    options = ("--seed", "7", "--label", "class c", "--psi", "0.5", "--tolerance", "0")
    polyinr("view", "-m", tiny_class_checkpoint, "--port", "0", *options)
    facts = served[0]("/model")
    assert facts["initial"] == {"seed": 7, "label": 2, "psi": 0.5}
    assert facts["tolerance"] == 0
    assert served[0]("/image?seed=1")["command"] == f"polyinr sample --seeds 1 -m {tiny_class_checkpoint}"


def test_the_precision_is_that_of_large_pixels(polyinr: Run, tiny_checkpoint: Path, served: list) -> None:
    for precision in ("bfloat16", "float32", "float64"):
        polyinr("view", "-m", tiny_checkpoint, "--port", "0", "--precision", precision)
        formats = served[-1]("/model")["dtypes"]
        assert served[-1]("/model")["tolerance"] == 1  # unless --tolerance says so
        assert (formats[8], formats[-1]) == (precision, "float64")


@pytest.mark.parametrize(
    ("terminal", "screen", "options", "opened"),
    [
        (True, True, [], True),
        (True, True, ["--no-open"], False),
        (True, False, [], False),
        (False, True, [], False),
    ],
)
def test_a_browser_is_opened_where_a_person_sits(
    polyinr: Run,
    tiny_checkpoint: Path,
    served: list,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    screen: bool,
    options: list[str],
    opened: bool,
) -> None:
    urls: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(command.webbrowser, "open", urls.put)
    monkeypatch.setattr(command.console, "is_terminal", lambda stream: terminal)
    monkeypatch.setattr(command, "has_display", lambda: screen)
    ran = polyinr("view", "-m", tiny_checkpoint, "--port", "0", *options)
    if opened:
        assert urls.get(timeout=PATIENCE) == ran.stdout.decode().strip()
    assert urls.empty()


def test_a_screen_is_known_by_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not command.has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert command.has_display()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("-m nowhere.safetensors --port 0", 1, ["nowhere.safetensors", "no such file"]),
        ("--port 70000", 2, ["--port 70000 is out of range 0-65535"]),
        ("--port -1", 2, ["--port -1"]),
        ("--port many", 2, ["--port", "integer"]),
        ("-m MODEL --port 0 --label zebra", 2, ["class 'zebra' is unknown"]),
        ("-m MODEL --port 0 --seed -1", 2, ["seed '-1'"]),
        ("-m MODEL --port 0 --psi nan", 2, ["psi 'nan'"]),
        ("-m MODEL --port 0 --tolerance 300", 2, ["--tolerance 300"]),
        ("-m MODEL --port 0 --device tpu", 2, ["tpu"]),
        ("-m MODEL --port 0 --host 0.0.0.0", 2, ["--host"]),
    ],
)
def test_what_is_refused(
    polyinr: Run, tiny_class_checkpoint: Path, served: list, words: str, code: int, said: list[str]
) -> None:
    line = [str(tiny_class_checkpoint) if word == "MODEL" else word for word in words.split()]
    refused(polyinr("view", *line), *said, code=code)
    assert not served


def test_a_port_in_use(polyinr: Run, tiny_checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(polyinr("view", "-m", tiny_checkpoint, "--port", port), f"port {port} is in use", "--port 0", code=1)


def test_without_the_extra(polyinr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    refused(polyinr("view"), "the viewer requires uvicorn", "pip install uvicorn", code=1)


@contextmanager
def viewing(*arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield the address that it prints, and its process."""
    line = [sys.executable, "-m", "polyinr_cli", "view", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read()


@pytest.mark.slow
def test_it_serves_until_ctrl_c(tiny_class_checkpoint: Path) -> None:
    options = ("-m", tiny_class_checkpoint, "--tolerance", "0")
    with viewing(*options, "--port", "0", "--seed", "3") as (url, process):
        assert b"polyinr view" in fetched(url)
        assert json.loads(fetched(f"{url}model"))["initial"]["seed"] == 3
        assert fetched(f"{url}tile/12/7/7").startswith(b"\x89PNG")
        port = int(url.rstrip("/").rpartition(":")[2])
        with viewing(*options, "--port", str(port)) as (_, second):
            _, words = second.communicate(timeout=PATIENCE)
            assert second.returncode == 1
            assert words.startswith(f"polyinr: port {port} is in use")
            assert words.count("\n") == 1
        asking = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for column, connection in enumerate(asking):
            request = f"GET /tile/30/{column}/0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
            connection.sendall(request.encode())
        process.send_signal(signal.SIGINT)
        rest, words = process.communicate(timeout=PATIENCE)
        for connection in asking:
            connection.close()
        assert (process.returncode, rest, words) == (130, "", "polyinr: interrupted\n")
    socket.create_server(("127.0.0.1", port)).close()
