"""polyinr convert: a released file in, a model out, one line when it cannot be."""

import hashlib
import json

import pytest
import torch
from conftest import refused
from safetensors.torch import load, load_file

from polyinr_core.checkpoints.checkpoint import load_checkpoint

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
    checkpoint = load_checkpoint(model)
    assert checkpoint.sha256 == note["sha256"]


def test_pickle_and_tensors_of_one_network_give_the_same_weights(polyinr, reference, tmp_path):
    for name, source in {"a": "official_like.pkl", "b": "generator_small.safetensors"}.items():
        assert polyinr("convert", reference / source, "-o", f"{name}.safetensors").code == 0
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)


def test_a_line_for_the_person_goes_to_a_terminal_only(polyinr, reference, monkeypatch):
    from polyinr_cli import console as streams

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
    assert load_checkpoint(model).resolution == 32


def test_half_the_size_keeps_the_image(polyinr, tiny_class_checkpoint, tmp_path):
    ran = polyinr("convert", tiny_class_checkpoint, "--half", "-o", "half.safetensors", "--json")
    assert ran.code == 0, ran.stderr
    (note,) = ran.lines
    whole, half = load_checkpoint(tiny_class_checkpoint), load_checkpoint(tmp_path / "half.safetensors")
    assert note["origin"] == half.origin == {**whole.origin, "weights": "bfloat16", "rounded_from": whole.sha256}
    assert {tensor.dtype for tensor in load_file(tmp_path / "half.safetensors").values()} == {torch.bfloat16}
    for name, tensor in half.generator.state_dict().items():
        assert tensor.equal(whole.generator.state_dict()[name].bfloat16().float()), name
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * tiny_class_checkpoint.stat().st_size


def test_a_released_file_may_be_halved_too_and_its_learned_grid_stays_exact(polyinr, reference, tmp_path):
    for name, options in {"whole": (), "half": ("--half",)}.items():
        source = reference / "official_like.pkl"
        assert polyinr("convert", source, *options, "-o", f"{name}.safetensors").code == 0
    whole, half = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "half.safetensors")
    assert half.pop("learned_grid").equal(whole.pop("learned_grid"))
    assert all(half[name].equal(tensor.bfloat16()) for name, tensor in whole.items())


def test_a_card_goes_with_the_model(polyinr, tiny_class_checkpoint, tmp_path):
    card = {"license": "MIT", "figures": {"kd-lite2": 0.5}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    ran = polyinr("convert", tiny_class_checkpoint, "--card", "card.json", "-o", "-")
    (tmp_path / "labeled.safetensors").write_bytes(ran.stdout)
    labeled, plain = load_checkpoint(tmp_path / "labeled.safetensors"), load_checkpoint(tiny_class_checkpoint)
    assert labeled.origin == {**plain.origin, "card": card}
    assert all(t.equal(plain.generator.state_dict()[k]) for k, t in labeled.generator.state_dict().items())
    assert "kd-lite2" in polyinr("info", "labeled.safetensors").stdout.decode()


@pytest.mark.parametrize("card", ["[1]", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 100_000])
def test_a_card_that_cannot_be_read_is_refused(polyinr, tiny_class_checkpoint, tmp_path, card):
    (tmp_path / "card.json").write_text(card)
    ran = polyinr("convert", tiny_class_checkpoint, "--card", "card.json", "-o", "labeled.safetensors")
    refused(ran, "card.json", "a card is a JSON object", code=1)
    assert not (tmp_path / "labeled.safetensors").exists()
