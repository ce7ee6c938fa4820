"""What hangs in a gallery: pictures with their words and the commands that draw them, part by part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture file beside the page: its words for who cannot see it, and the command that draws it."""

    file: str
    width: int
    height: int
    words: str
    caption: str
    command: str


@dataclass(frozen=True)
class Row:
    """Pictures that belong together, by name."""

    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Slide:
    """One stop of a slider: its name, the command that draws all of it, its pictures."""

    name: str
    command: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Mixed:
    """Mixtures of some levels: `rows` hold a source and its mixture with each target."""

    name: str
    command: str
    targets: tuple[Picture, ...]
    rows: tuple[tuple[Picture, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class Part:
    """Pictures and the one command that draws them."""

    command: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of pictures and a command."""

    command: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Exhibits:
    """All parts. What the model cannot show is None or empty."""

    seeds: Part
    classes: Rows | None
    psi: tuple[Slide, ...]
    mixing: tuple[Mixed, ...]
    walk: Part | None
    heat: Rows
    beyond: Part
    sizes: tuple[Slide, ...]
