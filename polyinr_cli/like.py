"""--like IMAGE: the settings that an image's metadata holds, for the options that are not given."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError

from .options import Precision
from .parsing import ViewportOptions, parse_viewport_options

if TYPE_CHECKING:
    from polyinr_core.rendering.model import Model
    from polyinr_core.rendering.requests import ImageRequests


@dataclass(frozen=True)
class ImageSettings:
    """How an image was rendered: its model's hash, and its options as they would be typed, without dashes."""

    image: Path
    model: str
    precision: Precision
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

    def check_model(self, model: "Model") -> None:
        """Raise FileError if the image is of another model."""
        if self.model != model.sha256:
            raise FileError(self.image, "was rendered with another model; name that one with -m, or give --force")

    def select(self, images: "ImageRequests") -> "ImageRequests":
        """Return the one image of a latents file that it shows, or all."""
        return images if self.index is None or self.index >= len(images) else images.select([self.index])

    def complete(self, given: ViewportOptions, *, res: int | None) -> ViewportOptions:
        """Complete viewport options by the image's own; `res` is its new longer side. Raises RequestError."""
        stored = {name: self.options[name] for name in ("size", "grid", "transform", "warp") if name in self.options}
        supersample = int(self.options.get("supersample", 1))
        own = parse_viewport_options(**stored, supersample=supersample)  # type: ignore[arg-type]
        assert own.size is not None
        size = given.size or own.size
        if res is not None and given.size is not None:
            scale = given.size[0] / max(own.size)
            size = (max(1, round(own.size[0] * scale)), max(1, round(own.size[1] * scale)))
        supersample = max(given.supersample, supersample)
        if replace(given, size=None, supersample=1) == ViewportOptions():  # no other window is given
            given = own
        return replace(given, size=size, supersample=supersample)


def read_settings(image: Path, *, viewport_only: bool) -> ImageSettings:
    """Read the settings of an image, to render it again or only to take its viewport. Raises FileError."""
    from polyinr_core.rendering.metadata import options_of, read_metadata

    metadata = read_metadata(image)
    if not metadata:
        raise FileError(image, "carries no metadata; JPEG and WebP files have none")
    if "words" in metadata and not viewport_only:
        raise FileError(
            image,
            "is the result of another command (`polyinr info` prints it); with --seeds its viewport is used",
        )
    if "words" in metadata and "size" not in metadata:
        raise FileError(image, "has no viewport; name an image that has one")
    try:
        options = options_of(metadata)
        if options.get("bits", "8") not in ("8", "16"):
            raise ValueError(options["bits"])
        index = int(metadata["index"]) if metadata.get("count", 1) != 1 and "index" in metadata else None
        return ImageSettings(image, str(metadata["model"]), Precision(metadata["precision"]), options, index)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(image, "its metadata is damaged, so it does not say how to render it again") from error
