"""The metadata that a rendered image carries, and the command line that renders it again."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.runtime.atomic_io import PathLike

if TYPE_CHECKING:
    from polyinr_core.latents.latents import Latents

    from .model import Model
    from .render import Renderer
    from .viewport import Viewport

Metadata = dict[str, Any]
DAMAGED = "its metadata is damaged, so it does not say how to render it again"


@cache
def version() -> str:
    """Return the installed version, "unknown" in a bare source tree."""
    from importlib import metadata

    try:
        return metadata.version("polyinr")
    except metadata.PackageNotFoundError:
        return "unknown"


def model_metadata(model: "Model") -> Metadata:
    """Return what the metadata of every image begins with: the version, the model, its dtype and device.

    The model is named by its hash and by its path: from the current folder if it lies below, else from the home
    folder, so that a published image does not say who rendered it.
    """
    from polyinr_core.checkpoints.locate import model_argument

    named = "" if model.path is None else model_argument(model.path)
    return {
        "polyinr": version(),
        "model": model.sha256,
        "model_file": named.replace(f"{Path.home()}/", "~/"),
        "precision": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def class_metadata(latents: "Latents", class_names: Sequence[str]) -> Metadata:
    """Return the class of an image, by index and, where it has one, by name."""
    if latents.label is None:
        return {}
    index = int(latents.label[0])
    return {"label": index, "class": class_names[index]} if index < len(class_names) else {"label": index}


def viewport_metadata(viewport: "Viewport", *, warp: str | None = None) -> Metadata:
    """Return the size, window, homography, warp and supersampling; `warp` names the file of a coordinate map."""
    from .viewport import IDENTITY

    metadata: Metadata = {"size": [viewport.width, viewport.height], "window": list(viewport.window)}
    if viewport.matrix != IDENTITY:
        metadata["transform"] = [number for row in viewport.matrix for number in row]
    if warp or viewport.warp:
        metadata["warp"] = warp or viewport.warp
    if viewport.supersample > 1:
        metadata["supersample"] = viewport.supersample
    return metadata


def renderer_metadata(renderer: "Renderer", *, warp: str | None = None) -> Metadata:
    """Return the viewport, the bits if they are not 8, and the tolerance if there is one."""
    metadata = viewport_metadata(renderer.viewport, warp=warp)
    if renderer.bits != 8:
        metadata["bits"] = renderer.bits
    if renderer.tolerance:
        metadata["tolerance"] = renderer.tolerance
    return metadata


def grid_metadata(images: Sequence[Metadata]) -> Metadata:
    """Return the metadata of a grid of images, from that of the images."""
    first = images[0]
    if "words" in first:  # of the command that renders all of them again
        return {key: value for key, value in first.items() if all(image.get(key) == value for image in images)}
    metadata = {key: value for key, value in first.items() if key not in ("seed", "label", "class", "index")}
    if "latents" not in first:
        metadata["seeds"] = [image["seed"] for image in images]
    if "label" in first:
        metadata["labels"] = [image["label"] for image in images]
    return metadata


def read_metadata(image: PathLike) -> Metadata:
    """Return the metadata of a PNG, TIFF, MP4 or DeepZoom image, empty if it has none. Raises FileError."""
    from polyinr_core.images import animation, io, tiled

    path = Path(image)
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return animation.read_mp4_metadata(path)
    return tiled.read_deep_zoom_metadata(path) if suffix == tiled.SUFFIX else io.read_metadata(path)


def carries(image: PathLike, metadata: Metadata) -> bool:
    """Return whether an image file has exactly this metadata."""
    from polyinr_core.runtime.strict_json import plain_json

    try:
        return read_metadata(image) == plain_json(metadata)
    except PolyinrError:
        return False


def options_of(metadata: Metadata) -> dict[str, str]:
    """Return the options, by name without dashes, that render an image again with its own model.

    Damaged metadata is a KeyError, TypeError or ValueError.
    """
    from polyinr_core.latents.latents import seeds_text

    options = {}
    if "words" in metadata:  # they name the images
        pass
    elif "latents" in metadata:
        options["latents"] = str(metadata["latents"])
    else:
        options["seeds"] = seeds_text(metadata["seeds"] if "seeds" in metadata else [metadata["seed"]])
        labels = metadata["labels"] if "labels" in metadata else [metadata["label"]] if "label" in metadata else []
        if len(set(labels)) == 1:
            options["label"] = str(labels[0])
    if "psi" in metadata and "words" not in metadata:
        options["psi"] = repr(float(metadata["psi"]))
    if "size" in metadata or "words" not in metadata:  # not every command has a window
        width, height = metadata["size"]
        options["size"] = f"{width}x{height}"
        options["grid"] = format_window(tuple(metadata["window"]))
    if "transform" in metadata:
        options["transform"] = ",".join(repr(float(number)) for number in metadata["transform"])
    if "warp" in metadata:
        options["warp"] = str(metadata["warp"])
    if "supersample" in metadata:
        options["supersample"] = str(int(metadata["supersample"]))
    if "tolerance" in metadata:
        tolerance = float(metadata["tolerance"])
        if not 0 <= tolerance <= 255:
            raise ValueError(tolerance)
        options["tolerance"] = repr(tolerance)
    if "bits" in metadata:
        options["bits"] = str(int(metadata["bits"]))
    return options


def format_window(window: tuple[float, float, float, float]) -> str:
    """Return a window as --grid takes it, exactly: A:B or X0:X1,Y0:Y1."""
    x0, y0, x1, y1 = window
    across, down = f"{x0!r}:{x1!r}", f"{y0!r}:{y1!r}"
    return across if across == down else f"{across},{down}"


def format_options(words: Sequence[str], **options: object) -> list[str]:
    """Return words with options after them: None and False are left out, True is a flag, a list is repeated."""
    formatted = list(words)
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            formatted.append(option)
        elif isinstance(value, list | tuple):
            formatted += [part for one in value for part in (option, str(one))]
        elif value is not None and value is not False:
            formatted += [option, str(value)]
    return formatted


def command_of(metadata: Metadata, *, output: str) -> str:
    """Return the command line that renders an image again, with the model as it was named.

    Damaged metadata is a KeyError or TypeError.
    """
    words = ["polyinr", str(metadata.get("command", "sample")), *map(str, metadata.get("words", ()))]
    for name, value in options_of(metadata).items():
        words += [f"--{name}", value]
    words += ["--precision", str(metadata["precision"]), "--device", str(metadata["device"])]
    return shlex.join([*words, "-m", str(metadata["model_file"]), "-o", output])


@dataclass(frozen=True)
class StoredSettings:
    """How an image was rendered: its model's hash, and its options as they would be typed, without dashes."""

    image: Path
    model: str
    precision: str
    options: dict[str, str]
    index: int | None = None  # in a latents file of several images

    @property
    def psi(self) -> float | None:
        return float(self.options["psi"]) if "psi" in self.options else None

    @property
    def bits(self) -> int:
        return int(self.options.get("bits", 8))

    @property
    def tolerance(self) -> float:
        return float(self.options.get("tolerance", 0))

    @property
    def latents(self) -> Path | None:
        """The latents file: beside the image, or as it is named. Raises FileError."""
        from polyinr_core.runtime.strict_json import to_unicode

        if "latents" not in self.options:
            return None
        name = self.options["latents"]
        for found in (self.image.parent / name, Path(name)):
            if found.is_file():
                return found
        for found in self.image.parent.iterdir():  # a name that is not UTF-8 is escaped in the metadata
            if to_unicode(found.name) == Path(name).name and found.is_file():
                return found
        raise FileError(self.image, f"was rendered from {name}, which is not beside it; name it with --latents")

    def check_model(self, sha256: str) -> None:
        """Raise FileError if the image is of another model."""
        if self.model != sha256:
            raise FileError(self.image, "was rendered with another model; name that one with -m, or give --force")


def read_settings(image: PathLike, *, viewport_only: bool = False) -> StoredSettings:
    """Read the settings of an image, to render it again or only to take its viewport. Raises FileError."""
    path, metadata = Path(image), read_metadata(image)
    if not metadata:
        raise FileError(path, "carries no metadata; JPEG and WebP files have none")
    if "words" in metadata and not viewport_only:
        raise FileError(
            path, "is the result of another command (`polyinr info` prints it); with --seeds its viewport is used"
        )
    if "words" in metadata and "size" not in metadata:
        raise FileError(path, "has no viewport; name an image that has one")
    try:
        options = options_of(metadata)
        if options.get("bits", "8") not in ("8", "16"):
            raise ValueError(options["bits"])
        precision = str(metadata["precision"])
        if precision not in ("float32", "bfloat16", "float64", "auto"):
            raise ValueError(precision)
        index = int(metadata["index"]) if metadata.get("count", 1) != 1 and "index" in metadata else None
        return StoredSettings(path, str(metadata["model"]), precision, options, index)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(path, DAMAGED) from error


def describe_image(image: PathLike) -> Metadata:
    """Return an image's metadata, with the command that renders it again from the current folder. Raises FileError."""
    from polyinr_core.checkpoints.locate import find_by_hash

    path, metadata = Path(image), read_metadata(image)
    if not metadata:
        return {"kind": "image", "metadata": "none; JPEG and WebP files have none, nor have other programs' images"}
    again = f"{path.stem}-again"
    single_of_many = "folder" in metadata or (metadata.get("count", 1) != 1 and "index" in metadata)
    try:
        sha256, named = str(metadata["model"]), str(metadata["model_file"])
        found = find_by_hash(sha256, named=named, beside=path)
        located = metadata | ({"model_file": found} if found else {})
        for name in ("latents", "warp"):
            if name in metadata and not Path(metadata[name]).exists() and (path.parent / metadata[name]).is_file():
                located[name] = str(path.parent / metadata[name])
        command = command_of(located, output=f"{again}/" if single_of_many else f"{again}{path.suffix}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(path, DAMAGED) from error
    shown = {key: value for key, value in metadata.items() if key not in ("command", "words")}
    missing = f"{named or 'the model'} is not here (SHA-256 {sha256}); name that model with -m in the command"
    return {"kind": "image", **shown, "command": command, **({} if found else {"note": missing})}
