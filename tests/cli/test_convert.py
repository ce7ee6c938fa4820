"""polyinr convert: a released file in, a model out, one line when it cannot be."""

import hashlib

import pytest
from conftest import refused
from safetensors.torch import load, load_file

from polyinr_core.snapshots.snapshot import load_snapshot

FILES = [
    "official_like.pkl",
    "official_like_full.pkl",
    "official_like_uncond.pkl",
    "generator_small.safetensors",
    "generator_uncond_small.safetensors",
]


@pytest.mark.parametrize("name", FILES)
def test_a_released_file_becomes_a_model(name, polyinr, reference, tmp_path):
    ran = polyinr("convert", reference / name, "-o", "model.safetensors", "--json")
    assert ran.code == 0, ran.stderr
    (note,) = ran.lines
    model = tmp_path / "model.safetensors"
    assert note["output"] == "model.safetensors"
    assert note["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (note["channels"], note["resolution"], note["learned_grid"]) == (64, 32, True)
    assert note["classes"] == (0 if "uncond" in name else 10)
    snapshot = load_snapshot(model)
    assert snapshot.sha256 == note["sha256"]


def test_pickle_and_tensors_of_one_network_give_the_same_weights(polyinr, reference, tmp_path):
    for name, source in {"a": "official_like.pkl", "b": "generator_small.safetensors"}.items():
        assert polyinr("convert", reference / source, "-o", f"{name}.safetensors").code == 0
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)


def test_a_line_for_the_person_goes_to_a_terminal_only(polyinr, reference, monkeypatch):
    from polyinr_cli import streams

    arguments = ("convert", reference / "official_like.pkl", "-o", "model.safetensors", "--overwrite")
    assert polyinr(*arguments).stderr == ""
    monkeypatch.setattr(streams, "is_terminal", lambda stream: True)
    said = polyinr(*arguments).stderr
    assert said == ("model.safetensors: 10 levels of 64 channels, 10 classes, trained at 32 px for 80.064 kimg\n")
    assert polyinr(*arguments, "-q").stderr == ""


def test_stdout_takes_the_model(polyinr, reference, tmp_path):
    ran = polyinr("convert", reference / "official_like_uncond.pkl", "-o", "-")
    assert ran.code == 0
    polyinr("convert", reference / "official_like_uncond.pkl", "-o", "model.safetensors")
    found, expected = load(ran.stdout), load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)


def test_nothing_is_overwritten_unasked(polyinr, reference, tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_text("mine")
    source = reference / "official_like.pkl"
    refused(polyinr("convert", source, "-o", "model.safetensors"), "model.safetensors", "--overwrite", code=1)
    assert model.read_text() == "mine"
    assert polyinr("convert", source, "-o", "model.safetensors", "--overwrite").code == 0
    assert load_snapshot(model).resolution == 32
