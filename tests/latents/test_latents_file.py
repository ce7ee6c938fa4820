"""The latents file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from polyinr_core.errors import FileError
from polyinr_core.latents.io import encode_latents, is_latents_file, read_latents, write_latents
from polyinr_core.latents.latents import Latents, Photo, common_photo, concatenate


@pytest.fixture
def latents() -> Latents:
    torch.manual_seed(0)
    return Latents(
        z=torch.randn(3, 8),
        w=torch.randn(3, 2, 5),
        affine=torch.randn(3, 2, 3, 4),
        label=torch.tensor([1, 0, 2]),
        seeds=(7, 8, 9),
        psi=0.7,
        model_sha256="cd" * 32,
    )


def equal(a: Latents, b: Latents) -> bool:
    tensors = all(
        torch.equal(getattr(a, n), getattr(b, n)) if getattr(a, n) is not None else getattr(b, n) is None
        for n in ("z", "w", "affine", "label")
    )
    return tensors and (a.seeds, a.psi, a.model_sha256) == (b.seeds, b.psi, b.model_sha256)


def test_a_file_comes_back(tmp_path: Path, latents: Latents):
    path = tmp_path / "x.safetensors"
    write_latents(path, latents)
    again = read_latents(path)
    assert equal(again, latents)
    assert again.space == "affine"
    assert len(again) == 3
    assert equal(read_latents(path.read_bytes()), latents)
    assert is_latents_file(path)


def test_images_part_and_join(latents: Latents):
    assert equal(concatenate([latents[i] for i in range(3)]), latents)
    assert latents[1].seeds == (8,)


def test_double_precision_stays(latents: Latents):
    wide = replace(latents, w=latents.w.double())
    assert read_latents(encode_latents(wide)).w.dtype == torch.float64


def test_files_of_others_need_no_facts():
    again = read_latents(
        save({"z": torch.zeros(2, 4, dtype=torch.float16), "label": torch.tensor([0, 1], dtype=torch.int32)})
    )
    assert again.z.dtype == torch.float32
    assert again.label.dtype == torch.int64
    assert (again.space, again.seeds, again.psi) == ("z", (), None)


BAD_TENSORS = {
    "unknown name": ({"q": torch.zeros(1, 2)}, "holds q"),
    "label alone": ({"label": torch.tensor([1])}, "no latents"),
    "nothing": ({}, "no latents"),
    "z of rank 1": ({"z": torch.zeros(2)}, "shape"),
    "no images": ({"z": torch.zeros(0, 2)}, "shape"),
    "affine of two rows": ({"affine": torch.zeros(1, 2, 2, 4)}, "shape"),
    "counts differ": ({"z": torch.zeros(1, 2), "label": torch.tensor([1, 2])}, "disagree"),
    "not a number": ({"w": torch.full((1, 2, 2), float("nan"))}, "NaN or Inf"),
    "infinite": ({"z": torch.full((1, 2), float("inf"))}, "NaN or Inf"),
    "z of integers": ({"z": torch.zeros(1, 2, dtype=torch.int64)}, "type"),
    "z of complex": ({"z": torch.zeros(1, 2, dtype=torch.complex64)}, "type"),
    "labels of floats": ({"z": torch.zeros(1, 2), "label": torch.zeros(1)}, "type"),
    "labels of bools": ({"z": torch.zeros(1, 2), "label": torch.zeros(1, dtype=torch.bool)}, "type"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_are_no_latents(case: str):
    tensors, words = BAD_TENSORS[case]
    with pytest.raises(FileError, match=words):
        read_latents(save(tensors))


@pytest.mark.parametrize(
    "facts",
    [
        "[]",
        "{",
        '{"format": 2}',
        '{"seeds": [1]}',
        '{"format": 1, "seeds": [1]}',
        '{"format": 1, "seeds": "ab"}',
        '{"format": 1, "psi": "x"}',
        '{"format": 1, "model_sha256": 3}',
    ],
)
def test_facts_that_are_damaged(facts: str):
    with pytest.raises(FileError):
        read_latents(save({"z": torch.zeros(2, 4)}, metadata={"polyinr_latents": facts}))


def test_damaged_bytes_are_one_error(latents: Latents):
    """Cut and scrambled files either read or raise FileError, nothing else."""
    whole = encode_latents(latents)
    scramble = np.random.RandomState(0)
    cases = [whole[:cut] for cut in range(0, len(whole), 11)]
    for _ in range(200):
        data = bytearray(whole)
        for position in scramble.randint(0, 400, 3):
            data[position] = scramble.randint(256)
        cases.append(bytes(data))
    refused = 0
    for data in cases:
        try:
            read_latents(data)
        except FileError:
            refused += 1
    assert refused > 50


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileError, match="no such file"):
        read_latents(tmp_path / "x.safetensors")


def test_the_header_is_json(latents: Latents):
    data = encode_latents(latents)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["polyinr_latents"])["seeds"] == [7, 8, 9]


def test_photos_come_back(latents: Latents):
    photos = tuple(Photo(f"{i}.jpg", (40, 30), (0.0, 0.0, 1.0, 0.75), {"psnr": 20.5, "ssim": None}) for i in range(3))
    kept = read_latents(encode_latents(replace(latents, photos=photos, untuned_sha256="ab" * 32)))
    assert kept.photos == photos
    assert kept.untuned_sha256 == "ab" * 32
    assert kept[1].photos == photos[1:2]
    assert concatenate([kept[i] for i in range(3)]).photos == photos
    assert concatenate([kept, latents]).photos == ()
    assert common_photo(photos) == photos[0]
    assert common_photo([photos[0], replace(photos[1], size=(30, 40))]) is None
    assert common_photo([]) is None


@pytest.mark.parametrize(
    "photo",
    [
        {},
        "x.jpg",
        {"name": "x", "size": [0, 4], "window": [0, 0, 1, 1]},
        {"name": "x", "size": [4], "window": [0, 0, 1, 1]},
        {"name": "x", "size": [4, 4], "window": [0, 0, 0, 1]},
        {"name": "x", "size": [4, 4], "window": [0, 0, 1, 1], "scores": 3},
        {"name": 7, "size": [4, 4], "window": [0, 0, 1, 1]},
    ],
)
def test_damaged_photos_are_refused(photo: object):
    facts = json.dumps({"format": 1, "seeds": [], "psi": None, "model_sha256": "", "photos": [photo]})
    with pytest.raises(FileError, match="facts on photos are damaged"):
        read_latents(save({"z": torch.zeros(1, 4)}, {"polyinr_latents": facts}))
