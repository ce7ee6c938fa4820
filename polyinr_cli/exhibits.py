"""What a gallery shows of a model, part by part, planned in its hall."""

from collections.abc import Sequence
from pathlib import Path

from polyinr_core.gallery.page import Exhibits, GalleryImage, Mixed, Part, Row, Rows, Slide
from polyinr_core.gallery.plan import MARGIN, SIZES, psi_text
from polyinr_core.latents.naming import seeds_text
from polyinr_core.models.coordinates import UNIT
from polyinr_core.rendering.viewport import Viewport

from .drawing import Drawing
from .hall import WINDOW, Done, Hall, Job
from .heat import HeatMaps
from .mixtures import Mixtures
from .named import by_seed
from .notes import again
from .outputs import maps_of
from .walk import frames_of, walk_of


def exhibits_of(hall: Hall) -> Exhibits:
    """Plan all parts. Raises RequestError."""
    plan = hall.plan
    seeds = tuple(hall.sample(seed, side=plan.opened_side) for seed in plan.seeds)
    return Exhibits(
        seeds=Part(hall.sampling(plan.seeds, "seeds.png", side=plan.opened_side), seeds),
        classes=classes_of(hall) if plan.classes else None,
        psi=tuple(at_psi(hall, psi) for psi in plan.psis),
        mixing=tuple(mixed(hall, group) for group in plan.groups if plan.mixed[0]),
        walk=walk(hall) if plan.stops else None,
        heat=heat(hall),
        beyond=beyond(hall),
        sizes=tuple(at_size(hall, side) for side in SIZES),
    )


def classes_of(hall: Hall) -> Rows:
    """Plan a row of seeds for each class."""
    seeds, labels = hall.plan.in_class, hall.plan.classes
    rows = [Row(hall.class_name(c), tuple(hall.sample(seed, label=c) for seed in seeds)) for c in labels]
    return Rows(hall.sampling(seeds, "class.png", label=labels[0]), tuple(rows))


def at_psi(hall: Hall, psi: float) -> Slide:
    """Plan some seeds at one psi."""
    images = tuple(hall.sample(seed, psi=psi) for seed in hall.plan.swept)
    return Slide(f"psi {psi_text(psi)}", hall.sampling(hall.plan.swept, "psi.png", psi=psi), images)


def at_size(hall: Hall, side: int) -> Slide:
    """Plan the first seed in one size."""
    image = hall.sample(hall.plan.seeds[0], side=side)
    return Slide(f"{side} × {side} pixels", image.command, (image,))


def mixed(hall: Hall, group: tuple[int, ...]) -> Mixed:
    """Plan the mixtures of each source with each target at some levels."""
    plan, painter = hall.plan, hall.painter
    sources, targets = plan.mixed
    levels, drawing, label = seeds_text(group), hall.drawing(plan.side), hall.label_text(plan.label)
    ends = [by_seed(seeds_text(seeds), painter, label=plan.label) for seeds in (sources, targets)]
    words = again([], source=seeds_text(sources), target=seeds_text(targets), levels=levels, label=label)
    note = {**painter.note, "command": "mix", "words": words, **drawing.note(WINDOW)}
    images = Mixtures(painter, ends[0], ends[1], (group,), "affine", 1.0).images(note)

    def mixture(row: int, column: int) -> GalleryImage:
        source, target = sources[row], targets[column]
        name = f"seed{target:04d}-with-levels{levels}-of-seed{source:04d}.png"
        hall.add(name, drawing, images, row * len(targets) + column)
        what = f"seed {target} with levels {levels} of seed {source}"
        own = ["mix", str(source), str(target)]
        command = hall.command(own, name, levels=levels, label=label, res=plan.side)
        return hall.image(name, plan.side, words=what, caption=what, command=command)

    rows = tuple(
        (hall.sample(source), tuple(mixture(row, column) for column in range(len(targets))))
        for row, source in enumerate(sources)
    )
    command = hall.command(["mix", *words], "mix.png", res=plan.side)
    return Mixed(f"levels {levels}", command, tuple(hall.sample(target) for target in targets), rows)


def walk(hall: Hall) -> Part:
    """Plan the frames of a walk over the first seeds and back."""
    plan, painter, drawing = hall.plan, hall.painter, hall.drawing(hall.plan.side)
    stops = [str(seed) for seed in plan.stops]
    how = {"loop": True, "easing": "smooth"}
    label = hall.label_text(plan.label)
    words = again(stops, space="affine", frames=plan.frames, **how, label=label)
    note = {**painter.note, "command": "interpolate", "words": words, **drawing.note(WINDOW)}
    way = walk_of(by_seed(",".join(stops), painter, label=plan.label), painter, space="affine", curve="linear")
    frames = frames_of(way, drawing, note, frames=plan.frames, loop=True, easing="smooth", zooms=None)
    command = hall.command(["interpolate", *words], "walk.gif", res=plan.side)
    shown = []
    for index, frame in enumerate(frames.names):
        name, caption = f"walk-{frame}.png", f"frame {index + 1} of {plan.frames}"
        hall.add(name, drawing, frames, index)
        what = f"{caption} of the walk over seeds {', '.join(stops)}"
        shown.append(hall.image(name, plan.side, words=what, caption=caption, command=command))
    return Part(command, tuple(shown))


def heat(hall: Hall) -> Rows:
    """Plan the heat maps of the levels of some seeds; each row begins with the image."""
    plan, maps = hall.plan, HeatMaps(hall.drawing(hall.plan.side), list(hall.plan.levels))
    label = hall.label_text(plan.label)
    rows = []
    for seed in plan.heated:
        names = [f"seed{seed:04d}-heat-of-level{level}.png" for level in plan.levels]
        hall.jobs[names[0]] = heat_job(hall, maps, seed, names)
        row = [hall.sample(seed)]
        for level, name in zip(plan.levels, names, strict=True):
            own = {"seeds": seed, "label": label, "levels": level, "res": plan.side}
            command = hall.command(["heatmap"], "level.png", **own)
            what = f"what level {level} has drawn of seed {seed}, bright where it is much"
            row.append(hall.image(name, plan.side, words=what, caption=f"level {level}", command=command))
        rows.append(Row(f"seed {seed}", tuple(row)))
    seeds, levels = seeds_text(plan.heated), seeds_text(plan.levels)
    return Rows(
        hall.command(["heatmap"], "levels.png", seeds=seeds, label=label, levels=levels, res=plan.side),
        tuple(rows),
    )


def heat_job(hall: Hall, maps: HeatMaps, seed: int, names: Sequence[str]) -> Job:
    """Return the job that draws a seed's heat maps, all levels at once."""
    own = by_seed(str(seed), hall.painter, label=hall.plan.label).with_note(maps.drawing.note(WINDOW))

    def write(folder: Path, done: Done) -> None:
        latents = own.latents(0)
        note = own.note(latents, 0)
        heats = maps.heats(maps_of(latents), done)
        for level, name, one in zip(maps.levels, names, heats, strict=True):
            words = again([], seeds=seed, label=hall.label_text(hall.plan.label), levels=level)
            found = maps.note({**note, "command": "heatmap", "words": words}, one[None])
            hall.write(folder / name, maps.cell(one, None), found | {"heat_of_levels": [level]})

    return Job(2 * maps.points, write)


def beyond(hall: Hall) -> Part:
    """Plan some seeds with what lies around the trained square."""
    plan, side = hall.plan, hall.plan.beyond_side
    drawing = Drawing(hall.painter, Viewport(side, side, (-MARGIN, -MARGIN, 1 + MARGIN, 1 + MARGIN)), frame=UNIT)
    note = {**drawing.note(WINDOW), "command": "extrapolate"}

    def command(seeds: Sequence[int], output: str) -> str:
        given = {"seeds": seeds_text(seeds), "label": hall.label_text(plan.label), "margin": MARGIN, "res": side}
        return hall.command(["extrapolate"], output, **given)

    images = []
    for seed in plan.beyond:
        name, what = (
            f"seed{seed:04d}-beyond.png",
            f"seed {seed} and what lies around it, the trained square framed",
        )
        hall.add(name, drawing, by_seed(str(seed), hall.painter, label=plan.label).with_note(note))
        images.append(hall.image(name, side, words=what, caption=f"seed {seed}", command=command([seed], name)))
    return Part(command(plan.beyond, "beyond.png"), tuple(images))
