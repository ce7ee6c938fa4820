"""`--like IMAGE`: what an image's note says of how it was drawn, for the options that are not given."""

from dataclasses import dataclass, replace
from pathlib import Path

from polyinr_core.errors import FileError
from polyinr_core.runtime.strict_json import to_unicode

from .drawing import Painter
from .named import Images
from .notes import note_of, options_of
from .options import Precision
from .window import Window, parse_window_options


@dataclass(frozen=True)
class Likeness:
    """An image drawn before: its model's hash, and its options as they would be typed, without dashes."""

    image: Path
    model: str
    precision: Precision
    options: dict[str, str]
    index: int | None = None  # which of a latents file it is, if one of several

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
        """The latents file it was drawn from: beside the image, or as it is named. Raises FileError."""
        if "latents" not in self.options:
            return None
        name = self.options["latents"]
        for found in (self.image.parent / name, Path(name)):
            if found.is_file():
                return found
        for found in self.image.parent.iterdir():  # the note has a name that is not UTF-8 escaped
            if to_unicode(found.name) == Path(name).name and found.is_file():
                return found
        raise FileError(self.image, f"was drawn from {name}, which is not beside it; name it with --latents")

    def check_model(self, painter: Painter) -> None:
        """Raise FileError if the image is of another model."""
        if self.model != painter.checkpoint.sha256:
            raise FileError(self.image, "was drawn with another model; name that one with -m, or give --force")

    def only(self, images: Images) -> Images:
        """Return the one of a latents file's images that it is, all if it shows them all."""
        index = self.index
        if index is None or index >= len(images):
            return images
        return Images(
            images.names[index : index + 1],
            lambda _: images.latents(index),
            lambda latents, _: images.note(latents, index),
        )

    def window(self, asked: Window, *, res: int | None) -> Window:
        """Complete a window by the image's own; `res` is its new longer side. Raises RequestError."""
        own = {name: self.options[name] for name in ("size", "grid", "transform", "warp") if name in self.options}
        supersample = int(self.options.get("supersample", 1))
        drawn = parse_window_options(**own, supersample=supersample)  # type: ignore[arg-type]
        assert drawn.sides is not None
        sides = asked.sides or drawn.sides
        if res is not None and asked.sides is not None:
            scale = asked.sides[0] / max(drawn.sides)
            sides = (max(1, round(drawn.sides[0] * scale)), max(1, round(drawn.sides[1] * scale)))
        supersample = max(asked.supersample, supersample)
        if replace(asked, sides=None, supersample=1) == Window():  # no other window is asked for
            asked = drawn
        return replace(asked, sides=sides, supersample=supersample)


def likeness_of(image: Path, *, for_others: bool) -> Likeness:
    """Read an image's note, to draw it again or to draw others in its window. Raises FileError."""
    note = note_of(image)
    if not note:
        raise FileError(image, "carries no note of how it was drawn; JPEG and WebP keep none")
    if "words" in note and not for_others:
        raise FileError(
            image,
            "is a sheet with a command of its own (`polyinr info` prints it), --seeds draws others in its window",
        )
    if "words" in note and "size" not in note:
        raise FileError(image, "shows no window; take the note of an image that does")
    try:
        options = options_of(note)
        if options.get("bits", "8") not in ("8", "16"):
            raise ValueError(options["bits"])
        index = int(note["index"]) if note.get("count", 1) != 1 and "index" in note else None
        precision = Precision(note["precision"])
        return Likeness(image, str(note["model"]), precision, options, index)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(image, "its note is damaged, so it does not say how to draw it again") from error
