"""Animations: GIF, animated WebP and MP4 (H.264) are written; the frames of videos are read."""

import importlib.util
import io
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyinr_core.errors import FileError, PolyinrError, RequestError
from polyinr_core.runtime.atomic_io import PathLike, refuse_overwrite, written_beside

from .io import DESCRIPTION, Metadata, format_metadata, parse_metadata

FORMATS = {".gif": "gif", ".webp": "webp", ".mp4": "mp4"}
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")  # that are read
MAX_SIDES = {"gif": 65535, "webp": 16383, "mp4": 16384}  # of x264 for MP4
MAX_BLOCKS = 139_264  # macroblocks of 16 x 16 pixels that H.264 decoders must support (level 6.2; ITU-T H.264, A.3)
MAX_FPS = {
    "gif": 50,  # browsers slow down delays below 2/100 s
    "webp": 90,  # and below 11/1000 s
    "mp4": 300,  # H.264, level 6.2
}
MIN_FPS = 0.01  # a frame of a GIF lasts at most 655 seconds
TICKS = {"gif": 100, "webp": 1000}  # per second, the unit of delays
WEBP_QUALITY = 90
MP4_QUALITY = "18"  # constant rate factor of x264: visually lossless
BT709 = 1  # of primaries and transfer; ITU-T H.273, tables 2 and 3

Frame = NDArray[np.uint8]  # [H, W, 3]


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names. Raises RequestError."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise RequestError(f"{path}: suffix {path.suffix!r} is no animation; use {', '.join(FORMATS)}") from None


def check_encoder(path: Path) -> None:
    """Raise PolyinrError if the encoder is not installed, RequestError for an unknown suffix."""
    if format_of(path) != "mp4":
        return
    _require_av(path)
    import av

    if "libx264" not in av.codecs_available:
        raise PolyinrError(f"{path}: this PyAV has no H.264 encoder (libx264); pip install --force-reinstall av")


def _require_av(path: Path) -> None:
    if importlib.util.find_spec("av") is None:
        raise PolyinrError(f"{path}: {path.suffix[1:].upper()} needs PyAV; run pip install av")


def is_video(path: PathLike) -> bool:
    """Say by its suffix whether a file is a video that `read_video` reads."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def read_video(path: PathLike) -> Iterator[tuple[Frame, float]]:
    """Yield the frames [H, W, 3] of a video, and its frames per second, one frame decoded at a time.

    Raises FileError, PolyinrError without PyAV.
    """
    path = Path(path)
    _require_av(path)
    import av

    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise FileError(path, "holds no video")
            fps = float(stream.average_rate or 30)
            for frame in container.decode(stream):
                yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8), fps
    except av.FFmpegError as error:
        raise FileError(path, f"is not a whole video ({error.strerror})") from error


def check_animation(path: Path, *, width: int, height: int, count: int, fps: float) -> None:
    """Raise RequestError if the format cannot hold `count` frames of that size at that rate."""
    format = format_of(path)
    if count < 1:
        raise RequestError("an animation needs at least one frame")
    if not MIN_FPS <= fps <= MAX_FPS[format]:
        raise RequestError(f"{format} supports {MIN_FPS} to {MAX_FPS[format]} frames per second, not {fps:g}")
    if max(width, height) > MAX_SIDES[format]:
        raise RequestError(
            f"{format} holds at most {MAX_SIDES[format]} pixels a side, not {width}x{height}; "
            "choose a smaller size, or write a folder of frames"
        )
    if format == "mp4" and math.ceil(width / 16) * math.ceil(height / 16) > MAX_BLOCKS:
        raise RequestError(
            f"mp4 (H.264) holds at most {MAX_BLOCKS * 256} pixels, not {width}x{height}; "
            "choose a smaller size, or write a folder of frames"
        )


def write_animation(
    path: PathLike,
    frames: Iterable[Frame],
    *,
    count: int,
    fps: float,
    loop: bool = True,
    metadata: Metadata | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `count` frames [H, W, 3] (uint8) in the format of the suffix: .gif, .webp or .mp4.

    - GIF: a palette of 256 colors for each frame without dithering, which is closer to the image and flickers less than
      one palette for all. Delays are rounded to 1/100 s such that the total duration is kept. All frames stay in
      memory, one byte per pixel.
    - WebP: lossy (quality 90). All frames stay in memory, four bytes per pixel.
    - MP4: H.264, yuv420p, BT.709, encoded frame by frame. Odd sizes are padded by repeating the last row or column.

    `loop` repeats GIF and WebP for ever; for MP4 the player decides. The metadata are the comment of a GIF or MP4, the
    EXIF description of a WebP. `progress` is called with 1 per frame. Raises FileError, RequestError, PolyinrError if
    the encoder is missing, and whatever the frames raise; then no file is left.
    """
    path = Path(path)
    check_encoder(path)
    refuse_overwrite(path, overwrite=overwrite)
    coming = iter(frames)
    first = next(coming, None)
    assert first is not None, "no frames"
    check_animation(path, width=first.shape[1], height=first.shape[0], count=count, fps=fps)
    checked = _checked(chain([first], coming), count, first.shape, progress)
    format, text = format_of(path), format_metadata(metadata)
    with written_beside(path, overwrite=overwrite) as draft:
        if format == "mp4":
            _write_mp4(path, draft, checked, fps, text)
        else:
            draft.write_bytes(_encode(format, checked, delays(count, fps, TICKS[format]), loop, text))


def delays(count: int, fps: float, ticks: int) -> list[int]:
    """Return the delay of each frame in ticks, such that rounding errors do not accumulate."""
    return [then - now for now, then in pairwise(round(ticks * index / fps) for index in range(count + 1))]


def _checked(
    frames: Iterable[Frame], count: int, shape: tuple[int, ...], progress: Callable[[int], None] | None
) -> Iterator[Frame]:
    """Yield the frames after checking shape, dtype and count; report progress."""
    index = 0
    for index, frame in enumerate(frames, start=1):
        assert frame.shape == shape, frame.shape
        assert frame.dtype == np.uint8, frame.dtype
        assert index <= count, "more frames than were announced"
        if progress is not None:
            progress(1)
        yield frame
    assert index == count, "fewer frames than were announced"


def _encode(format: str, frames: Iterator[Frame], delays: list[int], loop: bool, text: str) -> memoryview:
    """Encode a GIF or WebP in memory: Pillow does not report a full disk."""
    images = (Image.fromarray(frame) for frame in frames)
    options: dict[str, Any]
    if format == "gif":
        method, dither = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        images = (image.quantize(256, method=method, dither=dither) for image in images)
        options = {"duration": [delay * 1000 // TICKS["gif"] for delay in delays], "optimize": False}
        options |= {"loop": 0} if loop else {}
        options |= {"comment": text} if text else {}
    else:
        exif = Image.Exif()
        if text:
            exif[DESCRIPTION] = text
        options = {"duration": delays, "loop": 0 if loop else 1, "quality": WEBP_QUALITY, "method": 4, "exif": exif}
    buffer = io.BytesIO()
    next(images).save(buffer, format, save_all=True, append_images=images, **options)
    return buffer.getbuffer()


def read_mp4_metadata(path: Path) -> Metadata:
    """Read the metadata of an MP4, empty if there are none. Raises FileError, PolyinrError."""
    check_encoder(path)
    import av

    try:
        with av.open(str(path)) as container:
            return parse_metadata(container.metadata.get("comment", ""))
    except av.FFmpegError as error:
        raise FileError(path, f"a damaged MP4 ({error.strerror})") from error


def _write_mp4(path: Path, draft: Path, frames: Iterator[Frame], fps: float, text: str) -> None:
    """Encode the frames to `draft`, with the index first so that browsers can start at once."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    try:
        with av.open(str(draft), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            if text:
                container.metadata["comment"] = text
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options={"crf": MP4_QUALITY})
            for index, frame in enumerate(frames):
                even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                if index == 0:
                    stream.height, stream.width = even.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.codec_context.colorspace = Colorspace.ITU709
                    stream.codec_context.color_range = ColorRange.MPEG
                    stream.codec_context.color_primaries = BT709
                    stream.codec_context.color_trc = BT709
                image = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                image.pts = index
                image.time_base = 1 / rate
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise FileError(path, f"could not be encoded ({error})") from error
