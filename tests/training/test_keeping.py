"""Which models stay, and when a stage has waited long enough."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, read_facts
from polyinr_core.errors import FileError
from polyinr_core.training import hooks as keeping
from polyinr_core.training.hooks import BEST, EarlyStopping, keep_best, prune_checkpoints


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return replace(load_checkpoint(tiny_checkpoint), origin={"data": "cats.zip"})


def keep(folder: Path, checkpoint: Checkpoint, value: float, *, metric: str = "fd-lite2") -> bool:
    return keep_best(folder, checkpoint, metric=metric, value=value)


def test_the_best_is_kept_with_its_value(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Its header says what it reached; nothing but the file is needed to go on from there."""
    folder = tmp_path / "checkpoints"
    kept = [
        keep(folder, replace(checkpoint, kimg=kimg), value) for kimg, value in enumerate([1.0, 9.5, 8.25, 8.25, 12.0])
    ]
    assert kept == [False, True, True, False, False]  # the first one is untrained
    facts = read_facts(folder / BEST)
    assert facts["kimg"] == 2
    assert facts["origin"] == {"data": "cats.zip", "metric": "fd-lite2", "value": 8.25}
    assert [path.name for path in folder.iterdir()] == [BEST]
    assert load_checkpoint(folder / BEST).resolution == checkpoint.resolution


@pytest.mark.parametrize("other", [{"resolution": 32}, {"data_sha256": "cd" * 32}, {"metric": "kd-lite2"}])
def test_what_cannot_be_compared_gives_way(tmp_path: Path, checkpoint: Checkpoint, other: dict) -> None:
    """A new stage sees other reals: its first model takes the place of the one before, whatever the distance."""
    assert keep(tmp_path, checkpoint, 1.0)
    metric = other.pop("metric", "fd-lite2")
    assert keep(tmp_path, replace(checkpoint, **other), 5.0, metric=metric)
    assert read_facts(tmp_path / BEST)["origin"]["value"] == 5.0


def test_a_distance_of_other_labels_gives_way(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Models that do not say how theirs were drawn are of an older polyinr, which drew them uniformly."""
    assert keep(tmp_path, checkpoint, 1.0)
    assert keep_best(tmp_path, checkpoint, metric="fd-lite2", value=5.0, labels="dataset")
    assert read_facts(tmp_path / BEST)["origin"]["labels"] == "dataset"
    assert not keep_best(tmp_path, checkpoint, metric="fd-lite2", value=6.0, labels="dataset")
    assert keep_best(tmp_path, checkpoint, metric="fd-lite2", value=6.0, labels="uniform")


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, None])
def test_a_damaged_or_foreign_best_gives_way(
    tmp_path: Path, tiny_checkpoint: Path, checkpoint: Checkpoint, content: bytes | None
) -> None:
    (tmp_path / BEST).write_bytes(tiny_checkpoint.read_bytes() if content is None else content)
    assert keep(tmp_path, checkpoint, 5.0)
    assert read_facts(tmp_path / BEST)["origin"]["value"] == 5.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_never_the_best(tmp_path: Path, checkpoint: Checkpoint, value: float) -> None:
    assert not keep(tmp_path, checkpoint, value)
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_the_best_before(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keep(tmp_path, checkpoint, 5.0)
    before = (tmp_path / BEST).read_bytes()

    def crash(path: Path, *_: object, **__: object) -> None:
        raise FileError(path, "no space left on the disk")

    monkeypatch.setattr(keeping, "save_checkpoint", crash)
    with pytest.raises(FileError):
        keep(tmp_path, checkpoint, 4.0)
    assert (tmp_path / BEST).read_bytes() == before


def numbered(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (0, ["000000000", "000005000", "000010000", "1000000000"]),
        (1, ["1000000000"]),
        (2, ["000010000", "1000000000"]),
        (9, ["000000000", "000005000", "000010000", "1000000000"]),
    ],
)
def test_the_last_stay(tmp_path: Path, kept: int, left: list[str]) -> None:
    """Ordered by number; the best and a user's own files are none of them."""
    others = [BEST, "mine.safetensors", "000000001.txt"]
    for name in [
        *(f"{stem}.safetensors" for stem in ("000000000", "000005000", "000010000", "1000000000")),
        *others,
    ]:
        (tmp_path / name).touch()
    prune_checkpoints(tmp_path, kept)
    assert numbered(tmp_path) == sorted([*(f"{stem}.safetensors" for stem in left), *others])


def test_nothing_to_prune(tmp_path: Path) -> None:
    prune_checkpoints(tmp_path, 2)
    prune_checkpoints(tmp_path / "nowhere", 2)


def early_stopping_after(values: list[float], *, blurred: bool = False) -> EarlyStopping:
    early_stopping = EarlyStopping()
    for value in values:
        early_stopping = early_stopping.after("fid", value, blurred=blurred)
    return early_stopping


@pytest.mark.parametrize(
    ("values", "waited"),
    [([], 0), ([5.0], 0), ([5.0, 4.0], 0), ([5.0, 5.0], 1), ([5.0, 6.0, 5.5], 2), ([5.0, 6.0, 4.0, 4.5], 1)],
)
def test_measurements_without_improvement_are_counted(values: list[float], waited: int) -> None:
    assert early_stopping_after(values).waited == waited


def test_the_end_of_patience() -> None:
    early_stopping = early_stopping_after([5.0, 6.0, math.nan])
    assert [early_stopping.is_over(limit) for limit in (0, 1, 2, 3)] == [False, True, True, False]


def test_blurred_measurements_do_not_count() -> None:
    """Neither for the wait nor as a best that sharp images would have to beat."""
    blurred = early_stopping_after([5.0, 6.0, 7.0], blurred=True)
    assert not blurred.is_over(1)
    assert blurred.after("fid", 9.0, blurred=False) == EarlyStopping("fid", best=9.0)


def test_distances_of_another_kind_do_not_count() -> None:
    """A kernel distance is a thousandth of a Fréchet distance, which would never be better."""
    early_stopping = early_stopping_after([0.1, 0.2, 0.3]).after("fd-lite2", 400.0, blurred=False)
    assert early_stopping == EarlyStopping("fd-lite2", best=400.0)


def test_patience_lives_in_a_state() -> None:
    early_stopping = early_stopping_after([5.0, 6.0])
    assert EarlyStopping.from_dict(json.loads(json.dumps(early_stopping.to_dict()))) == early_stopping
    assert EarlyStopping.from_dict(EarlyStopping().to_dict()) == EarlyStopping()
