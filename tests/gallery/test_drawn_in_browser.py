"""The network in the gallery's page: what WebGL2 and JavaScript draw there is the CPU's image."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import small_checkpoint
from driven_browser import NAMES, Tab
from PIL import Image

from polyinr_cli.main import outcome
from polyinr_core.gallery import sections

pytestmark = pytest.mark.slow

SOFTWARE = ("--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
SIDE = 80  # more than a tile, and no multiple of one
DRAWN = """async ([kind, number, window, side]) => {
  const model = readModel(document.querySelector("#network").textContent);
  const renderer = kind === "WebGL2" ? webglRenderer(model, { allowSoftware: true }) : scriptRenderer(model);
  const context = canvasOf(side, side).getContext("2d");
  const whole = await renderWindow(renderer, model.affine[number], context, window, () => true);
  return renderer.name === kind && whole ? [...context.getImageData(0, 0, side, side).data] : [];
}"""
WINDOWS = [(0, 0, 1, 1), (-0.5, 0.25, 1.5, 0.75)]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    """A tab whose WebGL2 a processor plays."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here (pip install playwright)")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(SOFTWARE))
        yield Tab(browser.new_page())
        browser.close()


def drawn(folder: Path, seed: int, window: tuple[float, ...]) -> np.ndarray:
    """Return the CPU's image."""
    x0, y0, x1, y1 = window
    words = ["sample", "--seeds", str(seed), "-m", str(folder / "m.safetensors"), "--res", str(SIDE)]
    words += [f"--grid={x0}:{x1},{y0}:{y1}", "--precision", "float32", "--device", "cpu", "--overwrite", "-q"]
    assert outcome([*words, "-o", str(folder / "x.png")]) == 0
    return np.asarray(Image.open(folder / "x.png"), dtype=int)


@pytest.mark.parametrize("model", [{}, {"form": "paper"}, {"levels": 1}, {"levels": 4, "classes": 3}])
def test_what_is_drawn_there_is_the_image(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict
) -> None:
    monkeypatch.setattr(sections, "SIZES", (8,))
    path = small_checkpoint(tmp_path / "m.safetensors", **model)
    given = ["--seeds", "0-1", "--frames", "2", "--psi", "1", "--res", "8", "-q"]
    assert outcome(["gallery", "-m", str(path), "-o", str(tmp_path / "site"), *given]) == 0
    tab.open((tmp_path / "site" / "index.html").as_uri())
    for window in WINDOWS:
        names = dict(zip(("x0", "y0", "x1", "y1"), window, strict=True))
        expected = drawn(tmp_path, 1, window)
        assert expected.std() > 1
        for kind in ("WebGL2", "JavaScript"):
            values = tab.page.evaluate(DRAWN, [kind, 1, names, SIDE])
            found = np.array(values).reshape(SIDE, SIDE, 4)
            assert abs(found[:, :, :3] - expected).max() <= 1, (kind, window)
            assert (found[:, :, 3] == 255).all()
    assert tab.complaints == []
