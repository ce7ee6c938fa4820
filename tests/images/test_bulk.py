"""Many images at once: in order, whole, the same bytes as one by one; failures and interruptions."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from polyinr_core.errors import FileError
from polyinr_core.images import io as bulk
from polyinr_core.images.io import ImageFile, in_threads, threads_for, write_image, write_images

SIZE = 16 * 16 * 3


def images(count: int = 9) -> Iterator[ImageFile]:
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        yield ImageFile(f"{index}.png", pixels, {"polyinr": "x", "seed": index})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("image_bytes", [SIZE, bulk.MAX_BYTES + 1])
def test_files_are_those_written_one_by_one(tmp_path: Path, image_bytes: int) -> None:
    written = list(write_images(tmp_path / "new/out", images(), image_bytes=image_bytes))
    assert written == [tmp_path / f"new/out/{index}.png" for index in range(9)]
    for image in images():
        write_image(tmp_path / image.name, image.pixels, metadata=image.metadata)
        assert (tmp_path / "new/out" / image.name).read_bytes() == (tmp_path / image.name).read_bytes()
    assert names(tmp_path / "new/out") == [f"{index}.png" for index in range(9)]


def test_large_images_are_encoded_alone() -> None:
    assert threads_for(bulk.MAX_BYTES) >= 1
    assert threads_for(bulk.MAX_BYTES + 1) == 0


def test_jobs_end_in_order_and_few_are_under_way() -> None:
    taken = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal taken
        for index in range(20):
            taken += 1
            yield partial(int, index)

    for count, found in enumerate(in_threads(jobs(), threads=3)):
        assert found == count
        assert taken <= count + 4


def test_what_was_drawn_before_a_failure_is_kept(tmp_path: Path) -> None:
    def failing() -> Iterator[ImageFile]:
        yield from images(5)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(write_images(tmp_path / "out", failing(), image_bytes=SIZE))
    assert names(tmp_path / "out") == [f"{index}.png" for index in range(5)]


def test_what_stops_early_leaves_whole_images_alone(tmp_path: Path) -> None:
    with closing(write_images(tmp_path / "out", images(), image_bytes=SIZE)) as written:
        next(written)
        next(written)
    assert names(tmp_path / "out") == ["0.png", "1.png"]
    assert not [t for t in threading.enumerate() if "encoding" in t.name]


def test_an_image_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that fails is named; those before it are in place, nothing else is."""
    write = bulk.write_pixels

    def full(file: object, pixels: object, *, format: str, metadata: dict) -> None:
        if metadata["seed"] >= 3:
            raise OSError(28, "No space left on device")
        write(file, pixels, format=format, metadata=metadata)

    monkeypatch.setattr(bulk, "write_pixels", full)
    with pytest.raises(FileError, match=r"3\.png: no space left on the disk"):
        list(write_images(tmp_path / "out", images(), image_bytes=SIZE))
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    with pytest.raises(FileError, match="no space left"):
        list(write_images(tmp_path / "new/out", (i for i in images() if i.metadata["seed"] > 2), image_bytes=SIZE))
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "2.png").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        list(write_images(tmp_path, images(), image_bytes=SIZE))
    assert (tmp_path / "2.png").read_text() == "mine"
    assert len(list(write_images(tmp_path, images(), image_bytes=SIZE, overwrite=True))) == 9
    assert (tmp_path / "2.png").read_bytes()[:4] == b"\x89PNG"
