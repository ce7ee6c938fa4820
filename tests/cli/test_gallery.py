"""`polyinr gallery`: a whole page whatever the model, images that its commands draw, what is refused."""

import base64
import hashlib
import json
import re
import shlex
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused, small_checkpoint
from html_page import HtmlPage
from PIL import Image

from polyinr_cli.main import load, outcome
from polyinr_core.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from polyinr_core.gallery import plan, sections
from polyinr_core.images.io import read_metadata
from polyinr_core.rendering.metadata import command_of
from polyinr_core.runtime.atomic_io import sha256_of

HOSTILE = ("</script><script>alert(1)</script>", "\" onerror='x", "2", " a - b & c ")
OPTIONS = ("--seeds", "0-3", "--psi", "0,0.5,1", "--frames", "4", "--res", "16", "--device", "cpu")
ALWAYS = ["levels", "beyond", "sizes", "live"]
PARTS = ["seeds", "classes", "psi", "mixing", "interpolation", *ALWAYS]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that take no time where no size is asked for."""
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "SIZES", (8, 24))
    monkeypatch.setattr(plan, "ENLARGED_RESOLUTION", 20)
    monkeypatch.setattr(plan, "MIN_DEFAULT_RESOLUTION", 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.safetensors`, whose classes have hostile names, and its gallery `site`."""
    folder = tmp_path_factory.mktemp("gallery")
    small_checkpoint(folder / "plain.safetensors", classes=4)
    checkpoint = load_checkpoint(folder / "plain.safetensors")
    origin = {"data": "<b>cats</b>.zip", "stages": [{"resolution": 16}, 3]}
    save_checkpoint(folder / "model.safetensors", replace(checkpoint, class_names=HOSTILE, origin=origin))
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.chdir(folder)
        assert outcome(["gallery", "-m", "model.safetensors", "-o", "site/", *OPTIONS, "-q"]) == 0
    return folder


def text_of(site: Path) -> str:
    return (site / "index.html").read_text("utf-8")


def parts_of(text: str) -> list[str]:
    return re.findall(r'<h2 id="(\w+)"', text)


def test_the_page_is_whole(made: Path) -> None:
    site = made / "site"
    text = text_of(site)
    page = HtmlPage(text)
    assert parts_of(text) == PARTS
    local = {value for name, value in page.addresses if not value.startswith("#") and value}
    there = {file.relative_to(site).as_posix() for file in site.rglob("*.png")}
    assert local == there | {"latents.safetensors"}
    assert not re.search(r"https?:|[\"'(=]//|@import|url\(", text)
    for image in page.all("img"):
        if "src" in image:
            with Image.open(site / image["src"]) as opened:
                assert opened.size == (int(image["width"]), int(image["height"]))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {value for name, value in page.addresses if name == "href" and value.startswith("#")}
    assert links == {f"#{part}" for part in [*PARTS, "main"]}


def test_what_names_hold_is_text(made: Path) -> None:
    page = HtmlPage(text_of(made / "site"))
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") or name == "style" for _, given in page.tags for name in given)
    for name in (*HOSTILE, "<b>cats</b>.zip"):
        assert name in page.text


def test_it_can_be_heard_and_used_by_keyboard(made: Path) -> None:
    page = HtmlPage(text_of(made / "site"))
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("header", "main", "nav", "footer", "h1")] == [1] * 5
    labels = {label["for"] for label in page.all("label")}
    sliders = page.all("input")
    assert [slider["type"] for slider in sliders] == ["range"] * 6
    assert {field["id"] for field in (*sliders, *page.all("select"))} == labels
    headings = {heading["id"] for heading in page.all("h2")}
    assert {section["aria-labelledby"] for section in page.all("section")} == headings
    silent = [image for image in page.all("img") if not image["alt"]]
    assert len(silent) == 4 + 1  # the strip, which repeats the interpolation, and the image of the dialog
    assert all(button["type"] == "button" for button in page.all("button"))
    assert len([span for span in page.all("span") if span.get("role") == "status"]) == 4


def test_its_policy_allows_its_own_style_and_script_alone(made: Path) -> None:
    text = text_of(made / "site")
    policy = HtmlPage(text).all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src 'self' file:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def commands_of(page: HtmlPage) -> dict[str, str]:
    """Return the command that draws each image that opens, by its file."""
    return {link["href"]: link["data-command"] for link in page.all("a") if "data-command" in link}


def test_the_commands_parse(made: Path) -> None:
    page = HtmlPage(text_of(made / "site"))
    slides = [slide["data-command"] for slide in page.all("div") if "data-command" in slide]
    commands = {*commands_of(page).values(), *slides}
    assert len(commands) > 60
    parse = cache(load)
    for line in commands:
        polyinr, command, *words = shlex.split(line)
        assert polyinr == "polyinr"
        parse(command).make_context(command, [*words])
        assert ["-m", "model.safetensors", "-o"] == words[-4:-1]


KINDS = [
    "seed0003-20px.png",
    *(f"seed0001-class{label}-16px.png" for label in range(4)),
    "seed0002-psi0.5-16px.png",
    "seed0003-with-levels1-of-seed0000.png",
    "seed0001-heat-of-level2.png",
    "seed0003-beyond.png",
    "seed0000-24px.png",
]


@pytest.mark.parametrize("name", KINDS)
def test_a_image_is_what_its_command_draws(made: Path, polyinr: Run, name: str) -> None:
    shutil.copy(made / "model.safetensors", "model.safetensors")
    image = made / "site" / "images" / name
    line = commands_of(HtmlPage(text_of(made / "site")))[f"images/{name}"]
    ran = polyinr(*shlex.split(line)[1:], "--device", "cpu")
    assert ran.code == 0, ran.stderr
    drawn = np.asarray(Image.open(shlex.split(line)[-1]))
    own = np.asarray(Image.open(image))
    if "heat" in name:  # the command writes a sheet: a word above, and the image before it
        drawn = drawn[-16:, -16:]
    assert (drawn == own).all()
    assert own.std() > 1
    if "with" not in name:
        again = command_of(read_metadata(image), output="again.png")
        assert polyinr(*shlex.split(again)[1:]).code == 0
        assert (np.asarray(Image.open("again.png"))[-len(own) :, -len(own) :] == own).all()


def test_the_commands_of_the_parts_run(made: Path, polyinr: Run) -> None:
    shutil.copy(made / "model.safetensors", "model.safetensors")
    text = text_of(made / "site")
    lines = [HtmlPage(f"<p>{code}</p>").text for code in re.findall(r"<code>(.*?)</code><button", text)]
    assert lines.pop() == ""  # of the image still to be opened
    assert len(lines) == 8
    for line in lines:
        ran = polyinr(*shlex.split(line)[1:], "--device", "cpu")
        assert ran.code == 0, ran.stderr
        assert Path(shlex.split(line)[-1]).is_file()
    strip = Image.open("interpolation.gif")
    assert strip.n_frames == 4
    first = np.asarray(strip.convert("RGB"), dtype=int)
    own = np.asarray(Image.open(made / "site" / "images" / "interpolation-frame0000.png"), dtype=int)
    assert abs(first - own).mean() < 16  # a GIF has 256 colors


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ({}, ["--seeds", "1-4"], [part for part in PARTS if part != "classes"]),
        (
            {"form": "paper", "levels": 2},
            ["--seeds", "3"],
            ["seeds", "psi", "levels", "beyond", "sizes", "live"],
        ),
        (
            {"levels": 1, "resolution": 0},
            ["--seeds", "0,2"],
            ["seeds", "psi", "interpolation", "levels", "beyond", "sizes", "live"],
        ),
    ],
)
def test_other_models(polyinr: Run, tmp_path: Path, model: dict, options: list[str], parts: list[str]) -> None:
    small_checkpoint(tmp_path / "m.safetensors", **model)
    few = ["--psi", "0.3", "--frames", "3", "--res", "8"]
    ran = polyinr("gallery", "-m", "m.safetensors", "-o", "site", *few, *options)
    assert ran.code == 0, ran.stderr
    assert parts_of(text_of(tmp_path / "site")) == parts


def test_of_many_classes_some_are_shown(polyinr: Run, tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "m.safetensors", classes=1000)
    few = ["--seeds", "2", "--psi", "1", "--frames", "2", "--res", "8"]
    ran = polyinr("gallery", "-m", "m.safetensors", "-o", "site", *few)
    assert ran.code == 0, ran.stderr
    text = text_of(tmp_path / "site")
    assert "in 16 of the model's 1000 classes" in " ".join(HtmlPage(text).text.split())
    assert len(re.findall("<h3>", text)) == 16 + 1


def test_a_label_is_every_images_class(polyinr: Run, tiny_class_checkpoint: Path, tmp_path: Path) -> None:
    given = [*["--seeds", "0-1", "--psi", "1", "--frames", "2", "--res", "8", "--label"], "class c"]
    assert polyinr("gallery", "-m", tiny_class_checkpoint, "-o", "site", *given).code == 0
    commands = commands_of(HtmlPage(text_of(tmp_path / "site")))
    assert commands
    assert all("--label 'class c'" in line for line in commands.values())


def test_json_says_what_was_made(polyinr: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    given = ["--seeds", "5,2", "--frames", "2", "--psi", "1", "--precision", "float64"]
    ran = polyinr("gallery", "-m", tiny_checkpoint, "-o", "deep/site/", *given, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    (facts,) = ran.lines
    assert facts["file"] == "deep/site/index.html"
    assert (facts["seeds"], facts["psi"], facts["size"], facts["frames"]) == ([5, 2], [1.0], 16, 2)
    assert (facts["model"], facts["precision"]) == (sha256_of(tiny_checkpoint), "float64")
    site = tmp_path / "deep" / "site"
    assert {site / name for name in facts["files"]} == {file for file in site.rglob("*") if file.is_file()}
    assert json.loads((site / "gallery.json").read_text())["files"] == facts["files"]


def test_only_a_gallery_is_replaced(made: Path, polyinr: Run, tmp_path: Path) -> None:
    shutil.copytree(made / "site", tmp_path / "site")
    few = ["--seeds", "0", "--psi", "1", "--frames", "2", "--res", "8"]
    again = ["gallery", "-m", made / "model.safetensors", *few, "-o", "site"]
    refused(polyinr(*again), "site: exists already", "--overwrite", code=1)
    assert polyinr(*again, "--overwrite").code == 0
    assert not (tmp_path / "site" / "images" / "interpolation-frame0000.png").exists()
    (tmp_path / "site" / "CNAME").write_text("mine")
    refused(polyinr(*again, "--overwrite"), "site: holds files that do not belong to a gallery (CNAME)", code=1)
    assert (tmp_path / "site" / "CNAME").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert polyinr(*again[:-1], "empty", "--overwrite").code == 0


@pytest.mark.parametrize("facts", ["", "[]", '{"files": 3}', '{"files": [["index.html"]]}'])
def test_facts_that_are_damaged_name_nothing(made: Path, polyinr: Run, tmp_path: Path, facts: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gallery.json").write_text(facts)
    ran = polyinr("gallery", "-m", made / "model.safetensors", "-o", "site", "--overwrite")
    refused(ran, "site: holds files that do not belong to a gallery (gallery.json)", code=1)


@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupted_it_leaves_what_was_there(
    made: Path, polyinr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        shutil.copytree(made / "site", tmp_path / "site")
    before = sorted(tmp_path.rglob("*"))
    write = sections.write_png

    def interrupted(path: Path, *rest: object) -> None:
        write(path, *rest)
        if path.name.startswith("interpolation"):
            raise KeyboardInterrupt

    monkeypatch.setattr(sections, "write_png", interrupted)
    line = ["gallery", "-m", made / "model.safetensors", "-o", "site", *OPTIONS]
    ran = polyinr(*line, *(["--overwrite"] if overwrite else []))
    refused(ran, "interrupted", code=130)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("gallery", 2, "--output"),
        ("gallery -o -", 2, "path of a folder"),
        ("gallery -o page.html", 2, "page.html: a gallery is a folder"),
        ("gallery -o file", 1, "file: is a file"),
        ("gallery -o . --overwrite", 1, "is the current folder"),
        ("gallery -o file/site", 1, "a part of this path is a file"),
        ("gallery -o site -m missing.safetensors", 1, "missing.safetensors: no such file"),
        ("gallery -o site --seeds 0-999 -m m.safetensors", 2, "1000 images; a gallery shows 1 to 128"),
        ("gallery -o site --seeds x -m m.safetensors", 2, "seeds 'x'"),
        ("gallery -o site --psi half -m m.safetensors", 2, "--psi 'half'"),
        ("gallery -o site --frames 1 -m m.safetensors", 2, "--frames 1 is out of range"),
        ("gallery -o site --res 32x16 -m m.safetensors", 2, "--res '32x16'"),
        ("gallery -o site --res 4096 -m m.safetensors", 2, "--res 4096 is out of range"),
        ("gallery -o site --label cat -m m.safetensors", 2, "no classes"),
        ("gallery -o site --device tpu -m m.safetensors", 2, "tpu"),
        ("gallery -o site --precision half -m m.safetensors", 2, "half"),
    ],
)
def test_bad_input(polyinr: Run, tiny_checkpoint: Path, tmp_path: Path, line: str, code: int, words: str) -> None:
    shutil.copy(tiny_checkpoint, tmp_path / "m.safetensors")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    refused(polyinr(*line.split()), words, code=code)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_process_draws_it(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    refused(polyinr("gallery", "-m", tiny_checkpoint, "-o", "site"), "one process", code=2)


def test_every_image_is_captioned_with_its_seed(made: Path) -> None:
    """The enlarged image too: with the class, and the psi where it is not 1."""
    page = HtmlPage(text_of(made / "site"))
    captions = {
        link["href"].removeprefix("images/"): link["data-caption"] for link in page.all("a") if "data-caption" in link
    }
    assert all(caption.startswith(("seed ", "heat map of level ")) for caption in captions.values())
    assert captions["seed0002-psi0.5-16px.png"].endswith(", psi 0.5")
    assert captions["seed0001-class2-16px.png"] == "seed 1, 2"
    assert captions["seed0001-heat-of-level2.png"] == "heat map of level 2 of seed 1"
    assert captions["seed0003-with-levels1-of-seed0000.png"] == "seed 3 with levels 1 of seed 0"
    shown = len(page.all("figure"))
    assert len(page.all("figcaption")) == shown
    assert len([image for image in page.all("img") if image["alt"]]) == shown


def test_the_latents_of_the_seeds_lie_beside_the_page(made: Path, polyinr: Run) -> None:
    given = ("-m", made / "model.safetensors", "--latents", made / "site" / "latents.safetensors", "--res", "20")
    assert polyinr("sample", *given, "-o", "again/").code == 0
    for image in sorted((made / "site" / "images").glob("seed????-20px.png")):
        again = np.asarray(Image.open(Path("again", f"{image.name[:8]}.png")))
        assert (again == np.asarray(Image.open(image))).all()
    assert len(list(Path("again").iterdir())) == 4
