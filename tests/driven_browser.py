"""A headless Chromium, driven by Playwright: what a page shows, fetches and complains of."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-component-update")
PATIENCE = 60.0  # seconds for what a page does in its own time


@dataclass
class Tab:
    """One page, with what it fetched and what the browser complained of since it was last opened.

    `complaints` are all words on the console, of requests that failed as well, and errors that no script caught.
    """

    page: "Page"
    fetched: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        page = self.page
        page.on("request", lambda request: self.fetched.append(request.url))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def open(self, url: str, *, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        """Open an address in a window of a size, and wait until all that it names is there."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.fetched.clear()
        self.complaints.clear()
        self.page.goto(url)

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to on the page."""
        return self.page.evaluate(expression)

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; asked from outside, as no policy of a page forbids."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(50)


@contextmanager
def driven_tab() -> Iterator[Tab]:
    """Yield a tab of a browser of its own, which is ended afterwards; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here (pip install playwright)")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield Tab(browser.new_page())
        finally:
            browser.close()
