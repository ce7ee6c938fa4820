"""The gallery in a real browser, where one is installed: sliders, the walk, an image opened, by keys alone."""

from pathlib import Path

import pytest
from driven_browser import Tab

from polyinr_cli.main import outcome
from polyinr_core.gallery import sections

pytestmark = pytest.mark.slow

LOAD_ALL = "document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })"
DECODED = "Promise.all([...document.querySelectorAll('img[src]')].map(i => i.decode())).then(() => true)"
SEEN = "[...document.querySelectorAll('{} .slide')].filter(s => !s.hidden).map(s => s.dataset.name)"
NARROW = "document.documentElement.scrollWidth <= innerWidth"
UNDER = "document.querySelector('section[aria-labelledby={}] .command code').textContent"
CANVAS = "document.querySelector('#live-canvas').toDataURL()"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def site(tiny_class_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "site"
    given = ["--seeds", "0-5", "--frames", "5", "--res", "16", "--psi", "0,0.5,1", "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SIZES", (16, 64))
        assert outcome(["gallery", "-m", str(tiny_class_checkpoint), "-o", str(folder), *given]) == 0
    return folder


def seen(tab: Tab, part: str) -> list[str]:
    """Return the names of the slides that are shown in a part."""
    return tab.value(SEEN.format(f"section[aria-labelledby={part}]"))


def test_on_a_phone_and_a_desk(tab: Tab, site: Path) -> None:
    colors = set()
    for width, dark in ((360, True), (1280, False)):
        tab.open((site / "index.html").as_uri(), width=width, dark=dark)
        tab.value(LOAD_ALL)
        assert tab.value(DECODED)
        assert tab.value(NARROW)
        assert tab.complaints == []
        assert all(url.startswith(site.as_uri()) for url in tab.fetched)
        assert len(tab.fetched) > 80
        colors.add(tab.value(BACKGROUND))
        tab.page.screenshot(path=site / "page.png", full_page=True)
        assert (site / "page.png").stat().st_size > 20_000
    assert len(colors) == 2


def test_by_keys_alone(tab: Tab, site: Path, tiny_class_checkpoint: Path) -> None:
    page = tab.page
    tab.open((site / "index.html").as_uri())
    assert seen(tab, "psi") == ["psi 1"]
    page.get_by_role("slider", name="truncation").focus()
    page.keyboard.press("ArrowLeft")
    assert seen(tab, "psi") == ["psi 0.5"]
    assert "--psi 0.5" in tab.value(UNDER.format("psi"))
    page.keyboard.press("Home")
    assert seen(tab, "psi") == ["psi 0"]
    assert page.get_by_role("slider", name="truncation").get_attribute("aria-valuetext") == "psi 0"
    assert page.locator("section[aria-labelledby=psi] [role=status]").inner_text() == "psi 0"

    page.get_by_role("slider", name="levels from the left").focus()
    page.keyboard.press("Home")
    assert seen(tab, "mixing") == ["levels 0"]
    page.get_by_role("slider", name="size").focus()
    page.keyboard.press("ArrowLeft")
    assert seen(tab, "sizes") == ["16 × 16 pixels"]

    first = page.get_by_role("link", name="seed 0, ").first
    first.focus()
    page.keyboard.press("Enter")
    large = page.get_by_role("dialog")
    assert large.is_visible()
    command = f"polyinr sample --seeds 0 --res 256 -m {tiny_class_checkpoint} "
    assert large.locator("code").inner_text().startswith(command)
    page.keyboard.press("ArrowRight")
    assert large.locator("#large-caption").inner_text().startswith("seed 1, class ")
    assert tab.value("document.querySelector('dialog img').decode().then(() => true)")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    large.get_by_role("button", name="Copy").press("Enter")
    copied = large.get_by_role("button", name="Copied")
    copied.wait_for()  # the clipboard answers in its own time
    copied.press("Enter")  # once more, before it says Copy again
    copied.wait_for(state="hidden")
    assert large.get_by_role("button", name="Copy the command").is_visible()
    assert "--seeds 1 " in tab.value("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    assert not large.is_visible()
    assert tab.value("document.activeElement.dataset.caption").startswith("seed 1")
    assert tab.complaints == []


def test_the_page_draws_by_itself(tab: Tab, site: Path) -> None:
    page = tab.page
    tab.open((site / "index.html").as_uri())
    canvas = page.locator("#live-canvas")
    canvas.scroll_into_view_if_needed()
    drawn = page.locator("[data-renderer=JavaScript]")
    drawn.wait_for()
    colors = {tab.value(CANVAS)}
    for act in (
        lambda: page.get_by_label("interpolation", exact=True).press("End"),
        lambda: page.get_by_label("zoom").press("PageUp"),
        lambda: canvas.press("ArrowRight"),
        lambda: page.get_by_role("button", name="Down").press("Enter"),
        lambda: page.get_by_label("to", exact=True).select_option(index=4),
    ):
        act()
        drawn.wait_for()
        colors.add(tab.value(CANVAS))
    assert len(colors) == 6
    assert canvas.get_attribute("aria-label").startswith("seed 0, ")
    assert "100 % interpolated to seed 4" in canvas.get_attribute("aria-label")
    assert "128 × 128 pixels, rendered in JavaScript" in page.locator("#live-status").inner_text()
    assert tab.complaints == []


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_walk_plays_and_rests(tab: Tab, site: Path, motion: str) -> None:
    page = tab.page
    tab.open((site / "index.html").as_uri())
    page.emulate_media(reduced_motion=motion)
    assert seen(tab, "interpolation") == ["frame 1 of 5"]
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # time goes on only when it is advanced
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(300)
    assert seen(tab, "interpolation") == ["frame 4 of 5" if motion == "no-preference" else "frame 1 of 5"]
    page.clock.run_for(300)
    assert seen(tab, "interpolation") == ["frame 3 of 5" if motion == "no-preference" else "frame 2 of 5"]
    page.get_by_role("button", name="Pause").press("Enter")
    rested = seen(tab, "interpolation")
    page.clock.run_for(2000)
    assert seen(tab, "interpolation") == rested
    page.get_by_role("slider", name="frame").focus()
    page.keyboard.press("End")
    assert seen(tab, "interpolation") == ["frame 5 of 5"]
    assert tab.complaints == []


def test_without_script_and_on_paper_all_is_there(tab: Tab, site: Path) -> None:
    tab.open((site / "index.html").as_uri())
    tab.page.emulate_media(media="print")
    assert tab.page.locator(".slide").evaluate_all("all => all.every(s => s.getBoundingClientRect().height > 0)")
    assert not tab.page.get_by_role("button").first.is_visible()
    context = tab.page.context.browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto((site / "index.html").as_uri())
    assert bare.locator(".slide").evaluate_all("all => all.every(s => s.getBoundingClientRect().height > 0)")
    assert not bare.locator(".control").first.is_visible()
    context.close()
