"""`polyinr report`: the page, the curves, a folder; which options have a use; what is refused, in one line."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Run, refused
from given_images import PixelExtractor
from html_page import HtmlPage
from PIL import Image
from run_stand_in import make_reals, make_run

from polyinr_core.report import plots as charts
from polyinr_core.report import plots as curves
from polyinr_core.runtime.strict_json import FORMAT

RESULT = {"format": FORMAT, "metrics": {"fd-lite2": {"value": 1.5}}, "card": {"device": "cpu"}}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a run folder `run` and images `reals`."""
    folder = tmp_path_factory.mktemp("made")
    make_run(folder / "run")
    make_reals(folder / "reals")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of both; a small judge; charts that take no time."""
    monkeypatch.setattr("polyinr_core.metrics.extractors.load_extractor", lambda name: PixelExtractor())
    monkeypatch.setattr(charts, "to_svg", lambda drawing: b"<svg/>")
    monkeypatch.setattr(charts, "DPI", 30)
    monkeypatch.setattr(curves, "PANELS", curves.PANELS[:1])
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def written(path: Path, facts: object = RESULT) -> Path:
    path.write_text(json.dumps(facts))
    return path


def read(path: Path) -> HtmlPage:
    return HtmlPage(path.read_text())


def test_a_page_without_reals(polyinr: Run, run: Path) -> None:
    ran = polyinr("report", "run", "-o", "page.html", "-q")
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"", "")
    page = read(Path("page.html"))
    assert page.all("title")
    assert "--real DATA" in page.text
    refused(polyinr("report", "run", "-o", "page.html"), "page.html", "exists already", code=1)
    assert polyinr("report", "run", "-o", "page.html", "--overwrite").code == 0


def test_a_folder_gets_page_curves_and_realism(polyinr: Run, run: Path) -> None:
    ran = polyinr("report", "run", "-o", "out/", "--real", "reals", "--count", "9", "--cache", "kept")
    assert ran.code == 0, ran.stderr
    assert "run/checkpoints/best.safetensors (the run's best or newest)" in ran.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["curves.png", "realism.png", "report.html"]
    for name in ("curves", "realism"):
        Image.open(f"out/{name}.png").verify()
    text = " ".join(read(Path("out/report.html")).text.split())
    for words in (
        "9 images of best.safetensors (1.5 kimg), seeds 0 to 8, and the 12 images of reals",
        "seed 8",
    ):
        assert words in text
    assert "is not the run's training data" in text
    assert list(Path("kept").iterdir())
    assert polyinr("report", "run", "-o", "plain").code == 0
    assert sorted(path.name for path in Path("plain").iterdir()) == ["curves.png", "report.html"]


def test_python_builds_the_same_report(polyinr: Run, run: Path) -> None:
    """But for the date; only the files that are asked for."""
    from polyinr_core import build_report

    assert polyinr("report", "run", "-o", "out/").code == 0
    built = build_report("run", ["report.html", "curves.png"])
    assert built["curves.png"] == Path("out/curves.png").read_bytes()
    date = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
    assert date.sub("", built["report.html"].decode()) == date.sub("", Path("out/report.html").read_text())
    assert list(build_report("run")) == ["report.html"]


def test_the_data_of_the_run_is_known_by_its_sum(polyinr: Run, run: Path) -> None:
    from polyinr_core.evaluation.image_sources import DatasetImages

    config = json.loads((run / "config.json").read_text())
    config["data"]["sha256"] = DatasetImages(Path("reals")).data.sha256
    written(run / "config.json", config)
    assert polyinr("report", "run", "-o", "p.html", "--real", "reals", "--count", "3").code == 0
    assert "is not the run's" not in read(Path("p.html")).text


def test_another_model_draws(polyinr: Run, run: Path) -> None:
    shutil.move(run / "checkpoints" / "best.safetensors", "mine.safetensors")
    ran = polyinr("report", "run", "-o", "p.html", "--real", "reals", "-m", "mine.safetensors", "--count", "3")
    assert ran.code == 0, ran.stderr
    assert "mine.safetensors (1.5 kimg)" in read(Path("p.html")).text


def test_results_are_given_and_found(polyinr: Run, run: Path) -> None:
    written(run / "found.json")
    written(run / "notes.json", {"mine": 1})
    given = [written(Path("given.json")), run / "found.json"]
    ran = polyinr("report", "run", "-o", "p.html", "--result", given[0], "--result", given[1])
    assert ran.code == 0, ran.stderr
    text = read(Path("p.html")).text
    assert (text.count("Metrics of given"), text.count("Metrics of found"), "notes" in text) == (1, 1, False)


def test_the_curves_alone_and_the_page_on_stdout(polyinr: Run, run: Path) -> None:
    assert polyinr("report", "run", "-o", "c.png").code == 0
    assert Image.open("c.png").width == 2 * charts.WIDTH * charts.DPI
    ran = polyinr("report", "run", "-o", "-")
    assert ran.code == 0
    assert HtmlPage(ran.stdout.decode()).all("title")


REFUSED = [
    ("nowhere -o p.html", 1, "nowhere: no such folder"),
    ("reals -o p.html", 1, "reals: is not a run folder", "config.json"),
    ("run/log.jsonl -o p.html", 1, "is a file"),
    ("run -o p.pdf", 2, "suffix '.pdf'", ".html", "a folder"),
    ("run -o out.txt", 2, "suffix '.txt'"),
    ("run -o file", 1, "file: is a file"),
    ("run -o file/p.html", 1, "file"),
    ("run -o c.png --real reals", 2, "--real does not apply"),
    ("run -o c.png --result r.json", 2, "--result does not apply"),
    ("run -o p.html --count 5", 2, "--count does not apply", "--real DATA"),
    ("run -o p.html -m m.safetensors", 2, "-m does not apply"),
    ("run -o p.html --cache kept", 2, "--cache does not apply"),
    ("run -o p.html --real reals --count 0", 2, "--count 0 is below 1"),
    ("run -o p.html --real nowhere", 1, "nowhere"),
    ("run -o p.html --real small", 1, "none is enlarged"),
    ("run -o p.html --real few --count 3", 1, "holds 3 images"),
    ("run -o p.html --real reals --count 3 -m file", 1, "file"),
    ("run -o p.html --real reals --device tpu", 2, "tpu"),
    ("run -o p.html --result other.json", 1, "other.json"),
    ("run -o p.html --result newer.json", 1, "newer.json", "format"),
    ("run -o p.html --result nowhere.json", 1, "nowhere.json: no such file"),
    ("run", 2, "--output"),
]


@pytest.mark.parametrize(("words", "code", "said"), [(line, code, said) for line, code, *said in REFUSED])
def test_what_is_refused(polyinr: Run, run: Path, words: str, code: int, said: list[str]) -> None:
    Path("file").write_text("x")
    written(Path("other.json"), {"x": 1})
    written(Path("newer.json"), RESULT | {"format": FORMAT + 1})
    make_reals(Path("small"), side=8)
    make_reals(Path("few"), 3)
    before = sorted(Path().rglob("*"))
    refused(polyinr("report", *words.split(), "-q"), *said, code=code)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("log", "said"),
    [("", "holds no events"), ('{"kimg": 1, "resumed": true}', "no numbers"), ("x\ny\n", "damaged")],
)
def test_a_log_with_nothing_in_it_is_refused(polyinr: Run, run: Path, log: str, said: str) -> None:
    (run / "log.jsonl").write_text(log)
    refused(polyinr("report", "run", "-o", "p.html"), "log.jsonl", said, code=1)


def test_a_run_without_a_model_is_distinguished_from_one_that_has_none_yet(polyinr: Run, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    refused(polyinr("report", "run", "-o", "p.html", "--real", "reals"), "has no model yet", code=1)
    assert polyinr("report", "run", "-o", "p.html").code == 0


def test_a_damaged_log_and_damaged_images_are_named_in_the_page(polyinr: Run, run: Path) -> None:
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([lines[0], lines[1][:20], *lines[2:], '{"kimg": 4.2']))
    (run / "samples" / "reals.png").write_bytes(b"torn")
    (run / "samples" / "fakes-000000000.png").write_bytes(b"")
    assert polyinr("report", "run", "-o", "p.html").code == 0
    text = " ".join(read(Path("p.html")).text.split())
    for words in (
        "damaged lines (1); events of iterations",
        "fakes-000000000.png is damaged",
        "reals.png is damaged",
    ):
        assert words in text


def test_an_interruption_leaves_nothing(polyinr: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = sorted(Path().rglob("*"))
    for place in ("polyinr_core.report.nearest_neighbors.realism", "polyinr_core.report.page.panel_svg"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            ran = polyinr("report", "run", "-o", "out/", "--real", "reals", "--count", "3", "-q")
        assert (ran.code, ran.stderr) == (130, "polyinr: interrupted\n")
        assert sorted(Path().rglob("*")) == before
