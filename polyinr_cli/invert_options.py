"""The options that only `polyinr invert` has, and their checks."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import RequestError

from . import console
from .options import parse_res

if TYPE_CHECKING:
    from polyinr_core.inversion.loss import TargetImage
    from polyinr_core.rendering.writers import Output

RANGES = {"steps": (1, 10**6), "restarts": (1, 256), "seed": (0, 2**32 - 1), "tune_steps": (1, 10**6)}


class Space(StrEnum):
    """What is optimized."""

    affine = "affine"
    w = "w"
    z = "z"


class LossName(StrEnum):
    """The loss of inversion."""

    auto = "auto"
    lpips = "lpips"
    lite0 = "lite0"
    pixels = "pixels"


Photos = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Image files of any size and format; - reads one from stdin.")
]
SpaceOption = Annotated[
    Space,
    typer.Option(
        "--space",
        help="Latent space to optimize. affine matches best; w and z stay closer to the training distribution.",
    ),
]
LossOption = Annotated[
    LossName,
    typer.Option(
        "--loss",
        help="Mean squared error of the pixels, alone (pixels) or plus LPIPS-VGG (lpips) or EfficientNet-lite0 "
        "features (lite0). auto: lpips if the VGG16 weights are available, else lite0.",
    ),
]
Vgg16 = Annotated[
    Path | None,
    typer.Option(
        "--vgg16",
        metavar="FILE",
        show_default=False,
        help="VGG16 weights of torchvision, for LPIPS. Default: vgg16-397923af.pth in the cache of torch.hub.",
    ),
]
Steps = Annotated[
    int,
    typer.Option(
        "--steps",
        metavar="N",
        help="Maximum of Adam steps from each starting point, 1-1000000; up to four times as many cheaper L-BFGS "
        "steps follow.",
    ),
]
Restarts = Annotated[
    int,
    typer.Option(
        "--restarts",
        metavar="N",
        help="Number of starting points, 1-256; the best result is kept. The first is the mean image, the others "
        "(in z, all) are the random images nearest to the photo.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Random seed, 0-4294967295.")]
StartLabel = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="CLASS",
        show_default=False,
        help="Class to start from, by name or number. Default: the class whose mean image is nearest to the photo.",
    ),
]
ShorterSide = Annotated[
    int | None,
    typer.Option(
        "--res",
        metavar="N",
        parser=parse_res,
        show_default=False,
        help="Shorter side in pixels at which a photo is inverted; the aspect ratio is kept. Default: that of the "
        "photo, at most 256 or the model's resolution, whichever is larger.",
    ),
]
Tune = Annotated[
    bool,
    typer.Option("--tune", help="Then fine-tune the model around the photos (pivotal tuning) and save a small delta."),
]
TuneRank = Annotated[
    int | None,
    typer.Option(
        "--tune-rank",
        metavar="R",
        show_default=False,
        help="Rank of the weight change of each level, 1 to the number of channels. Default: 16.",
    ),
]
TuneSteps = Annotated[
    int | None,
    typer.Option("--tune-steps", metavar="N", show_default=False, help="Tuning steps, 1-1000000. Default: 200."),
]
DeltaFile = Annotated[
    Path | None,
    typer.Option(
        "--delta",
        metavar="FILE",
        show_default=False,
        help="Output file of the delta. Default: NAME.delta.safetensors beside --output.",
    ),
]
Show = Annotated[
    Path | None,
    typer.Option(
        "--show",
        metavar="IMAGE",
        show_default=False,
        help="Also save a grid with a row for each photo: the photo, its inversion, its inversion after tuning.",
    ),
]


def check_ranges(**values: int) -> None:
    """Raise RequestError for values, named like their options, that are out of range."""
    for name, value in values.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise RequestError(f"--{name.replace('_', '-')} {value} is out of range {low}-{high}")


def delta_path(target: "Output", named: Path | None) -> Path:
    """Return the output file of the delta. Raises RequestError."""
    if named is None:
        if target.stream is not None:
            raise RequestError("the latents go to stdout; name a file for the delta with --delta FILE")
        return target.path.with_name(f"{target.path.stem}.delta.safetensors")
    if named.suffix != ".safetensors":
        raise RequestError(f"--delta {named}: a delta is a .safetensors file")
    if named.absolute() == target.path.absolute():
        raise RequestError("--output and --delta name the same file; use two different files")
    return named


def check_outputs(target: "Output", delta: Path | None, show: Path | None) -> None:
    """Raise RequestError or FileError, before the computation, if an output file cannot be written."""
    from polyinr_core.images.io import format_of
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if show is not None:
        format_of(show)
    for path in (delta, show):
        if path is not None:
            refuse_overwrite(path, overwrite=target.overwrite)
            check_place(path)


def load_targets(photos: list[Path], *, res: int | None, size: str | None, resolution: int) -> "list[TargetImage]":
    """Return the photos at the size at which they are inverted. Raises RequestError, FileError."""
    from polyinr_core.inversion.loss import load_target

    from .parsing import parse_size

    if sum(str(path) == "-" for path in photos) > 1:
        raise RequestError("- is given more than once; stdin holds one photo")
    if res is not None and size is not None:
        raise RequestError("--res and --size exclude each other; give one of the two")
    return [
        load_target(
            console.binary_stdin("image") if str(path) == "-" else path,
            name="stdin" if str(path) == "-" else str(path),
            size=None if size is None else parse_size(size),
            shorter_side=None if res is None else parse_size(str(res))[0],
            resolution=resolution,
        )
        for path in photos
    ]
