"""Moving images: frames, their number, their time and their note, as other readers find them."""

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from polyinr_core.errors import FileError, PolyinrError, RequestError
from polyinr_core.images import animation
from polyinr_core.images.animation import check_animation, check_encoder, delays, read_mp4_metadata, write_animation
from polyinr_core.images.io import read_metadata

METADATA = {"polyinr": "1", "seed": 7, "class": "né — 猫"}
SUFFIXES = [".gif", ".webp", ".mp4"]


def walk(count: int, *, height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth frames [count, height, width, 3], each brighter than the last."""
    x, y = np.linspace(0, 60, width), np.linspace(0, 60, height)
    still = np.stack([x[None].repeat(height, 0), y[:, None].repeat(width, 1), 0 * x + 0 * y[:, None]], axis=-1)
    return (still[None] + np.linspace(20, 180, count)[:, None, None, None]).astype(np.uint8)


def read(path: Path) -> tuple[np.ndarray, float, str]:
    """Return the frames, the seconds they last, and the text in the file."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            text = container.metadata.get("comment", "")
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
            return frames, float(stream.duration * stream.time_base), text
    image = Image.open(path)
    frames, seconds = [], 0.0
    for index in range(image.n_frames):
        image.seek(index)
        frames.append(np.asarray(image.convert("RGB")))
        seconds += image.info["duration"] / 1000
    text = image.info.get("comment", b"").decode() or image.getexif().get(0x010E, "")
    return np.stack(frames), seconds, text


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_and_their_time_come_back(tmp_path: Path, suffix: str):
    """On smooth frames 256 colors, WebP at 90 and H.264 at 18 stay within some levels of what was given."""
    frames = walk(10)
    reported: list[int] = []
    path = tmp_path / f"x{suffix}"
    write_animation(path, iter(frames), count=10, fps=30, metadata=METADATA, progress=reported.append)
    found, seconds, text = read(path)
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 3
    assert np.abs(found.astype(int) - frames).max() < 16
    assert seconds == pytest.approx(10 / 30, abs=0.006)  # a GIF counts hundredths
    assert json.loads(text) == METADATA
    assert reported == [1] * 10


@pytest.mark.parametrize(("loop", "gif", "webp"), [(True, 0, 0), (False, None, 1)])
def test_looping(tmp_path: Path, loop: bool, gif: int | None, webp: int):
    for suffix in (".gif", ".webp"):
        write_animation(tmp_path / f"x{suffix}", walk(2), count=2, fps=10, loop=loop)
    assert Image.open(tmp_path / "x.gif").info.get("loop") == gif
    assert Image.open(tmp_path / "x.webp").info["loop"] == webp


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (8, 5), (7, 9)])
def test_mp4_repeats_the_last_row_and_column_at_odd_sides(tmp_path: Path, height: int, width: int):
    path = tmp_path / "x.mp4"
    frames = walk(3, height=height, width=width)
    write_animation(path, frames, count=3, fps=25)
    found, _, text = read(path)
    assert found.shape[1:3] == (height + height % 2, width + width % 2)
    assert np.abs(found[:, :height, :width].astype(int) - frames).max() < 24  # two pixels share a color
    assert text == ""


def test_mp4_colors_are_marked_as_they_are_meant(tmp_path: Path):
    """BT.709, limited range, 4:2:0: players that trust the file and those that guess by it agree."""
    write_animation(tmp_path / "x.mp4", walk(2), count=2, fps=24)
    with av.open(str(tmp_path / "x.mp4")) as container:
        context = container.streams.video[0].codec_context
        marks = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        assert (context.name, context.pix_fmt, *(int(mark) for mark in marks)) == ("h264", "yuv420p", 1, 1, 1, 1)
    head = (tmp_path / "x.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


@pytest.mark.parametrize("fps", [7.3, 24, 29.97, 50])
def test_delays_add_up(fps: float):
    for ticks in (100, 1000):
        found = delays(500, fps, ticks)
        assert len(found) == 500
        assert sum(found) == round(500 * ticks / fps)
        assert max(found) - min(found) <= 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_will_do(tmp_path: Path, suffix: str):
    write_animation(tmp_path / f"x{suffix}", walk(1), count=1, fps=10)
    if suffix == ".mp4":
        assert read(tmp_path / "x.mp4")[0].shape == (1, 24, 32, 3)
    else:
        assert Image.open(tmp_path / f"x{suffix}").size == (32, 24)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), PolyinrError("colors that are no numbers")])
def test_frames_that_break_off_leave_nothing(tmp_path: Path, suffix: str, error: BaseException):
    def frames() -> Iterator[np.ndarray]:
        yield from walk(3)
        raise error

    with pytest.raises(type(error)):
        write_animation(tmp_path / "new" / f"x{suffix}", frames(), count=9, fps=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, suffix: str, share: float):
    frames = np.random.RandomState(0).randint(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    write_animation(tmp_path / f"x{suffix}", frames, count=6, fps=10)
    whole = (tmp_path / f"x{suffix}").stat().st_size
    (tmp_path / f"x{suffix}").unlink()
    with small_files(max(0, int(share * whole) - 1)), pytest.raises(FileError, match="file too large"):
        write_animation(tmp_path / f"x{suffix}", frames, count=6, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path):
    def frames() -> Iterator[np.ndarray]:
        raise AssertionError("drawn")
        yield

    (tmp_path / "x.gif").write_bytes(b"mine")
    with pytest.raises(FileError, match="--overwrite"):
        write_animation(tmp_path / "x.gif", frames(), count=2, fps=10)
    write_animation(tmp_path / "x.gif", walk(2), count=2, fps=10, overwrite=True)
    assert Image.open(tmp_path / "x.gif").n_frames == 2


@pytest.mark.parametrize(
    ("name", "width", "height", "fps", "words"),
    [
        ("x.gif", 65536, 4, 10, "65535 pixels a side, not 65536x4"),
        ("x.webp", 4, 16384, 10, "16383"),
        ("x.mp4", 16385, 4, 10, "16384"),
        ("x.mp4", 8192, 8192, 10, "35651584 pixels"),
        ("x.gif", 4, 4, 51, "50 frames per second, not 51"),
        ("x.webp", 4, 4, 100, "90"),
        ("x.mp4", 4, 4, 301, "300"),
        ("x.mp4", 4, 4, 0, "not 0"),
        ("x.mp4", 4, 4, float("nan"), "not nan"),
        ("x.avi", 4, 4, 10, r"'\.avi' is no animation; use \.gif, \.webp, \.mp4"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name: str, width: int, height: int, fps: float, words: str):
    with pytest.raises(RequestError, match=words):
        check_animation(Path(name), width=width, height=height, count=2, fps=fps)


def test_what_a_format_can_hold_is_not():
    check_animation(Path("x.gif"), width=65535, height=4, count=1, fps=50)
    check_animation(Path("x.WebP"), width=16383, height=4, count=2, fps=0.01)
    check_animation(Path("x.mp4"), width=8192, height=4352, count=2, fps=300)
    with pytest.raises(RequestError, match="at least one frame"):
        check_animation(Path("x.gif"), width=4, height=4, count=0, fps=10)


def test_without_its_encoder_mp4_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nothing(*_: object) -> None:
        raise AssertionError("drawn")

    check_encoder(tmp_path / "x.mp4")
    monkeypatch.setattr(animation.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "av")
    for check in (check_encoder, lambda path: write_animation(path, map(nothing, [1]), count=1, fps=10)):
        with pytest.raises(PolyinrError, match=r"pip install av$"):
            check(tmp_path / "x.mp4")
    check_encoder(tmp_path / "x.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_metadata_is_read_again(tmp_path: Path, suffix: str):
    path = tmp_path / f"x{suffix}"
    read_again = read_mp4_metadata if suffix == ".mp4" else read_metadata
    write_animation(path, iter(walk(3)), count=3, fps=10, metadata=METADATA)
    assert read_again(path) == METADATA
    path.write_bytes(path.read_bytes()[:16])
    with pytest.raises(FileError, match="damaged"):
        read_again(path)
