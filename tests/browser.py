"""A headless Chromium, asked through its debugging pipe: what a page shows, fetches and complains of.

The page itself is looked at from outside, so that a policy which forbids it scripts does not forbid the look.
"""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
PATIENCE = 60.0  # seconds for an answer


def chromium() -> str | None:
    """Return the browser's program, if one is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page. `events` holds what the browser told of it so far: requests, console messages, errors."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.events: list[dict[str, Any]] = []
        self.waiting = b""
        self.number = 0
        self.session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **self.session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while "id" not in (answer := self.hear()) or answer["id"] != self.number:
            self.events.append(answer)
        assert "result" in answer, answer
        return answer["result"]

    def hear(self) -> dict[str, Any]:
        """Return the browser's next message."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.waiting:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.back, 2**16) if ready else b""
            assert data, "the browser does not answer"
            self.waiting += data
        message, _, self.waiting = self.waiting.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, *, width: int = 1200, dark: bool = False) -> None:
        """Open a file in a window of a width, and wait until all of it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        while not self.told("Page.loadEventFired"):
            self.events.append(self.hear())

    def told(self, method: str) -> list[dict[str, Any]]:
        """Return what the browser told by that method."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """Yield a tab of a browser of its own, which is ended afterwards."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # the browser reads commands from descriptor 3 and answers on 4
    shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    command = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Tab(ours_out, ours_in)
    finally:
        os.close(ours_out)
        process.terminate()
        process.wait(PATIENCE)
        os.close(ours_in)
