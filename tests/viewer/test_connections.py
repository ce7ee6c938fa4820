"""Many idle connections and few file descriptors: the page is served again, stderr has a line at most."""

import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polyinr_core.viewer import server as viewer_server

SERVE = """
import sys
from polyinr_core.viewer import server
server.REQUEST_SECONDS = 2.0
sys.argv[0] = "polyinr"
from polyinr_cli.main import run
run()
"""


@contextmanager
def view(model: Path, *, descriptors: int) -> Iterator[tuple[subprocess.Popen, str, int]]:
    """Serve the viewer in a process of few file descriptors; give (process, address, port)."""
    command = [sys.executable, "-c", SERVE, "view", "-m", str(model), "--port", "0", "--no-open"]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        yield process, address, int(address.rstrip("/").rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


def answers(address: str, *, within: float) -> bool:
    """Say whether the page comes within so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2) as page:
                return page.status == 200
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: "])
def test_idle_connections_do_not_end_the_page(tiny_checkpoint: Path, sent: bytes) -> None:
    with view(tiny_checkpoint, descriptors=100) as (process, address, port):
        assert answers(address, within=60)
        idle = []
        for _ in range(300):
            try:
                one = socket.create_connection(("127.0.0.1", port), timeout=1)
                one.sendall(sent)
            except OSError:
                continue
            idle.append(one)
        assert answers(address, within=60)  # while they are all still held here
        for one in idle:
            one.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(said.splitlines()) <= 3, said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(tiny_checkpoint: Path, number: int) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("whoever runs the tests ignores this signal")
    with view(tiny_checkpoint, descriptors=200) as (process, address, _):
        assert answers(address, within=60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines() == ["polyinr: interrupted"]


def test_connections_are_as_many_as_there_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, most in ((resource.RLIM_INFINITY, 256), (10**6, 256), (10, viewer_server.MIN_CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert viewer_server.max_connections() == most


def test_trouble_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    server = viewer_server.limited_server(lambda *_: None)
    for _ in range(1000):
        server.log_exception(None, {"message": "x", "exception": OSError(24, "Too many open files")})
    assert caplog.messages == ["a connection failed: too many open files"]
