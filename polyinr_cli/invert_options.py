"""The options that `polyinr invert` alone has, read and checked."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import RequestError

from . import console as streams
from .options import parse_res
from .targets import Kind, Target

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.inversion.target import Photo


LIMITS = {"steps": (1, 10**6), "restarts": (1, 256), "seed": (0, 2**32 - 1), "tune_steps": (1, 10**6)}


class Space(StrEnum):
    """What is searched."""

    affine = "affine"
    w = "w"
    z = "z"


class ObjectiveName(StrEnum):
    """What a drawn image is judged by."""

    auto = "auto"
    lpips = "lpips"
    lite0 = "lite0"
    pixels = "pixels"


Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Images of any kind and size; - is stdin.")]
SpaceOption = Annotated[
    Space,
    typer.Option(
        "--space",
        help="What is searched: the affine maps come nearest, w and z stay nearer to what the model knows.",
    ),
]
ObjectiveOption = Annotated[
    ObjectiveName,
    typer.Option(
        "--objective",
        help="Pixels with LPIPS-VGG or EfficientNet-lite0 features, or alone. auto: LPIPS where VGG16 is at "
        "hand, else lite0.",
    ),
]
Vgg16 = Annotated[
    Path | None,
    typer.Option(
        "--vgg16",
        metavar="FILE",
        show_default=False,
        help="torchvision's VGG16, for LPIPS. Without it: vgg16-397923af.pth in torch.hub's cache.",
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="N", help="Steps from each start; a polish of cheaper ones follows.")
]
Restarts = Annotated[
    int,
    typer.Option(
        "--restarts",
        metavar="N",
        help="Starts, of which the best is kept: the mean image (in z a random one), then the random "
        "images nearest to the photo.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of all that is random.")]
StartLabel = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="CLASS",
        show_default=False,
        help="The class to start from, by name or number. Without it: that whose mean image is nearest.",
    ),
]
ShorterSide = Annotated[
    int | None,
    typer.Option(
        "--res",
        metavar="N",
        parser=parse_res,
        show_default=False,
        help="Shorter side at which a photo is matched, its shape kept. Without it: its own, at most 256 or "
        "the model's resolution if that is more.",
    ),
]
Tune = Annotated[bool, typer.Option("--tune", help="Then tune the model around the photos, into a small delta file.")]
TuneRank = Annotated[
    int | None,
    typer.Option("--tune-rank", metavar="R", show_default=False, help="Rank of each level's change; 16."),
]
TuneSteps = Annotated[
    int | None,
    typer.Option("--tune-steps", metavar="N", show_default=False, help="Steps of tuning; 200."),
]
DeltaFile = Annotated[
    Path | None,
    typer.Option(
        "--delta",
        metavar="FILE",
        show_default=False,
        help="Where the delta goes. Without it: beside -o, as NAME.delta.safetensors.",
    ),
]
Show = Annotated[
    Path | None,
    typer.Option(
        "--show",
        metavar="IMAGE",
        show_default=False,
        help="Also a sheet, a row for each photo: the photo, what was found, what was tuned.",
    ),
]


def check_counts(**counts: int) -> None:
    """Raise RequestError for counts, named as their options, that make no sense."""
    for name, value in counts.items():
        least, most = LIMITS[name]
        if not least <= value <= most:
            raise RequestError(f"--{name.replace('_', '-')} {value} is outside {least}-{most}")


def delta_path(target: Target, named: Path | None) -> Path:
    """Return where the delta goes. Raises RequestError."""
    if named is None:
        if target.kind is Kind.stdout:
            raise RequestError("latents go to stdout; say where the delta goes with --delta FILE")
        return target.path.with_name(f"{target.path.stem}.delta.safetensors")
    if named.suffix != ".safetensors":
        raise RequestError(f"--delta {named}: a delta is a .safetensors file")
    return named


def check_outputs(target: Target, delta: Path | None, show: Path | None) -> None:
    """Raise RequestError or FileError unless all that is to be written can be, each to a place of its own."""
    from polyinr_core.images.io import format_of
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if delta is not None and delta.absolute() == target.path.absolute():
        raise RequestError("-o and --delta name the same file; they need one each")
    if show is not None:
        format_of(show)
    for path in (delta, show):
        if path is not None:
            refuse_overwrite(path, overwrite=target.overwrite)
            check_place(path)


def photos_named(
    photos: list[Path], *, res: int | None, size: str | None, grid: str, checkpoint: "Checkpoint"
) -> "tuple[tuple[float, float, float, float], list[Photo]]":
    """Return the window and the photos at their sizes. Raises RequestError, FileError."""
    from polyinr_core.images.sizes import parse_size, parse_window
    from polyinr_core.inversion.target import photo_name, read_photo
    from polyinr_core.runtime.atomic_io import read_bytes

    if sum(str(path) == "-" for path in photos) > 1:
        raise RequestError("stdin holds one photo; - can be named once")
    if res is not None and size is not None:
        raise RequestError("--res and --size both say the size; give one of the two")
    window = parse_window(grid)
    sides = None if size is None else parse_size(size)
    shorter = None if res is None else parse_size(str(res))[0]
    images = [
        read_photo(
            streams.binary_stdin("image") if str(path) == "-" else read_bytes(path),
            name=photo_name(path),
            size=sides,
            shorter=shorter,
            resolution=checkpoint.resolution,
        )
        for path in photos
    ]
    return window, images
