"""The page: self-contained, complete, and every name is escaped."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from given_images import Given, noise
from html_page import HtmlPage
from run_stand_in import make_run

from polyinr_core.evaluation.results import ClassMetrics, Result
from polyinr_core.images.io import write_image
from polyinr_core.report import page
from polyinr_core.report import plots as charts
from polyinr_core.report.nearest_neighbors import NearestNeighbors, ThumbnailSource
from polyinr_core.report.page import RealsComparison, ReportInfo, compare_with_reals, render_page
from polyinr_core.report.plots import panels_of
from polyinr_core.report.run_reader import StoredRun, read_run

HOSTILE = "<script>alert(1)</script>\"'><img src=http://x.test/a.png onerror=alert(1)>&lt;{{ 7 * 7 }}"
INFO = ReportInfo("1.2.3", "today")


def page_of(run: StoredRun, *results: Result, compared: RealsComparison | None = None) -> HtmlPage:
    """Two charts are enough."""
    panels = panels_of(run.log, run.metrics)[:2]
    return HtmlPage(render_page(run, panels, results=results, comparison=compared, info=INFO))


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return read_run(make_run(tmp_path / "a run"))


@pytest.fixture
def blank_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty charts, to save time."""
    monkeypatch.setattr(charts, "to_svg", lambda drawing: b"<svg/>")


@pytest.fixture
def compared() -> RealsComparison:
    reals, fakes = Given(noise(9, 1), "reals"), ThumbnailSource(Given(noise(12, 2), "fakes"))
    list(fakes.batches())
    found = NearestNeighbors(
        distances=torch.rand(12, 5).sort(dim=1).values,
        indices=torch.randint(0, 9, (12, 5)),
        real_distances=torch.rand(9),
        realism=torch.rand(12),
    )
    return compare_with_reals(found, reals, fakes, model="a model", same_data=False)


def check(read: HtmlPage) -> None:
    """Assert that a page needs no network, and that its parts are named and found."""
    for name, address in read.addresses:
        assert address.startswith("#" if name == "href" else "data:image/"), (name, address[:80])
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & {tag for tag, _ in read.tags}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.tags:
        for name in ("href", "aria-labelledby"):
            assert attributes.get(name, f"#{ids[0]}").removeprefix("#") in ids
    assert all(image["alt"] and int(image["width"]) and int(image["height"]) for image in read.all("img"))
    assert len(read.all("table")) == len(read.all("caption")) == len(read.all("thead"))
    assert read.all("html")[0]["lang"] == "en"
    (policy,) = (meta["content"] for meta in read.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_page_without_reals(run: StoredRun, blank_charts: None) -> None:
    read = page_of(run)
    check(read)
    for words in ("4 of 10 kimg", "stage 2 of 2 at 32 px", "Resumed at 1 kimg", "--real DATA", "--result"):
        assert words in re.sub(r"\s+", " ", read.text), words
    left_out = "Ignored in the log: events of iterations that were lost and repeated (2)."
    assert left_out in re.sub(r"\s+", " ", read.text)
    assert len(read.all("img")) == 2 + 3  # charts, two sheets, the reals
    assert len(read.all("source")) == 2


def test_page_with_all_parts(run: StoredRun, blank_charts: None, compared: RealsComparison) -> None:
    result = Result(
        "mine",
        {"fd-lite2": {"value": 12.5, "low": 12.0, "high": 13.0}, "dc-lite2/density": {"value": 0.25}},
        {"reals": {"name": "cats.zip", "count": 12}, "fakes": {"psi": 1.0, "sha256": ""}},
    )
    read = page_of(run, result, compared=compared)
    check(read)
    for words in ("mine", "12.5", "reals / name", "cats.zip", "is not the run's training data"):
        assert words in re.sub(r"\s+", " ", read.text), words
    neighbors = 2 * 8 * (1 + 5)
    assert len(read.all("img")) == 2 + 3 + 1 + neighbors + 3 * 4
    assert "--real DATA" not in read.text
    same = page_of(run, compared=dataclasses.replace(compared, same_data=True))
    assert "is not the file" not in same.text


def test_metrics_by_class_are_a_chart_and_a_table(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart has the worst classes, the table all; a class may lack a metric."""
    plotted: list[dict[str, float]] = []
    monkeypatch.setattr(page, "classes_svg", lambda values, xlabel: (plotted.append(dict(values)), b"<svg/>")[1])
    monkeypatch.setattr(charts, "to_svg", lambda drawing: b"<svg/>")
    classes = {f"class {i}": ClassMetrics(10, i, {"kd-lite2": {"value": float(i)}}) for i in range(20)}
    classes["empty"] = ClassMetrics(10, 0, {})
    read = page_of(run, Result("mine", {"kd-lite2": {"value": 1.0}}, {}, classes))
    check(read)
    assert list(plotted[0]) == [f"class {i}" for i in range(19, 7, -1)]
    assert "kd-lite2 by class, the worst 12 of 20" in read.text
    assert "empty" in read.text


def test_hostile_names_are_escaped(run: StoredRun, compared: RealsComparison) -> None:
    stored = json.loads(run.folder.config.read_text())
    stored["training"][HOSTILE] = HOSTILE
    stored["training"]["metrics"] = [HOSTILE]
    stored["data"] = {"name": HOSTILE, "sha256": {HOSTILE: [HOSTILE]}, HOSTILE: None}
    run.folder.config.write_text(json.dumps(stored))
    event = {"kimg": 5, "stage": 1, "resolution": HOSTILE, HOSTILE: 1.0, "warning": HOSTILE, "resumed": HOSTILE}
    run.folder.append(event)
    result = Result(HOSTILE, {HOSTILE: {"value": 1.0, HOSTILE: 2.0}}, {HOSTILE: {HOSTILE: HOSTILE}})
    strange = dataclasses.replace(compared, model=HOSTILE, data=HOSTILE)
    read = page_of(read_run(run.folder.path), result, compared=strange)
    check(read)
    assert read.text.count(HOSTILE) > 15
    assert any(HOSTILE in image["alt"] for image in read.all("img"))


def test_page_of_a_run_with_one_event(run: StoredRun) -> None:
    """One line of log, no images."""
    for path in run.folder.samples.iterdir():
        path.unlink()
    run.folder.log.write_text('{"kimg": 0.0, "spread": 0.5}\n')
    read = page_of(read_run(run.folder.path))
    check(read)
    assert "has no sample grids" in read.text


@pytest.mark.slow
def test_size_of_the_page(run: StoredRun) -> None:
    """A long training: its log has 20 000 lines, its sheets are of noise."""
    rng = np.random.default_rng(0)
    lines = [
        json.dumps({"kimg": i / 4, "stage": 0, "resolution": 256, "loss_g": a, "loss_d": b})
        for i, (a, b) in enumerate(rng.normal(size=(20_000, 2)).tolist())
    ]
    run.folder.log.write_text("\n".join(lines))
    for path in run.folder.samples.iterdir():
        write_image(path, rng.integers(0, 256, (1030, 2062, 3), dtype=np.uint8), overwrite=True)
    read = read_run(run.folder.path)
    assert read.log.kimg == pytest.approx(19_999 / 4)
    assert len(render_page(read, panels_of(read.log, ()), results=(), comparison=None, info=INFO)) < 5_000_000
