"""The page in a real browser: it draws, moves by keys and wheel, changes live, says where it is, and complains of
nothing."""

import io
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from driven_browser import Tab
from PIL import Image
from quick_renderer import QuickRenderer

from polyinr_cli.commands.view import listen
from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.viewer.server import ViewerServer, limited_server
from polyinr_core.viewer.tiles import Selection, TileRenderer

pytestmark = pytest.mark.slow

SMALL = {"width": 850, "height": 400}  # few tiles
WINDOW = re.compile(r"Window x (\S+) to (\S+), y (\S+) to (\S+); zoom (\S+); a pixel spans (\S+) of the trained window")


@contextmanager
def serving(renderer: TileRenderer, *options: str) -> Iterator[tuple[str, ViewerServer]]:
    """Serve a renderer's images from a thread; yield the page's address."""
    server = ViewerServer(renderer, initial=Selection(), options=options)
    with listen(0) as listening:
        port = listening.getsockname()[1]
        runner = limited_server(server.app(port=port))
        thread = threading.Thread(target=runner.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/", server
        finally:
            runner.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def address(tiny_class_checkpoint: Path) -> Iterator[str]:
    with serving(TileRenderer(load_checkpoint(tiny_class_checkpoint)), "-m", str(tiny_class_checkpoint)) as (url, _):
        yield url


def settled(tab: Tab) -> None:
    """Wait until all tiles are there."""
    tab.until("document.querySelector('#stage').ariaBusy === 'false'")


def window(tab: Tab) -> list[float]:
    """Return x0, x1, y0, y1, the zoom and the pixel's span, as the page says them."""
    found = WINDOW.search(tab.page.inner_text("#window"))
    assert found is not None
    return [float(text) for text in found.groups()]


def looked_at(tab: Tab) -> np.ndarray:
    """Return the pixels of the image on the screen, without what lies over it."""
    hidden = "document.querySelectorAll('#buttons, #frame').forEach(e => e.style.visibility = '{}')"
    tab.value(hidden.format("hidden"))
    shot = tab.page.locator("#viewer").screenshot()
    tab.value(hidden.format(""))
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def test_it_draws_moves_and_changes(tab: Tab, address: str, polyinr: Run, tmp_path: Path) -> None:
    page = tab.page
    tab.open(address, **SMALL)
    settled(tab)
    assert page.title().startswith("Seed 0")
    home = window(tab)
    assert home[2] < 0 < 1 < home[3]

    def after(act: Any) -> list[float]:
        text = page.inner_text("#window")
        act()
        tab.until(f"document.querySelector('#window').innerText !== {text!r}")
        settled(tab)
        return window(tab)

    page.mouse.move(250, 200)
    assert after(lambda: page.mouse.wheel(0, -300))[4] > home[4]
    page.get_by_role("application").focus()
    zoomed = after(lambda: page.keyboard.press("Equal"))
    assert zoomed[4] > home[4]
    right = after(lambda: page.keyboard.press("ArrowRight"))
    assert right[0] > zoomed[0]
    assert after(lambda: page.keyboard.press("0")) == home
    page.keyboard.press("r")  # which would turn the image
    assert after(lambda: page.get_by_role("button", name="Pan left").click())[1] < home[1]
    outside = after(lambda: [page.get_by_role("button", name="Pan left").click() for _ in range(6)])
    assert outside[1] < 0
    assert "It lies outside the trained window" in page.inner_text("#window")
    assert after(lambda: page.get_by_role("button", name="Home").click()) == home

    first = looked_at(tab)
    page.get_by_label("Seed", exact=True).fill("3")
    tab.until("document.title.startsWith('Seed 3')")
    settled(tab)
    third = looked_at(tab)
    assert np.abs(first - third).mean() > 2
    page.get_by_label("level 1").check()
    page.get_by_label("level 2").check()
    page.get_by_label("From seed").fill("9")
    page.get_by_label("Class").select_option("class b")
    page.get_by_label("Truncation psi", exact=True).fill("0.8")
    tab.until("location.hash.includes('levels=1%2C2') && location.hash.includes('psi=0.8')")
    settled(tab)
    assert window(tab) == home
    assert np.abs(looked_at(tab) - third).mean() > 2

    words = shlex.split(page.inner_text("#command"))
    assert words[:2] == ["polyinr", "mix"]
    ran = polyinr(*words[1:])
    assert ran.code == 0, ran.stderr
    drawn = np.asarray(Image.open("image.png").convert("RGB")).astype(int)
    shown = looked_at(tab)
    assert drawn.shape == shown.shape
    assert np.abs(drawn - shown).mean() < 2  # the page's tiles are brought to the screen's pixels

    link = page.url
    tab.open("about:blank")
    tab.open(link, **SMALL)
    settled(tab)
    assert page.input_value("#seed") == "3"
    assert np.abs(looked_at(tab) - shown).mean() < 0.5
    assert tab.complaints == []
    assert {url for url in tab.fetched if not url.startswith((address, "blob:", "data:"))} == set()


def test_it_says_where_numbers_end(tab: Tab, address: str) -> None:
    tab.open(f"{address}#seed=3&x=0.5&y=0.25&span=1e-7", **SMALL)
    settled(tab)
    assert "Rendered in float64" in tab.page.inner_text("#depth")
    assert "--precision float64" in tab.page.inner_text("#command")
    assert window(tab)[5] < 1e-9
    tab.open("about:blank")
    tab.open(f"{address}#seed=3&x=0.5&y=0.25&span=2e-11", **SMALL)
    settled(tab)
    for _ in range(2):
        tab.page.get_by_role("button", name="Zoom in").click()
    tab.until("document.querySelector('#depth').textContent.startsWith('This is the deepest level')")
    settled(tab)
    assert window(tab)[5] < 1e-13
    assert len({tuple(color) for color in looked_at(tab).reshape(-1, 3)}) < 20  # smooth, without holes
    assert tab.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(tab: Tab, address: str, tmp_path: Path, dark: bool) -> None:
    tab.open(address, width=360, height=740, dark=dark)
    settled(tab)
    assert tab.value("document.documentElement.scrollWidth") <= 360
    background = tab.value("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(24, 26, 27)" if dark else "rgb(255, 255, 255)")
    small = "[...document.querySelectorAll('button')].filter(b => b.offsetHeight < 44).map(b => b.textContent)"
    assert tab.value(small) == []
    assert tab.complaints == []


def test_what_is_no_longer_looked_at_is_given_up(tab: Tab, tiny_class_checkpoint: Path) -> None:
    renderer = QuickRenderer(tiny_class_checkpoint)
    renderer.free.clear()
    with serving(renderer) as (address, server):
        tab.open(address)
        assert renderer.at_work.wait(30)
        tab.page.get_by_label("Seed", exact=True).fill("3")
        tab.until("document.title.startsWith('Seed 3')")
        tab.page.wait_for_timeout(1000)
        assert renderer.cancelled
        assert renderer.drawn[-1][0] == Selection(seed=3)
        assert server.worker.waiting <= 4
        renderer.free.set()


def test_trouble_is_said(tab: Tab, tiny_class_checkpoint: Path) -> None:
    with serving(QuickRenderer(tiny_class_checkpoint)) as (address, _):
        tab.open(f"{address}#seed=3&label=77")
        tab.until("document.querySelector('#error').textContent.includes('class 77')")
        tab.page.get_by_label("Seed", exact=True).fill("-3")
        tab.until("document.querySelector('#error').textContent.includes('A field')")
    tab.page.get_by_label("Seed", exact=True).fill("4")
    tab.until("document.querySelector('#error').textContent.includes('does not respond')")
