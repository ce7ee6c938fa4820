"""The checkpoint file: what it says comes back, and a header that means harm gets one line."""

import json

import pytest
import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, read_facts, save_checkpoint
from polyinr_core.errors import CheckpointError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator

CONFIG = GeneratorConfig(levels=2, channels=4, z_dim=3, w_dim=3, table_dim=3)


def with_header(path, header: bytes):
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b"[]",
        b"5",
        b"\xff\xff",
        b"[" * 100_000,
        b'{"__metadata__": 5}',
        b'{"__metadata__": {"polyinr": 5}}',
        b'{"__metadata__": {"polyinr": "5"}}',
        b'{"__metadata__": {"polyinr": "' + b"[" * 100_000 + b'"}}',
    ],
)
def test_a_header_of_another_form_is_refused(header, tmp_path):
    path = with_header(tmp_path / "model.safetensors", header)
    for read in (read_facts, load_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"\1", b"\1\0\0", b"\xff" * 8, b"\2" + bytes(7) + b"{"])
def test_a_file_too_short_for_its_header_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_facts(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"resolution": float("inf")},
        {"kimg": []},
        {"class_names": 5},
        {"class_names": [5]},
        {"class_names": ["\ud800"]},
        {"origin": ["data"]},
        {"origin": {"data": float("nan")}},
        {"generator": 5},
        {"generator": {}},
    ],
)
def test_facts_of_another_kind_are_refused(facts, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(Generator(CONFIG)))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    said = json.loads(header["__metadata__"]["polyinr"]) | facts
    header["__metadata__"]["polyinr"] = json.dumps(said)
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])
    with pytest.raises(CheckpointError, match="a damaged checkpoint"):
        load_checkpoint(path)


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "model.safetensors"
    saved = Checkpoint(
        Generator(CONFIG),
        class_names=("a", "b"),
        resolution=2,
        kimg=1.5,
        data_sha256="ab",
        origin={"converter": "x"},
        learned_grid=torch.rand(4, 2),
    )
    save_checkpoint(path, saved)
    found = load_checkpoint(path)
    for name in ("class_names", "resolution", "kimg", "data_sha256", "origin"):
        assert getattr(found, name) == getattr(saved, name)
    assert found.learned_grid.equal(saved.learned_grid)
    assert found.generator.config == CONFIG
    state = saved.generator.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in found.generator.state_dict().items())
