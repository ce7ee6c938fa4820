"""SavedState on disk: whole, summed, and the one before it kept."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from polyinr_core.errors import FileError
from polyinr_core.training.state import (
    SavedState,
    pack_optimizer,
    read_progress,
    read_state,
    unpack_optimizer,
    write_state,
)

MANIFESTS = {
    "an empty manifest": b"",
    "half a manifest": b"{",
    "a manifest of another kind": b"[1]",
    "a manifest without a sum": b'{"counters": {}}',
    "a manifest without counters": b'{"sha256": "ab", "counters": 3}',
    "a manifest of noise": b"\xff\xfe\x00",
}


def write(folder: Path, images: int) -> None:
    write_state(folder, SavedState({"a/b": torch.full((3,), float(images))}, {"images": images}), images=images)


def test_the_newest_is_read_and_two_are_kept(tmp_path: Path) -> None:
    for images in (10, 20, 30):
        write(tmp_path, images)
    state, damaged = read_state(tmp_path)
    assert damaged == []
    assert state.counters == {"images": 30}
    assert state.tensors["a/b"].tolist() == [30.0] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{images:012d}{suffix}" for images in (20, 30) for suffix in (".json", ".safetensors")
    ]


def test_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing", *MANIFESTS])
def test_a_damaged_state_is_reported_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    weights = tmp_path / f"{20:012d}.safetensors"
    data = bytearray(weights.read_bytes())
    if how == "flip":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "cut":
        weights.write_bytes(data[:-4])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "missing":
        weights.unlink()
    else:
        weights.with_suffix(".json").write_bytes(MANIFESTS[how])
    state, damaged = read_state(tmp_path)
    assert state.counters == {"images": 10}
    assert len(damaged) == 1
    assert weights.stem in damaged[0]


def test_a_state_of_another_format_is_not_passed_over(tmp_path: Path) -> None:
    """A newer polyinr wrote it: going on from the one before would throw it away."""
    write(tmp_path, 10)
    write(tmp_path, 20)
    manifest = tmp_path / f"{20:012d}.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 3}))
    with pytest.raises(FileError, match="has format 3, this polyinr reads 2 and older; update polyinr"):
        read_state(tmp_path)


def test_where_one_may_not_look_is_not_empty(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("no folder")
    with pytest.raises(FileError, match="a part of this path is a file"):
        read_state(folder)


def test_how_far_a_run_came_is_read_without_its_tensors(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "none") is None
    for images in (10, 20):
        write_state(tmp_path, SavedState({}, {"stage": 1, "images": images, "best": None}), images=images)
    (tmp_path / f"{20:012d}.safetensors").unlink()
    assert read_progress(tmp_path) == (1, 20)
    (tmp_path / f"{20:012d}.json").write_text("{")
    assert read_progress(tmp_path) == (1, 10)


def test_counters_are_any_json(tmp_path: Path) -> None:
    counters = {
        "stage": 0,
        "images": 4,
        "best": {"fd-lite2": 3.5, "kimg": 0.004},
        "warned": ["collapse"],
        "left": None,
    }
    write_state(tmp_path, SavedState({"a": torch.ones(2, dtype=torch.bfloat16)}, counters), images=4)
    state, _ = read_state(tmp_path)
    assert state.counters == counters
    assert state.tensors["a"].dtype == torch.bfloat16


def test_a_state_cut_off_before_its_manifest_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / f"{20:012d}.safetensors").write_bytes(b"half")
    state, damaged = read_state(tmp_path)
    assert state.counters == {"images": 10}
    assert damaged == []


def test_a_good_state_takes_the_place_of_damaged_and_unfinished_ones(tmp_path: Path) -> None:
    """The run went on from 10, as 20 was damaged, and stops at 15; a process was killed while it wrote 18."""
    for images in (10, 20):
        write(tmp_path, images)
    (tmp_path / f"{20:012d}.safetensors").write_bytes(b"half")
    (tmp_path / f"{18:012d}.safetensors").write_bytes(b"half")
    (tmp_path / f".{18:012d}.json.x.part").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, 15)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {
        f"{10:012d}",
        f"{15:012d}",
        "notes",
    }
    state, damaged = read_state(tmp_path)
    assert (state.counters, damaged) == ({"images": 15}, [])


def test_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    """A file mapped into memory keeps its disk space when it is removed, and ends the process when it is cut."""
    write(tmp_path, 10)
    state, _ = read_state(tmp_path)
    (tmp_path / f"{10:012d}.safetensors").write_bytes(b"")
    assert state.tensors["a/b"].tolist() == [10.0] * 3


def test_a_state_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    """It may be sound: going on from the one before would lose it."""
    write(tmp_path, 10)
    write(tmp_path, 20)
    weights = tmp_path / f"{20:012d}.safetensors"
    weights.unlink()
    weights.mkdir()
    with pytest.raises(FileError, match="is a folder"):
        read_state(tmp_path)


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 10, 90], ids=["nothing", "the tensors", "the manifest"])
def test_what_does_not_fit_leaves_the_state_before(tmp_path: Path, size: int) -> None:
    write(tmp_path, 10)
    names = sorted(path.name for path in tmp_path.iterdir())
    with no_larger_than(size), pytest.raises(FileError, match=r"0020\.\w+: file too large[^\n]*$"):
        write(tmp_path, 20)
    assert read_state(tmp_path)[0].counters == {"images": 10}
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (names if size < 90 else sorted([*names, f"{20:012d}.safetensors"]))
    write(tmp_path, 20)
    assert read_state(tmp_path)[0].counters == {"images": 20}


def test_nothing_sound_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / f"{10:012d}.safetensors").write_bytes(b"half")
    with pytest.raises(FileError, match="no training state here is intact"):
        read_state(tmp_path)


def test_optimizer_moments_come_back() -> None:
    """Two steps in one go, and with a round trip between them, end in the same bits."""

    def steps(trip: bool) -> torch.Tensor:
        x = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([x], betas=(0.0, 0.99))
        for i in range(2):
            x.grad = torch.tensor([1.0, -2.0, 3.0]) * (i + 1)
            optimizer.step()
            if trip and i == 0:
                kept = {name: value.clone() for name, value in pack_optimizer(optimizer).items()}
                optimizer = torch.optim.Adam([x], betas=(0.0, 0.99))
                unpack_optimizer(optimizer, kept)
        return x.detach()

    assert torch.equal(steps(True), steps(False))


def test_a_state_is_readable_as_other_files_are(tmp_path: Path) -> None:
    """By whom the user's mask allows, not by the owner alone."""
    before = os.umask(0o022)
    try:
        write_state(tmp_path, SavedState({"a": torch.ones(1)}, {}), images=1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("0*")} == {0o644}
