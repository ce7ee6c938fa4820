"""Where a gallery's images hang: each named and planned first, with its command, then drawn, each once."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyinr_core.errors import LabelError
from polyinr_core.gallery.page import GalleryImage, fits_in_page, model_in_page
from polyinr_core.gallery.plan import Plan, psi_text
from polyinr_core.images.grid import blank
from polyinr_core.images.io import encode_image
from polyinr_core.images.quantize import Pixels
from polyinr_core.latents.latents import draw_labels
from polyinr_core.latents.naming import parse_label, seeds_text
from polyinr_core.rendering.viewport import Viewport

from .drawing import Drawing, Painter
from .named import Images, by_seed
from .notes import Note, again
from .outputs import maps_of
from .window import Window

Done = Callable[[int], None]
FOLDER = "images"
WINDOW = Window()


@dataclass(frozen=True)
class Job:
    """The drawing of one file or several: the points that it computes, and what writes it into a folder."""

    points: int
    write: Callable[[Path, Done], None]


class Hall:
    """A model, the plan of its gallery, and the jobs that draw it. An image that two parts show is one job.

    `model` is the model's name in commands, None where they find it without.
    """

    def __init__(self, painter: Painter, plan: Plan, *, model: str | None) -> None:
        self.painter = painter
        self.plan = plan
        self.model = model
        self.jobs: dict[str, Job] = {}

    @property
    def points(self) -> int:
        """How many points are computed in all."""
        return sum(job.points for job in self.jobs.values())

    def draw(self, folder: Path, done: Done) -> None:
        """Draw all that was planned into a folder; `done` is told of points. Raises PolyinrError, OSError."""
        (folder / FOLDER).mkdir()
        for job in self.jobs.values():
            job.write(folder / FOLDER, done)

    def network(self) -> dict[str, Any] | None:
        """Return what the page needs to draw by itself, None if the model is too large for that."""
        generator = self.painter.checkpoint.generator
        if not fits_in_page(generator):
            return None
        images = by_seed(seeds_text(self.plan.in_page), self.painter, label=self.plan.label)
        return model_in_page(generator, [images.latents(index) for index in range(len(images))])

    def drawing(self, side: int) -> Drawing:
        """Return how images of that size are drawn."""
        return Drawing(self.painter, Viewport(side, side))

    def add(self, name: str, drawing: Drawing, images: Images, index: int = 0) -> None:
        """Plan the file `name`: image `index` of some, with its note."""

        def write(folder: Path, done: Done) -> None:
            latents = images.latents(index)
            pixels = blank((drawing.width, drawing.height))
            drawing.fill(pixels, maps_of(latents), progress=lambda rows: done(rows * drawing.width))
            self.write(folder / name, pixels, images.note(latents, index))

        self.jobs[name] = Job(drawing.width * drawing.height, write)

    def write(self, path: Path, pixels: Pixels, note: Note) -> None:
        """Write a PNG with its note; the folder around it is renamed when all is there."""
        path.write_bytes(encode_image(pixels, note=note))

    def image(self, name: str, side: int, *, words: str, caption: str, command: str) -> GalleryImage:
        """Return a planned file as the page shows it."""
        return GalleryImage(f"{FOLDER}/{name}", side, side, words, caption, command)

    def sample(self, seed: int, *, label: int | None = None, psi: float = 1.0, side: int | None = None) -> GalleryImage:
        """Plan the image of a seed, in the gallery's class and size if none are given."""
        drawing = self.drawing(self.plan.side if side is None else side)
        label = self.plan.label if label is None else label
        own = by_seed(str(seed), self.painter, label=label, psi=psi)
        parts = [f"seed{seed:04d}", *([] if label is None else [f"class{label}"])]
        parts += [] if psi == 1 else [f"psi{psi_text(psi)}"]
        name = "-".join([*parts, f"{drawing.width}px.png"])
        self.add(name, drawing, own.with_note(drawing.note(WINDOW)))
        drawn = self.class_of(seed) if label is None else label
        caption = f"seed {seed}" if drawn is None else f"seed {seed}, {self.class_name(drawn)}"
        words = caption if psi == 1 else f"{caption}, psi {psi_text(psi)}"
        command = self.sampling([seed], name, label=label, psi=psi, side=drawing.width)
        return self.image(name, drawing.width, words=words, caption=caption, command=command)

    def sampling(
        self,
        seeds: Sequence[int],
        output: str,
        *,
        label: int | None = None,
        psi: float = 1.0,
        side: int | None = None,
    ) -> str:
        """Return the command that draws seeds, in the gallery's class and size if none are given."""
        return self.command(
            ["sample"],
            output,
            seeds=seeds_text(seeds),
            label=self.label_text(self.plan.label if label is None else label),
            psi=None if psi == 1 else psi_text(psi),
            res=self.plan.side if side is None else side,
        )

    def command(self, words: list[str], output: str, **options: Any) -> str:
        """Return a command line of ours."""
        named = [] if self.model is None else ["-m", self.model]
        return shlex.join(["polyinr", *again(words, **options), *named, "-o", output])

    def class_of(self, seed: int) -> int | None:
        """Return the class that a seed draws, None of a model without."""
        classes = self.painter.checkpoint.generator.config.classes
        return int(draw_labels([seed], classes)[0]) if classes else None

    def class_name(self, label: int) -> str:
        """Return how a class is called."""
        names = self.painter.checkpoint.class_names
        return names[label] if label < len(names) and names[label].strip() else f"class {label}"

    def label_text(self, label: int | None) -> str | None:
        """Return how --label names a class: by its name, by its number where the name says another or none."""
        if label is None:
            return None
        name, classes = self.class_name(label), self.painter.checkpoint.generator.config.classes
        try:
            found = parse_label(name, classes=classes, class_names=self.painter.checkpoint.class_names)
        except LabelError:
            found = None
        return name if found == label and name.isprintable() else str(label)
