"""The report in a real browser, where one is installed: every image loads, nothing is fetched."""

from pathlib import Path

import pytest
from conftest import Run
from driven_browser import Tab
from given_images import PixelExtractor
from run_stand_in import make_reals, make_run

BROKEN = "[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.naturalHeight).map(i => i.alt)"
DECODED = "Promise.all([...document.images].map(i => i.decode())).then(() => true)"
LINKS = "[...document.querySelectorAll('a')].map(a => a.hash).filter(h => !document.querySelector(h))"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
SOURCES = "[...document.querySelectorAll('image img')].map(i => i.currentSrc)"


BAD_PAGE = """<!DOCTYPE html><title>bad</title><a href="#nowhere">x</a>
<img alt="torn" src="data:image/png;base64,AAAA"><img alt="far" src="http://127.0.0.1:9/x.png">
<script>console.log("here")</script>"""

pytestmark = pytest.mark.slow


def test_the_browser_check_finds_errors(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD_PAGE)
    tab.open((tmp_path / "bad.html").as_uri())
    assert tab.value(BROKEN) == ["torn", "far"]
    assert tab.value(LINKS) == ["#nowhere"]
    assert any(url.startswith("http:") for url in tab.fetched)
    assert any(words.startswith("error: Failed to load") for words in tab.complaints)
    assert "log: here" in tab.complaints


def test_report_in_a_browser(tab: Tab, polyinr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyinr_core.metrics.extractors.load_extractor", lambda name: PixelExtractor())
    make_run(tmp_path / "run")
    make_reals(tmp_path / "reals")
    ran = polyinr("report", "run", "-o", "page.html", "--real", "reals", "--count", "12", "-q")
    assert ran.code == 0, ran.stderr
    page = Path("page.html").absolute().as_uri()
    seen = {}
    for width, dark in ((1200, False), (360, True)):
        tab.open(page, width=width, dark=dark)
        assert tab.value("document.title") == "Run run"
        assert tab.value("document.images.length") > 100
        assert tab.value(DECODED)
        assert tab.value(BROKEN) == []
        assert tab.value(LINKS) == []
        assert tab.value("document.documentElement.scrollWidth") <= width  # tables scroll by themselves
        assert tab.value("document.querySelector('figure img.tile').className") == "tile pixels"
        assert {url for url in tab.fetched if not url.startswith("data:")} == {page}
        assert tab.complaints == []
        seen[dark] = tab.value(BACKGROUND), tab.value(SOURCES)
    assert seen[True][0] != seen[False][0]
    assert all(light != dark for light, dark in zip(seen[False][1], seen[True][1], strict=True))
