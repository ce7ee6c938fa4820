"""The render jobs of a gallery: each image file is planned with its command, then rendered once."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyinr_core.errors import LabelError
from polyinr_core.images.grid import Pixels, blank
from polyinr_core.images.io import encode_image
from polyinr_core.latents.latents import draw_labels, parse_label, seeds_text
from polyinr_core.rendering.heatmap import colorize, heatmap
from polyinr_core.rendering.metadata import Metadata, format_options, renderer_metadata
from polyinr_core.rendering.model import Model
from polyinr_core.rendering.render import Renderer
from polyinr_core.rendering.requests import ImageRequests, from_seed_numbers
from polyinr_core.rendering.viewport import Viewport

from .page import GalleryImage
from .plan import GalleryPlan, format_psi

Progress = Callable[[int], None]  # rendered pixels
IMAGES = "images"  # the folder beside the page


@dataclass(frozen=True)
class RenderJob:
    """The pixels that a job evaluates, and the function that writes its files into a folder."""

    pixels: int
    write: Callable[[Path, Progress], None]


class RenderJobs:
    """The render jobs of a model's gallery. An image that two sections show is rendered once.

    Args:
        model: the model.
        plan: what the gallery shows.
        model_option: the value of -m in the commands, None for the default model.
    """

    def __init__(self, model: Model, plan: GalleryPlan, *, model_option: str | None) -> None:
        self.model = model
        self.plan = plan
        self.model_option = model_option
        self.jobs: dict[str, RenderJob] = {}

    @property
    def pixels(self) -> int:
        """The number of pixels that all jobs evaluate."""
        return sum(job.pixels for job in self.jobs.values())

    def write(self, folder: Path, progress: Progress) -> None:
        """Render all images into a folder. Raises PolyinrError, OSError."""
        (folder / IMAGES).mkdir()
        for job in self.jobs.values():
            job.write(folder / IMAGES, progress)

    def renderer(self, resolution: int) -> Renderer:
        """Return the renderer of a square image of the trained window."""
        return Renderer(self.model, Viewport(resolution, resolution))

    def add(self, name: str, renderer: Renderer, requests: ImageRequests, index: int = 0) -> None:
        """Add the job of the file `name`: image `index` of some requests."""

        def write(folder: Path, progress: Progress) -> None:
            latents, metadata = requests[index]
            pixels = blank((renderer.width, renderer.height))
            renderer.fill(pixels, latents, progress=lambda rows: progress(rows * renderer.width))
            write_png(folder / name, pixels, metadata | renderer_metadata(renderer))

        self.jobs[name] = RenderJob(renderer.width * renderer.height, write)

    def add_heatmaps(self, seed: int, names: Sequence[str]) -> None:
        """Add the job of the heat maps of a seed, one file for each level of the plan."""
        plan, renderer = self.plan, self.renderer(self.plan.resolution)
        requests = from_seed_numbers(self.model, [seed], label=plan.label)

        def write(folder: Path, progress: Progress) -> None:
            latents, metadata = requests[0]
            metadata = metadata | renderer_metadata(renderer) | {"command": "heatmap"}
            maps = heatmap(self.model, latents, levels=plan.levels, viewport=renderer.viewport, progress=progress)[0]
            for level, name, heat in zip(plan.levels, names, maps, strict=True):
                words = format_options([], seeds=seed, label=self.label_option(plan.label), levels=level)
                found = {"heat_of_levels": [level], "heat_ranges": [[float(heat.min()), float(heat.max())]]}
                write_png(folder / name, colorize(heat), {**metadata, "words": words, **found})

        self.jobs[names[0]] = RenderJob(2 * renderer.width * renderer.height, write)

    def image(self, name: str, resolution: int, *, alt: str, caption: str, command: str) -> GalleryImage:
        """Return a planned file as the page shows it."""
        return GalleryImage(f"{IMAGES}/{name}", resolution, resolution, alt, caption, command)

    def sample(
        self, seed: int, *, label: int | None = None, psi: float = 1.0, resolution: int | None = None
    ) -> GalleryImage:
        """Plan the image of a seed, by default in the class and the resolution of the plan."""
        renderer = self.renderer(resolution or self.plan.resolution)
        label = self.plan.label if label is None else label
        parts = [f"seed{seed:04d}", *([] if label is None else [f"class{label}"])]
        parts += [] if psi == 1 else [f"psi{format_psi(psi)}"]
        name = "-".join([*parts, f"{renderer.width}px.png"])
        self.add(name, renderer, from_seed_numbers(self.model, [seed], label=label, psi=psi))
        shown = self.class_of(seed) if label is None else label
        caption = f"seed {seed}" if shown is None else f"seed {seed}, {self.class_name(shown)}"
        alt = caption if psi == 1 else f"{caption}, psi {format_psi(psi)}"
        command = self.sample_command([seed], name, label=label, psi=psi, resolution=renderer.width)
        return self.image(name, renderer.width, alt=alt, caption=caption, command=command)

    def sample_command(
        self,
        seeds: Sequence[int],
        output: str,
        *,
        label: int | None = None,
        psi: float = 1.0,
        resolution: int | None = None,
    ) -> str:
        """Return the command that renders seeds, by default in the class and the resolution of the plan."""
        return self.command(
            ["sample"],
            output,
            seeds=seeds_text(seeds),
            label=self.label_option(self.plan.label if label is None else label),
            psi=None if psi == 1 else format_psi(psi),
            res=resolution or self.plan.resolution,
        )

    def command(self, words: list[str], output: str, **options: Any) -> str:
        """Return a polyinr command line."""
        model = [] if self.model_option is None else ["-m", self.model_option]
        return shlex.join(["polyinr", *format_options(words, **options), *model, "-o", output])

    def class_of(self, seed: int) -> int | None:
        """Return the class that a seed draws, None for an unconditional model."""
        classes = self.model.generator.config.classes
        return int(draw_labels([seed], classes)[0]) if classes else None

    def class_name(self, label: int) -> str:
        """Return the name of a class, or "class N"."""
        names = self.model.class_names
        return names[label] if label < len(names) and names[label].strip() else f"class {label}"

    def label_option(self, label: int | None) -> str | None:
        """Return the value of --label: the name of the class, or its number if the name is not unambiguous."""
        if label is None:
            return None
        name, classes = self.class_name(label), self.model.generator.config.classes
        try:
            parsed = parse_label(name, classes=classes, class_names=self.model.class_names)
        except LabelError:
            parsed = None
        return name if parsed == label and name.isprintable() else str(label)


def write_png(path: Path, pixels: Pixels, metadata: Metadata) -> None:
    """Write a PNG file with metadata. Not atomic: the folder of the gallery is renamed when it is complete."""
    path.write_bytes(encode_image(pixels, note=metadata))
