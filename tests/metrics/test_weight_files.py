"""The list of pretrained networks, and downloads from a server on loopback with their hash checks."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import Run, refused

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.evaluation.protocols import USER_FILES
from polyinr_core.metrics import weight_files
from polyinr_core.metrics.weight_files import NETWORKS, Downloaded, UserFile, download_network, find_network
from polyinr_core.runtime.pretrained import SOURCES

DATA = b"the weights"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the file net.pt."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "net.pt").write_bytes(DATA)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/net.pt"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights in the caches of this machine; torch.hub's is in the test's folder."""
    folder = tmp_path / "torch-hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    return folder / "checkpoints"


def stand_in(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str, cache: Path) -> None:
    """Let `lpips` be the served file."""
    file = cache / "net.pt"
    source = Downloaded(url, sha256, lambda: file if file.is_file() else None, lambda: [file])
    networks = tuple(replace(one, source=source) if one.name == "lpips" else one for one in NETWORKS)
    monkeypatch.setattr(weight_files, "NETWORKS", networks)


def test_every_source_is_listed() -> None:
    assert set(SOURCES) <= set(weight_files.NAMES)
    files = {network.name for network in NETWORKS if isinstance(network.source, UserFile)}
    assert files == set(USER_FILES)


def test_a_download_is_kept_if_its_hash_is_right(
    served: str, empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, served, hashlib.sha256(DATA).hexdigest(), empty_caches)
    file = download_network(find_network("lpips"))
    assert file == empty_caches / "net.pt"
    assert file.read_bytes() == DATA
    stand_in(monkeypatch, "http://127.0.0.1:9/net.pt", hashlib.sha256(DATA).hexdigest()[:8], empty_caches)
    assert download_network(find_network("lpips")) == file  # found: nothing is asked of the server
    file.write_bytes(b"altered")
    with pytest.raises(WeightsError, match="is not the expected"):
        download_network(find_network("lpips"))


def test_a_wrong_hash_leaves_nothing(served: str, empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, served, "ab" * 32, empty_caches)
    with pytest.raises(WeightsError, match=r"the SHA-256 of the download is not abab"):
        download_network(find_network("lpips"))
    assert list(empty_caches.iterdir()) == []


@pytest.mark.parametrize("gone", ["http://127.0.0.1:9/net.pt", "missing"])
def test_no_connection_and_no_file(served: str, empty_caches: Path, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    url = gone if gone != "missing" else served.replace("net.pt", gone)
    stand_in(monkeypatch, url, "ab" * 32, empty_caches)
    with pytest.raises(WeightsError, match="could not be downloaded"):
        download_network(find_network("lpips"))


def test_a_blob_of_the_hub_is_checked_against_its_name(tmp_path: Path) -> None:
    blob = tmp_path / hashlib.sha256(DATA).hexdigest()
    blob.write_bytes(DATA)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    weight_files.check_blob(link)
    blob.write_bytes(b"altered")
    with pytest.raises(WeightsError, match="is not the expected"):
        weight_files.check_blob(link)


def test_the_packaged_networks_are_present_and_right() -> None:
    for name in ("lite0", "lite2", "lpips-heads"):
        assert download_network(find_network(name)).is_file()
    with pytest.raises(RequestError, match=r"give --weights vgg16=FILE"):
        download_network(find_network("vgg16"))


def test_the_command(polyinr: Run, served: str, empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, served, hashlib.sha256(DATA).hexdigest(), empty_caches)
    listed = {fact["name"]: fact for fact in polyinr("weights", "--json").lines}
    assert set(listed) == set(weight_files.NAMES)
    assert listed["lite0"]["file"].endswith("efficientnet-lite0-57934424.pth")
    assert listed["lpips"]["file"] is None
    assert "polyinr weights --download lpips" in listed["lpips"]["get"]
    assert listed["lpips"]["places"] == [str(empty_caches / "net.pt")]
    ran = polyinr("weights", "--download", "lpips", "--json")
    assert [fact["file"] for fact in ran.lines] == [str(empty_caches / "net.pt")]
    text = polyinr("weights").stdout.decode()
    assert "lpips: present" in text
    assert "deit-base: missing" in text
    refused(polyinr("weights", "--download", "nothing"), "'nothing'", "inception", code=2)
    assert json.loads(polyinr("weights", "--download", "lite0", "--json").stdout)["name"] == "lite0"
