"""The sections of a gallery: which images each shows, with their captions and commands."""

from collections.abc import Sequence

from polyinr_core.latents.interpolation import LatentPath
from polyinr_core.latents.latents import seeds_text
from polyinr_core.models.coordinates import UNIT
from polyinr_core.rendering.edits import Mixtures, frame_requests
from polyinr_core.rendering.metadata import format_options, model_metadata
from polyinr_core.rendering.render import Renderer
from polyinr_core.rendering.requests import from_seed_numbers
from polyinr_core.rendering.viewport import Viewport

from .jobs import RenderJobs
from .page import GalleryImage, GallerySections, ImageRow, ImageSection, MixingSlide, RowSection, Slide
from .plan import MARGIN, SIZES, format_psi


def plan_sections(jobs: RenderJobs) -> GallerySections:
    """Plan all sections and add their images to the jobs. Raises RequestError."""
    plan = jobs.plan
    resolution = plan.enlarged_resolution
    images = tuple(jobs.sample(seed, resolution=resolution) for seed in plan.seeds)
    return GallerySections(
        seeds=ImageSection(jobs.sample_command(plan.seeds, "seeds.png", resolution=resolution), images),
        classes=_classes(jobs) if plan.classes else None,
        psi=tuple(_psi(jobs, psi) for psi in plan.psi_values),
        mixing=tuple(_mixing(jobs, group) for group in plan.mixing_groups if plan.mixing_seeds[0]),
        interpolation=_interpolation(jobs) if plan.keyframes else None,
        heatmaps=_heatmaps(jobs),
        extrapolation=_extrapolation(jobs),
        sizes=tuple(_size(jobs, resolution) for resolution in SIZES),
    )


def _classes(jobs: RenderJobs) -> RowSection:
    """Plan a row of seeds for each class."""
    seeds, labels = jobs.plan.class_seeds, jobs.plan.classes
    rows = [ImageRow(jobs.class_name(c), tuple(jobs.sample(seed, label=c) for seed in seeds)) for c in labels]
    return RowSection(jobs.sample_command(seeds, "class.png", label=labels[0]), tuple(rows))


def _psi(jobs: RenderJobs, psi: float) -> Slide:
    """Plan some seeds at one psi."""
    seeds = jobs.plan.psi_seeds
    images = tuple(jobs.sample(seed, psi=psi) for seed in seeds)
    return Slide(f"psi {format_psi(psi)}", jobs.sample_command(seeds, "psi.png", psi=psi), images)


def _size(jobs: RenderJobs, resolution: int) -> Slide:
    """Plan the first seed in one size."""
    image = jobs.sample(jobs.plan.seeds[0], resolution=resolution)
    return Slide(f"{resolution} × {resolution} pixels", image.command, (image,))


def _mixing(jobs: RenderJobs, group: tuple[int, ...]) -> MixingSlide:
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
    return MixingSlide(f"levels {levels}", command, tuple(jobs.sample(target) for target in targets), rows)


def _interpolation(jobs: RenderJobs) -> ImageSection:
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
    return ImageSection(command, tuple(images))


def _heatmaps(jobs: RenderJobs) -> RowSection:
    """Plan the heat maps of some seeds; each row begins with the image."""
    plan = jobs.plan
    label = jobs.label_option(plan.label)
    rows = []
    for seed in plan.heatmap_seeds:
        names = [f"seed{seed:04d}-heat-of-level{level}.png" for level in plan.levels]
        jobs.add_heatmaps(seed, names)
        row = [jobs.sample(seed)]
        for level, name in zip(plan.levels, names, strict=True):
            options = {"seeds": seed, "label": label, "levels": level, "res": plan.resolution}
            command = jobs.command(["heatmap"], "level.png", **options)
            alt = f"heat map of level {level} of seed {seed}"
            row.append(jobs.image(name, plan.resolution, alt=alt, caption=f"level {level}", command=command))
        rows.append(ImageRow(f"seed {seed}", tuple(row)))
    seeds, levels = seeds_text(plan.heatmap_seeds), seeds_text(plan.levels)
    options = {"seeds": seeds, "label": label, "levels": levels, "res": plan.resolution}
    return RowSection(jobs.command(["heatmap"], "levels.png", **options), tuple(rows))


def _extrapolation(jobs: RenderJobs) -> ImageSection:
    """Plan some seeds with a margin around the trained window."""
    plan, resolution = jobs.plan, jobs.plan.extrapolation_resolution
    viewport = Viewport(resolution, resolution, (-MARGIN, -MARGIN, 1 + MARGIN, 1 + MARGIN))
    renderer = Renderer(jobs.model, viewport, frame=UNIT)

    def command(seeds: Sequence[int], output: str) -> str:
        options = {"seeds": seeds_text(seeds), "label": jobs.label_option(plan.label)}
        return jobs.command(["extrapolate"], output, **options, margin=MARGIN, res=resolution)

    images = []
    for seed in plan.extrapolation_seeds:
        name = f"seed{seed:04d}-beyond.png"
        requests = from_seed_numbers(jobs.model, [seed], label=plan.label)
        jobs.add(name, renderer, requests.with_metadata({"command": "extrapolate"}))
        alt = f"seed {seed} beyond its border, with a frame around the trained window"
        images.append(jobs.image(name, resolution, alt=alt, caption=f"seed {seed}", command=command([seed], name)))
    return ImageSection(command(plan.extrapolation_seeds, "beyond.png"), tuple(images))
