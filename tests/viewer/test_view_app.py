"""The server's answers: the page, facts, images and tiles; what it refuses, in one line; what it keeps."""

import hashlib
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from html_page import HtmlPage
from PIL import Image
from quick_renderer import QuickRenderer
from starlette.testclient import TestClient

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import PolyinrError
from polyinr_core.viewer import tiles
from polyinr_core.viewer.server import ASSETS, ViewerServer
from polyinr_core.viewer.tiles import Selection, TileIndex, TileRenderer

PORT = 8421
OWN = f"http://127.0.0.1:{PORT}"
OPENSEADRAGON = "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"  # as NOTICE.txt says


@pytest.fixture
def renderer(tiny_class_checkpoint: Path) -> QuickRenderer:
    return QuickRenderer(tiny_class_checkpoint)


@pytest.fixture
def server(renderer: QuickRenderer) -> ViewerServer:
    return ViewerServer(renderer, initial=Selection(seed=5, psi=0.5), options=("-m", "a model.safetensors"))


@pytest.fixture
def client(server: ViewerServer) -> Iterator[TestClient]:
    with TestClient(server.app(port=PORT), base_url=OWN) as client:
        yield client


@pytest.mark.parametrize("path", ASSETS)
def test_the_page_and_its_parts(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(ASSETS[path][1])
    assert answer.content == (files("polyinr_core") / "assets" / ASSETS[path][0]).read_bytes()


def test_the_page_asks_for_its_own_parts_only(client: TestClient) -> None:
    page = HtmlPage(client.get("/").text)
    assert {value for _, value in page.addresses} - {f"{path[1:]}" for path in ASSETS} == {"data:,", "#controls"}
    named = {attributes.get("for") for attributes in page.all("label")}
    fields = [a for tag in ("input", "select") for a in page.all(tag) if a.get("id") and "aria-label" not in a]
    assert {a["id"] for a in fields} - named == {"framed"}  # which is within its label


def test_openseadragon_is_the_file_that_the_notice_names() -> None:
    assets = files("polyinr_core") / "assets"
    data = (assets / "openseadragon" / "openseadragon.min.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() == OPENSEADRAGON
    notice = (assets / "NOTICE.txt").read_text()
    assert OPENSEADRAGON in notice
    assert (assets / "openseadragon" / "LICENSE.txt").read_text() in notice


def test_facts(client: TestClient) -> None:
    facts = client.get("/model").json()
    assert facts["class_names"] == ["class a", "class b", "class c", "class d"]
    assert (facts["classes"], facts["levels"], facts["resolution"]) == (4, 3, 16)
    assert facts["initial"] == {"seed": 5, "label": None, "psi": 0.5}
    assert len(facts["dtypes"]) == facts["tiles"]["max_level"] + 1 == tiles.MAX_LEVEL + 1
    assert facts["dtypes"][-1] == "float64"


def test_a_image_and_its_command(client: TestClient) -> None:
    assert client.get("/image?seed=7&label=1").json() == {
        "label": 1,
        "command": "polyinr sample --seeds 7 --label 1 -m 'a model.safetensors'",
    }


def test_a_tile_is_drawn_once(client: TestClient, renderer: QuickRenderer) -> None:
    for _ in range(2):
        answer = client.get("/tile/12/7/8?seed=3&psi=0.7&other=4&levels=1-2")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert renderer.drawn == [(Selection(3, psi=0.7, other=4, levels=(1, 2)), TileIndex(12, 7, 8))]
    client.get("/tile/12/7/8?seed=3&psi=0.7")
    assert len(renderer.drawn) == 2


def test_a_tile_is_a_image(tiny_class_checkpoint: Path) -> None:
    server = ViewerServer(TileRenderer(load_checkpoint(tiny_class_checkpoint)), initial=Selection())
    with TestClient(server.app(port=PORT), base_url=OWN) as client:
        image = Image.open(io.BytesIO(client.get("/tile/12/7/8").content))
    assert (image.format, image.size) == ("PNG", (tiles.TILE_SIZE, tiles.TILE_SIZE))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/tile/7/0/0", "level 7 is out of range 8-50"),
        ("/tile/51/0/0", "level 51"),
        ("/tile/9/2/0", "column 2 is out of range 0-1"),
        ("/tile/9/0/99999999999999999999", "row 99999999999999999999"),
        ("/tile/9/0/999999999999999999999999", "not an integer"),
        ("/tile/9/-1/0", "column '-1' is not an integer"),
        ("/tile/nine/0/0", "level 'nine'"),
        ("/tile/9/0/²", "not an integer"),
        ("/tile/9/0/0?psi=nan", "psi 'nan' is out of range"),
        ("/tile/9/0/0?seed=x", "seed 'x'"),
        ("/tile/9/0/0?label=zebra", "class 'zebra' is unknown"),
        ("/tile/9/0/0?other=1&levels=3", "level 3 is"),
        ("/tile/9/0/0?seed=1&seed=2", "more than once"),
        ("/tile/9/0/0?file=/etc/passwd", "'file' is not a field"),
        ("/image?seed=-1", "seed '-1'"),
        ("/image?label=9", "class 9"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(client: TestClient, path: str, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert words in answer.text
    assert len(answer.text.splitlines()) == 1


def test_a_page_of_another_model_has_to_reload(client: TestClient, renderer: QuickRenderer) -> None:
    model = client.get("/model").json()["model"]
    assert model == renderer.checkpoint.sha256
    for path in ("/image", "/tile/9/0/0"):
        assert client.get(f"{path}?model={model}").status_code == 200
        answer = client.get(f"{path}?model={'0' * 64}")
        assert (answer.status_code, answer.text) == (400, "this server now has another model; reload the page\n")
    assert len(renderer.drawn) == 1


@pytest.mark.parametrize(
    "path", ["/nowhere", "/view/index.html", "/../pyproject.toml", "/%2e%2e/etc/passwd", "/tile/9/0", "/assets/"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/model", "/tile/9/0/0"])
def test_it_is_only_read(client: TestClient, renderer: QuickRenderer, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = client.request(method, path)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert not renderer.drawn
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_what_is_kept_has_a_bound(renderer: QuickRenderer) -> None:
    server = ViewerServer(renderer, initial=Selection(), cache_bytes=2500)
    with TestClient(server.app(port=PORT), base_url=OWN) as client:
        for column in (0, 1, 2, 2, 0):
            client.get(f"/tile/12/{column}/0")
            assert server.cache.size <= 2500
    assert [tile.column for _, tile in renderer.drawn] == [0, 1, 2, 0]


def test_colors_that_are_no_numbers_are_said(
    client: TestClient, renderer: QuickRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> bytes:
        raise PolyinrError("the model gives colors that are NaN or Inf in this window; take a smaller window")

    monkeypatch.setattr(renderer, "render", fail)
    answer = client.get("/tile/12/0/0")
    assert (answer.status_code, answer.text.count("\n")) == (500, 1)
    assert "NaN or Inf" in answer.text
