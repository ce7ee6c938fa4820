"""Options that several commands share, as annotated types, and groups of options."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from polyinr_core.errors import RequestError

MAX_DIGITS = 12
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Precision(StrEnum):
    """The dtype in which a command computes."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float64 = "float64"


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command's parameter be a group of options: a dataclass, whose fields Typer sees in its place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        own = get_type_hints(groups[name], include_extras=True)
        parameters += [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=own[field.name])
            for field in fields(groups[name])
        ]

    def grouped(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    grouped.__doc__, grouped.__name__ = command.__doc__, command.__name__
    grouped.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return grouped


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
        raise RequestError(f"--tolerance {tolerance:g} is outside 0-255; 0 renders exactly")
    return tolerance


def check_paths(*paths: Path | None) -> None:
    """Raise FileError for a path that does not exist, before PyTorch is imported to read it.

    Patterns of shards, MODEL+DELTA, names such as hf:owner/name and - are left to their readers.
    """
    from polyinr_core.runtime.atomic_io import explain

    for path in paths:
        if path is None or str(path) in ("-", "bundled") or set(str(path)) & set("*?[{+:\0"):
            continue
        try:
            path.stat()
        except OSError as error:
            raise explain(path, error) from error


def parse_duration(text: str) -> float:
    """Parse --max-time, such as 90s, 9m, 24h or 2d, as seconds. Raises RequestError."""
    try:
        seconds = float(text[:-1]) * UNITS[text[-1:]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"--max-time {text!r} is not a duration; write 90s, 9m or 24h")
    return seconds


def parse_res(text: str) -> int:
    """Parse --res, a number of pixels. Raises RequestError."""
    if not text.strip().isdecimal() or len(text) > MAX_DIGITS:
        raise RequestError(
            f"--res {text[:40]!r} is not a number of pixels; write an integer such as 256 (--size takes width x height)"
        )
    return int(text)


def refuse_options(given: Mapping[str, object], *, beside: str) -> None:
    """Raise RequestError for an option, such as --count, that is given and does not apply."""
    for name, value in given.items():
        if value is not None and value != []:
            raise RequestError(f"{name} does not apply to {beside}; leave it out")


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """Read NAME=FILE. Raises RequestError."""
    files = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise RequestError(f"--weights {text!r} is not NAME=FILE, as deit-base=deit.safetensors")
        if name in files:
            raise RequestError(f"--weights names two files for {name}; give one")
        files[name] = Path(file)
    return files


_OUTPUT = typer.Option("-o", "--output", metavar="PATH", help="Output path; its suffix sets the format. - is stdout.")

Output = Annotated[Path, _OUTPUT]
OptionalOutput = Annotated[Path | None, _OUTPUT]
# As typed: a trailing slash, which Path drops, means a folder.
OutputText = Annotated[str, _OUTPUT]
_FORMAT = typer.Option(
    "--format", help="Format of -o -: a PNG, an array, latents, or raw pixels (3 bytes each, image after image)."
)
StdoutFormat = Annotated[Literal["png", "npy", "latents", "rgb24"] | None, _FORMAT]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output if it exists, which is otherwise an error.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=_lower_verbosity, help="Print errors only.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=_raise_verbosity, help="Print more messages, and tracebacks of errors."),
]

Model = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        metavar="PATH",
        help="Checkpoint, MODEL+DELTA, run folder (its newest checkpoint), or hf:OWNER/NAME[@REVISION] on the hub. "
        "Default: $POLYINR_MODEL, else the newest checkpoint below ./runs, else the bundled model.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto (a CUDA GPU if available), cpu, cuda, cuda:N or mps.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="auto: bfloat16 if the hardware supports it, the output is 8-bit and the result is visually identical; "
        "otherwise float32.",
    ),
]

Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0-7,12", help="Seeds; one image each.")]
LatentsFile = Annotated[
    Path | None, typer.Option("--latents", metavar="FILE", help="Latents file to render; - is stdin.")
]
Label = Annotated[
    str | None, typer.Option("--label", metavar="CLASS", help="Class, by name or number. Default: drawn from the seed.")
]
Psi = Annotated[
    float | None,
    typer.Option(
        "--psi",
        metavar="NUMBER",
        help="Truncation psi: 1 is none (the default for seeds), 0 the mean image. Default for latents: as stored.",
    ),
]
Res = Annotated[int | None, typer.Option("--res", metavar="N", parser=parse_res, help="Width and height in pixels.")]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="WxH", help="Width x height in pixels; another shape than a square shows more of the plane."
    ),
]
Grid = Annotated[
    str, typer.Option("--grid", metavar="A:B", help="Window, A:B or X0:X1,Y0:Y1; 0:1 is the trained square.")
]
OptionalGrid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="A:B",
        help="Window, A:B or X0:X1,Y0:Y1; 0:1 is the trained square. Default: 0:1 along the shorter side.",
    ),
]
Stretch = Annotated[
    bool, typer.Option("--stretch", help="Stretch the trained square to --size, rather than show more beside it.")
]
Supersample = Annotated[
    int, typer.Option("--supersample", metavar="K", help="Average K x K points per pixel, against aliasing; 1 to 64.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="STEPS",
        callback=_checked_tolerance,
        help="Adaptive rendering: error of at most STEPS/255 on 99.9 % of the pixels. 0 is exact.",
    ),
]
_BITS = typer.Option(
    "--bits", metavar="8|16", callback=_checked_bits, help="Bits per color channel, in PNG and TIFF. Default: 8."
)
Bits = Annotated[int, _BITS]
OptionalBits = Annotated[int | None, _BITS]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Use latents of another model if their shapes fit; the images differ. Replaces no file."
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", metavar="NAME=FILE", help="Read a pretrained network's weights from FILE. Can be repeated."
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Download pretrained weights that are not on this machine.")]
