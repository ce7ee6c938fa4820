"""State on disk: whole, summed, and the one before it kept."""

import errno
from pathlib import Path

import pytest
import torch

from polyinr_core.errors import FileError
from polyinr_core.training.state import State, pack_optimizer, read_state, unpack_optimizer, write_state


def write(folder: Path, images: int) -> None:
    write_state(folder, State({"a/b": torch.full((3,), float(images))}, {"images": images}), images=images)


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


@pytest.mark.parametrize("how", ["flip", "cut", "missing", "manifest"])
def test_a_damaged_state_is_told_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    weights = tmp_path / f"{20:012d}.safetensors"
    data = bytearray(weights.read_bytes())
    if how == "flip":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "cut":
        weights.write_bytes(data[:-4])
    elif how == "missing":
        weights.unlink()
    else:
        weights.with_suffix(".json").write_text("{")
    state, damaged = read_state(tmp_path)
    assert state.counters == {"images": 10}
    assert len(damaged) == 1
    assert weights.stem in damaged[0]


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


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)
    names = sorted(path.name for path in tmp_path.iterdir())

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match=r"no space left[^\n]*$"):
        write(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert read_state(tmp_path)[0].counters == {"images": 10}


def test_nothing_sound_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / f"{10:012d}.safetensors").write_bytes(b"half")
    with pytest.raises(FileError, match="no state here is sound"):
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
