"""`build_gallery` from Python: the folder, its facts, and the progress."""

import json
import re
from pathlib import Path

import pytest

import polyinr_core as polyinr
from polyinr_core.errors import FileError, LabelError, RequestError
from polyinr_core.gallery import plan, sections
from polyinr_core.gallery.builder import build_gallery

ARIA = {  # that pages use
    "aria-busy",
    "aria-describedby",
    "aria-haspopup",
    "aria-hidden",
    "aria-label",
    "aria-labelledby",
    "aria-live",
    "aria-pressed",
    "aria-valuetext",
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "SIZES", (8,))
    monkeypatch.setattr(plan, "ENLARGED_RESOLUTION", 16)


def test_the_folder_and_its_facts(tiny_class_checkpoint: Path, tmp_path: Path) -> None:
    model = polyinr.load(tiny_class_checkpoint)
    rendered: list[int] = []
    facts = build_gallery(
        model,
        tmp_path / "site",
        seeds=[3, 4],
        psi_values=[1, 0.5],
        label="class b",
        resolution=8,
        frames=2,
        progress=rendered.append,
    )
    files = {file.relative_to(tmp_path / "site").as_posix() for file in (tmp_path / "site").rglob("*.*")}
    assert set(facts["files"]) == files
    assert json.loads((tmp_path / "site" / "gallery.json").read_text()) == facts
    assert (facts["seeds"], facts["psi"], facts["label"], facts["size"]) == ([3, 4], [0.5, 1.0], 1, 8)
    assert sum(rendered) == facts["pixels"]


def test_what_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = polyinr.load(tiny_checkpoint)
    (tmp_path / "site").mkdir()
    for options, error, words in (
        ({"overwrite": False}, FileError, "exists already"),
        ({"overwrite": True, "seeds": []}, RequestError, "1 to 128"),
        ({"overwrite": True, "psi_values": [float("nan")]}, RequestError, "psi nan is outside"),
        ({"overwrite": True, "label": "cat"}, LabelError, "no classes"),
    ):
        with pytest.raises(error, match=words):
            build_gallery(model, tmp_path / "site", **options)
    assert list(tmp_path.rglob("*")) == [tmp_path / "site"]


@pytest.mark.parametrize("name", ["gallery.html.jinja", "report.html.jinja", "view/index.html"])
def test_pages_use_attributes_that_aria_has(name: str) -> None:
    """WAI-ARIA 1.2 spells some of them in British English."""
    used = set(re.findall(r"\baria-[a-z]+", (Path(polyinr.__file__).parent / "assets" / name).read_text()))
    assert used <= ARIA
