"""Annotated options that two or more commands share: one spelling, one meaning, everywhere."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyinr_core.errors import RequestError

MAX_DIGITS = 12
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Precision(StrEnum):
    """The number format in which a command computes."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float64 = "float64"


def _raise_verbosity(verbose: bool) -> bool:
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    return verbose


def _lower_verbosity(quiet: bool) -> bool:
    if quiet:
        logging.getLogger().setLevel(logging.ERROR)
    return quiet


def _checked_bits(bits: int | None) -> int | None:
    if bits not in (None, 8, 16):
        raise RequestError(f"--bits {bits} is neither 8 nor 16")
    return bits


def _checked_tolerance(tolerance: float | None) -> float | None:
    if tolerance is not None and not 0 <= tolerance <= 255:
        raise RequestError(f"--tolerance {tolerance:g} is outside 0-255; 0 draws exactly")
    return tolerance


def parse_duration(text: str) -> float:
    """Read --max-time, 90s, 9m, 24h or 2d, as seconds. Raises RequestError."""
    try:
        seconds = float(text[:-1]) * UNITS[text[-1:]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"--max-time {text!r} is no duration; write 90s, 9m or 24h")
    return seconds


def parse_res(text: str) -> int:
    """Read --res, a number of pixels, in the range that the command has. Raises RequestError."""
    if not text.strip().isdecimal() or len(text) > MAX_DIGITS:
        raise RequestError(
            f"--res {text!r} is no number of pixels; write an integer such as 256 (--size is width x height)"
        )
    return int(text)


_OUTPUT = typer.Option(
    "-o", "--output", metavar="PATH", help="Where the result goes; the suffix says what it is. - is stdout."
)

Output = Annotated[Path, _OUTPUT]
OptionalOutput = Annotated[Path | None, _OUTPUT]
# As typed: a closing slash, which Path drops, says "a folder".
OutputText = Annotated[str, _OUTPUT]
OptionalOutputText = Annotated[str | None, _OUTPUT]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=_lower_verbosity, help="No messages, no progress.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=_raise_verbosity, help="Say more; show tracebacks."),
]

Model = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        metavar="PATH",
        show_default=False,
        help="A model, MODEL+DELTA, or a run folder for its newest. Without it: $POLYINR_MODEL, the newest below "
        "./runs, the bundled one.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="auto: bfloat16 where the hardware multiplies it natively, 8 bits are asked and the model bears it, "
        "else float32.",
    ),
]

Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0-7,12", show_default=False, help="One image a seed.")]
LatentsFile = Annotated[
    Path | None,
    typer.Option("--latents", metavar="FILE", show_default=False, help="Images from a latents file; - is stdin."),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="CLASS",
        show_default=False,
        help="A class by name or number. Without it the seed draws the class as well.",
    ),
]
Psi = Annotated[
    float | None,
    typer.Option(
        "--psi",
        metavar="NUMBER",
        show_default=False,
        help="Truncation: 1 is none (what seeds take), 0 the mean image. Latents stay as kept without it.",
    ),
]
Res = Annotated[
    int | None,
    typer.Option("--res", metavar="N", parser=parse_res, show_default=False, help="Width and height in pixels."),
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="WxH", show_default=False, help="Width x height in pixels.")
]
Grid = Annotated[
    str,
    typer.Option("--grid", metavar="A:B", help="The window, A:B or X0:X1,Y0:Y1; 0:1 is what the model was trained on."),
]
Center = Annotated[
    str | None,
    typer.Option("--center", metavar="X,Y", show_default=False, help="The window's middle, with --zoom."),
]
Zoom = Annotated[
    float | None,
    typer.Option("--zoom", metavar="Z", show_default=False, help="The shorter side spans 1/Z of the plane."),
]
Rotate = Annotated[
    float,
    typer.Option("--rotate", metavar="DEGREES", help="Turn it clockwise about the window's middle."),
]
Shear = Annotated[
    str | None,
    typer.Option("--shear", metavar="X[,Y]", show_default=False, help="Shear it about the window's middle."),
]
Transform = Annotated[
    str | None,
    typer.Option(
        "--transform",
        metavar="A,...,I",
        show_default=False,
        help="A 3 x 3 matrix, row by row, from the window's points (x, y, 1) to those that are drawn.",
    ),
]
Warp = Annotated[
    str | None,
    typer.Option(
        "--warp",
        metavar="NAME|FILE",
        show_default=False,
        help="fisheye, polar, or a map: a .npy file [H, W, 2] of the point x, y that each pixel shows.",
    ),
]
Supersample = Annotated[
    int, typer.Option("--supersample", metavar="K", help="Average K x K points to a pixel, against jagged edges.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="STEPS",
        callback=_checked_tolerance,
        show_default=False,
        help="Draw coarse to fine, off by so many steps of 255 at most on 99.9 % of the pixels. 0: exactly.",
    ),
]
_BITS = typer.Option(
    "--bits", metavar="8|16", callback=_checked_bits, help="Bits a color, in PNG and TIFF; 8 without it."
)
Bits = Annotated[int, _BITS]
OptionalBits = Annotated[int | None, _BITS]
Force = Annotated[bool, typer.Option("--force", help="Take latents of another model, where their shapes fit.")]
