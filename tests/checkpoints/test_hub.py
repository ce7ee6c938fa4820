"""Models on the hub: named, pushed and loaded against a stand-in on loopback, and from the cache without a network."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused, small_checkpoint
from hub_stand_in import TOKEN, Hub, served_hub

import polyinr_core as polyinr
from polyinr_core.checkpoints.hub import HubName, hub_name_of, is_hub_name, local_file, model_name, parse_hub_name
from polyinr_core.errors import CheckpointError, FileError, RequestError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Online:
    """The stand-in, and a switch that takes it away."""

    hub: Hub
    cache: Path
    monkeypatch: pytest.MonkeyPatch

    def go_offline(self) -> None:
        self.point_to("http://127.0.0.1:9")  # the discard port: nothing listens

    def point_to(self, endpoint: str) -> None:
        from huggingface_hub import constants

        self.monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        self.monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Online]:
    """The stand-in in the hub's place, with an empty cache and a token."""
    from huggingface_hub import constants

    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has no content-addressed store
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with served_hub() as hub:
        online = Online(hub, cache, monkeypatch)
        online.point_to(hub.endpoint)
        yield online


def cache_of(cache: Path, checkpoint: Path, repository: str, *, commit: str = COMMIT, ref: str = "main") -> Path:
    """Lay a checkpoint into a cache as huggingface_hub does: blobs, a ref, a snapshot of links."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    blob = folder / "blobs" / hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    blob.write_bytes(checkpoint.read_bytes())
    (folder / "refs" / ref).write_text(commit)
    file = folder / "snapshots" / commit / "model.safetensors"
    file.symlink_to(blob)
    return file


def test_names() -> None:
    assert parse_hub_name("hf:alice/cats") == HubName("alice/cats")
    assert parse_hub_name(Path("hf:alice/cats@v1.0")) == HubName("alice/cats", "v1.0")
    assert str(parse_hub_name("alice/cats@refs/pr/1")) == "hf:alice/cats@refs/pr/1"
    for wrong in ("hf:cats", "hf:a/b/c", "hf:alice/", "hf:a b/c", "hf:alice/cats@", "hf:../cats", "hf:a--b/c"):
        with pytest.raises(RequestError, match="write hf:owner/name"):
            parse_hub_name(wrong)
    assert not is_hub_name("cats.safetensors")


def test_a_file_of_that_very_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("hf:alice/cats")
    Path("hf:alice").mkdir()
    Path("hf:alice/cats").touch()
    assert not is_hub_name("hf:alice/cats")
    assert local_file("hf:alice/cats") == Path("hf:alice/cats")


def test_push_and_load(online: Online, tiny_class_checkpoint: Path) -> None:
    """What is pushed is the file itself; loading it gives the same images, again without a network."""
    model = polyinr.load(tiny_class_checkpoint)
    name = model.push_to_hub("alice/cats", license="mit", private=True)
    repository = online.hub.repositories["alice/cats"]
    commit = list(repository.commits)[-1]
    assert name == f"hf:alice/cats@{commit}"
    assert repository.private
    files = repository.commits[commit]
    assert files["model.safetensors"] == tiny_class_checkpoint.read_bytes()
    assert {"README.md", "samples.png", "extrapolation.png"} < files.keys()
    again = polyinr.Model.from_pretrained("alice/cats")
    assert again.sha256 == model.sha256
    assert np.array_equal(again.sample([3]), model.sample([3]))
    online.go_offline()
    for wanted in ("hf:alice/cats", name):
        assert polyinr.load(wanted).sha256 == model.sha256
    assert polyinr.Model.from_pretrained("alice/cats", revision=commit).sha256 == model.sha256
    assert polyinr.Model.from_pretrained(str(tiny_class_checkpoint)).sha256 == model.sha256


def test_a_second_push_needs_overwrite_and_keeps_the_first(online: Online, tmp_path: Path) -> None:
    one, two = (small_checkpoint(tmp_path / f"{form}.safetensors", form=form) for form in ("release", "paper"))
    first = polyinr.load(one).push_to_hub("alice/cats")
    with pytest.raises(FileError, match=r"holds a model\.safetensors; push to another name or give --overwrite"):
        polyinr.load(two).push_to_hub("alice/cats")
    second = polyinr.load(two).push_to_hub("alice/cats", overwrite=True)
    assert polyinr.load("hf:alice/cats").generator.config.form == "paper"
    assert polyinr.load(second).generator.config.form == "paper"
    assert polyinr.load(first).generator.config.form == "release"


def test_a_model_in_float64_is_pushed_in_float32(online: Online, tiny_checkpoint: Path) -> None:
    model = polyinr.load(tiny_checkpoint, precision="float64")
    model.path = None
    model.push_to_hub("alice/cats")
    pushed = polyinr.Model.from_pretrained("alice/cats", precision="float64")
    assert np.array_equal(pushed.sample([1]), model.sample([1]))
    assert model.generator.mapping.w_avg.dtype.itemsize == 8  # it was copied, not changed


def test_the_card(online: Online, tiny_checkpoint: Path) -> None:
    """Its header is read back by huggingface_hub; its Python lines run against the hub it was pushed to."""
    from huggingface_hub import ModelCard

    model = polyinr.load(tiny_checkpoint)
    estimate = {"value": 12.5, "low": 11.0, "high": 14.0}
    card = {
        "fakes": {"kind": "model", "sha256": model.sha256, "count": 1000, "psi": 1.0},
        "reals": {"name": "cats|dogs.zip", "count": 90},
        "resolution": 16,
        "protocols": {"fd-lite2": {"network": "lite2", "rule": "a rule"}},
    }
    model.push_to_hub("alice/cats", results=[{"metrics": {"fd-lite2": estimate}, "card": card}], license="cc-by-4.0")
    text = list(online.hub.repositories["alice/cats"].commits.values())[-1]["README.md"].decode()
    header = ModelCard(text).data
    assert header.license == "cc-by-4.0"
    assert header.to_dict()["library_name"] == "polyinr"
    assert header.eval_results[0].metric_value == 12.5
    assert header.eval_results[0].dataset_name == "cats|dogs.zip"
    assert "| fd-lite2 | 12.5 | 11 to 14 | 1000 at 16 px, psi 1 | 90 of cats\\|dogs.zip | lite2: a rule |" in text
    assert model.sha256 in text
    lines = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    ran: dict = {}
    exec(lines, ran)
    assert ran["images"].shape == (8, 16, 16, 3)


def test_a_result_of_another_model_is_refused(tiny_checkpoint: Path) -> None:
    result = {"metrics": {"fid": {"value": 1.0}}, "card": {"fakes": {"kind": "model", "sha256": "ab" * 32}}}
    with pytest.raises(RequestError, match="is not of this model"):
        polyinr.load(tiny_checkpoint).push_to_hub("alice/cats", results=[result])


def test_the_cache_of_the_library_is_read_without_a_network(online: Online, tiny_checkpoint: Path) -> None:
    file = cache_of(online.cache, tiny_checkpoint, "bob/dogs", ref="v2")
    online.go_offline()
    assert local_file("hf:bob/dogs@v2") == file
    assert local_file(f"hf:bob/dogs@{COMMIT}") == file
    assert hub_name_of(file) == model_name(file) == f"hf:bob/dogs@{COMMIT}"
    with pytest.raises(FileError, match="not on this machine, and the hub cannot be reached"):
        local_file("hf:bob/dogs")
    assert hub_name_of(tiny_checkpoint) is None


def test_what_goes_wrong_is_said_in_a_line(online: Online, tiny_checkpoint: Path) -> None:
    polyinr.load(tiny_checkpoint).push_to_hub("alice/cats")
    repository = online.hub.repositories["alice/cats"]
    for name, words in (
        ("hf:alice/nothing", "no such repository on the hub, or it is private"),
        ("hf:alice/cats@v9", "no such branch, tag or commit"),
    ):
        with pytest.raises(FileError, match=words):
            polyinr.load(name)
    repository.commit({"model.safetensors": (8).to_bytes(8, "little") + b"{}      "}, "of another program")
    with pytest.raises(CheckpointError, match="not a polyinr checkpoint"):
        polyinr.load("hf:alice/cats")
    repository.commits[repository.resolve("main")].pop("model.safetensors")
    repository.commit({"model.pt": b"a pickle"}, "a pickle")
    with pytest.raises(FileError, match=r"has no model\.safetensors"):
        polyinr.load("hf:alice/cats")
    assert not any("model.pt" in request for request in online.hub.requests)  # nothing else is ever asked for
    online.hub.gated.add("alice/cats")
    with pytest.raises(FileError, match="the model is gated"):
        polyinr.load("hf:alice/cats")
    online.monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(FileError, match=r"401.*log in"):
        polyinr.load(tiny_checkpoint).push_to_hub("alice/dogs")
    with pytest.raises(RequestError, match="pushed to the main branch"):
        polyinr.load(tiny_checkpoint).push_to_hub("alice/dogs@v1")


def test_the_commands(polyinr: Run, online: Online, tiny_checkpoint: Path) -> None:
    """Push, name it by -m, by the variable, with a delta's plus, as --init-from and as a file; images remember it."""
    ran = polyinr("push", tiny_checkpoint, "alice/cats", "--license", "mit", "--json")
    assert ran.code == 0, ran.stderr
    name = ran.lines[0]["name"]
    drawn = polyinr("sample", "--seeds", "1", "-m", "hf:alice/cats", "-o", "one.png")
    assert (drawn.code, drawn.stderr) == (0, f"polyinr: model {name} (named by -m)\n")
    command = json.loads(polyinr("info", "one.png", "--json").stdout)["command"]
    assert f"-m {name} " in command
    online.monkeypatch.setenv("POLYINR_MODEL", "hf:alice/cats")
    drawn = polyinr("sample", "--seeds", "1", "-o", "two.png")
    assert drawn.stderr == f"polyinr: model {name} (named by $POLYINR_MODEL)\n"
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    facts = json.loads(polyinr("info", "hf:alice/cats", "--json").stdout)
    assert facts["sha256"] == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert polyinr("convert", "hf:alice/cats", "--half", "-o", "half.safetensors").code == 0
    ran = polyinr("sample", "--seeds", "1", "-m", "hf:alice/cats+missing.safetensors", "-o", "x.png")
    assert (ran.code, "missing.safetensors: no such file" in ran.stderr) == (1, True)
    refused(polyinr("push", tiny_checkpoint, "alice/cats"), "hf:alice/cats: holds a model.safetensors", code=1)
    ran = polyinr("push", tiny_checkpoint, "alice/cats", "-o", "folder")
    assert sorted(os.listdir("folder")) == ["README.md", "extrapolation.png", "model.safetensors", "samples.png"]


def test_push_with_a_result_of_evaluate(polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path) -> None:
    """A real result file is in the card; that of another model is refused. Nothing is uploaded with -o."""
    ran = polyinr("evaluate", "--metrics", "params", "-m", tiny_checkpoint, "-o", "sizes.json")
    assert ran.code == 0, ran.stderr
    ran = polyinr("push", tiny_checkpoint, "alice/cats", "--result", "sizes.json", "-o", "folder", "--json")
    assert (ran.code, ran.lines[0]["file"]) == (0, "folder"), ran.stderr
    text = Path("folder/README.md").read_text()
    assert re.search(r"^\| params \| \d+ \|  \|  \|  \| parameters of", text, re.MULTILINE), text
    assert "model-index" not in text  # which is of metrics on a dataset
    assert "not stated" in text.lower()  # the license
    ran = polyinr("push", tiny_class_checkpoint, "alice/cats", "--result", "sizes.json", "-o", "other")
    refused(ran, "result sizes is not of this model", code=2)


def test_the_endpoint_of_the_environment(online: Online, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """In a process of its own, as a user's shell has it: HF_ENDPOINT, HF_HOME, HF_TOKEN; then HF_HUB_OFFLINE."""
    polyinr.load(tiny_checkpoint).push_to_hub("alice/cats")
    environment = {
        **os.environ,
        "HF_ENDPOINT": online.hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
    }
    command = [sys.executable, "-m", "polyinr_cli", "info", "hf:alice/cats", "--json"]
    for changed in ({}, {"HF_HUB_OFFLINE": "1"}):
        environment |= changed
        ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["sha256"] == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    command[-2] = "hf:alice/dogs"
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "not on this machine" in ran.stderr
