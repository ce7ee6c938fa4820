"""The sections of a gallery: which images each shows, planned with their captions and commands, rendered once."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyinr_core.errors import LabelError
from polyinr_core.images.grid import Pixels, blank
from polyinr_core.images.io import encode_image
from polyinr_core.latents.interpolation import LatentPath
from polyinr_core.latents.latents import draw_labels, parse_label, seeds_text
from polyinr_core.models.coordinates import UNIT
from polyinr_core.rendering.edits import Mixtures, frame_requests
from polyinr_core.rendering.heatmap import colorize, heatmap
from polyinr_core.rendering.metadata import Metadata, format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.model import Model
from polyinr_core.rendering.render import Renderer
from polyinr_core.rendering.requests import ImageRequests, from_seed_numbers
from polyinr_core.rendering.viewport import Viewport

from .page import GalleryImage, GallerySections, ImageStrip, ImageTable
from .plan import EXTRAPOLATION_SEEDS, HEATMAP_SEEDS, MARGIN, PSI_SEEDS, SIZES, GalleryPlan, format_psi

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
        model_option: the value of -m in the commands.
    """

    def __init__(self, model: Model, plan: GalleryPlan, *, model_option: str) -> None:
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
        caption = self.caption(seed, shown) if psi == 1 else f"{self.caption(seed, shown)}, psi {format_psi(psi)}"
        command = self.sample_command([seed], name, label=label, psi=psi, resolution=renderer.width)
        return self.image(name, renderer.width, alt=caption, caption=caption, command=command)

    def caption(self, seed: int, label: int | None) -> str:
        """Return a seed with its class."""
        return f"seed {seed}" if label is None else f"seed {seed}, {self.class_name(label)}"

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
        return shlex.join(["polyinr", *format_options(words, **options), "-m", self.model_option, "-o", output])

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
    path.write_bytes(encode_image(pixels, metadata=metadata))


def plan_sections(jobs: RenderJobs) -> GallerySections:
    """Plan all sections and add their images to the jobs. Raises RequestError."""
    plan = jobs.plan
    resolution = plan.enlarged_resolution
    images = tuple(jobs.sample(seed, resolution=resolution) for seed in plan.seeds)
    return GallerySections(
        seeds=ImageStrip(jobs.sample_command(plan.seeds, "seeds.png", resolution=resolution), images),
        classes=_classes(jobs) if plan.classes else None,
        psi=tuple(_psi(jobs, psi) for psi in plan.psi_values),
        mixing=tuple(_mixing(jobs, group) for group in plan.mixing_groups if plan.mixing_seeds[0]),
        interpolation=_interpolation(jobs) if plan.keyframes else None,
        heatmaps=_heatmaps(jobs),
        extrapolation=_extrapolation(jobs),
        sizes=tuple(_size(jobs, resolution) for resolution in SIZES),
    )


def _classes(jobs: RenderJobs) -> ImageTable:
    """Plan a row of seeds for each class."""
    seeds, labels = jobs.plan.class_seeds, jobs.plan.classes
    rows = tuple((jobs.class_name(c), tuple(jobs.sample(seed, label=c) for seed in seeds)) for c in labels)
    return ImageTable(jobs.sample_command(seeds, "class.png", label=labels[0]), rows)


def _psi(jobs: RenderJobs, psi: float) -> ImageStrip:
    """Plan some seeds at one psi."""
    seeds = jobs.plan.seeds[:PSI_SEEDS]
    images = tuple(jobs.sample(seed, psi=psi) for seed in seeds)
    return ImageStrip(jobs.sample_command(seeds, "psi.png", psi=psi), images, f"psi {format_psi(psi)}")


def _size(jobs: RenderJobs, resolution: int) -> ImageStrip:
    """Plan the first seed in one size."""
    image = jobs.sample(jobs.plan.seeds[0], resolution=resolution)
    return ImageStrip(image.command, (image,), f"{resolution} × {resolution} pixels")


def _mixing(jobs: RenderJobs, group: tuple[int, ...]) -> ImageTable:
    """Plan the mix of each source with each target at some levels."""
    plan, model = jobs.plan, jobs.model
    sources, targets = plan.mixing_seeds
    levels, renderer, label = seeds_text(group), jobs.renderer(plan.resolution), jobs.label_option(plan.label)
    ends = [from_seed_numbers(model, seeds, label=plan.label) for seeds in (sources, targets)]
    words = format_options([], source=seeds_text(sources), target=seeds_text(targets), levels=levels, label=label)
    metadata = {**model_metadata(model), "command": "mix", "words": words}
    images = Mixtures(model, ends[0], ends[1], (group,)).requests(metadata)

    def mix(row: int, column: int) -> GalleryImage:
        source, target = sources[row], targets[column]
        name = f"seed{target:04d}-with-levels{levels}-of-seed{source:04d}.png"
        jobs.add(name, renderer, images, row * len(targets) + column)
        caption = f"seed {target} with levels {levels} of seed {source}"
        mix_words = ["mix", str(source), str(target)]
        command = jobs.command(mix_words, name, levels=levels, label=label, res=plan.resolution)
        return jobs.image(name, plan.resolution, alt=caption, caption=caption, command=command)

    rows = tuple(
        (jobs.sample(source), tuple(mix(row, column) for column in range(len(targets))))
        for row, source in enumerate(sources)
    )
    command = jobs.command(["mix", *words], "mix.png", res=plan.resolution)
    return ImageTable(command, rows, tuple(jobs.sample(target) for target in targets), f"levels {levels}")


def _interpolation(jobs: RenderJobs) -> ImageStrip:
    """Plan the frames of an interpolation over the first seeds and back."""
    plan, model, renderer = jobs.plan, jobs.model, jobs.renderer(jobs.plan.resolution)
    seeds = [str(seed) for seed in plan.keyframes]
    words = format_options(
        seeds, space="affine", frames=plan.frames, loop=True, easing="smooth", label=jobs.label_option(plan.label)
    )
    metadata = {**model_metadata(model), "command": "interpolate", "words": words}
    keyframes = [image.latents for image in from_seed_numbers(model, plan.keyframes, label=plan.label)]
    path = LatentPath.through(keyframes, space="affine", curve="linear")
    frames = frame_requests(
        model, path, renderer.viewport, frames=plan.frames, metadata=metadata, loop=True, easing="smooth"
    )
    command = jobs.command(["interpolate", *words], "interpolation.gif", res=plan.resolution)
    images = []
    for index, frame in enumerate(frames.names):
        name, caption = f"interpolation-{frame}.png", f"frame {index + 1} of {plan.frames}"
        jobs.add(name, renderer, frames, index)
        alt = f"{caption} of the interpolation between seeds {', '.join(seeds)}"
        images.append(jobs.image(name, plan.resolution, alt=alt, caption=caption, command=command))
    return ImageStrip(command, tuple(images))


def _heatmaps(jobs: RenderJobs) -> ImageTable:
    """Plan the heat maps of some seeds; each row begins with the image."""
    plan, seeds = jobs.plan, jobs.plan.seeds[:HEATMAP_SEEDS]

    def command(seeds: Sequence[int], levels: Sequence[int], output: str) -> str:
        options = {"seeds": seeds_text(seeds), "label": jobs.label_option(plan.label), "levels": seeds_text(levels)}
        return jobs.command(["heatmap"], output, **options, res=plan.resolution)

    rows = []
    for seed in seeds:
        names = [f"seed{seed:04d}-heat-of-level{level}.png" for level in plan.levels]
        jobs.add_heatmaps(seed, names)
        row = [jobs.sample(seed)]
        for level, name in zip(plan.levels, names, strict=True):
            alt = f"heat map of level {level} of seed {seed}"
            words = command([seed], [level], "level.png")
            row.append(jobs.image(name, plan.resolution, alt=alt, caption=alt, command=words))
        rows.append((f"seed {seed}", tuple(row)))
    return ImageTable(command(seeds, plan.levels, "levels.png"), tuple(rows))


def _extrapolation(jobs: RenderJobs) -> ImageStrip:
    """Plan some seeds with a margin around the trained window."""
    plan, resolution = jobs.plan, jobs.plan.extrapolation_resolution
    viewport = Viewport(resolution, resolution, (-MARGIN, -MARGIN, 1 + MARGIN, 1 + MARGIN))
    renderer = Renderer(jobs.model, viewport, frame=UNIT)

    def command(seeds: Sequence[int], output: str) -> str:
        options = {"seeds": seeds_text(seeds), "label": jobs.label_option(plan.label)}
        return jobs.command(["extrapolate"], output, **options, margin=MARGIN, res=resolution)

    images, shown = [], plan.seeds[:EXTRAPOLATION_SEEDS]
    for seed in shown:
        name = f"seed{seed:04d}-beyond.png"
        requests = from_seed_numbers(jobs.model, [seed], label=plan.label)
        jobs.add(name, renderer, requests.with_metadata({"command": "extrapolate"}))
        alt = f"seed {seed} beyond its border, with a frame around the trained window"
        caption = jobs.caption(seed, jobs.class_of(seed) if plan.label is None else plan.label)
        images.append(jobs.image(name, resolution, alt=alt, caption=caption, command=command([seed], name)))
    return ImageStrip(command(shown, "beyond.png"), tuple(images))
