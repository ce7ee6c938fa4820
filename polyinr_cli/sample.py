"""`polyinr sample`: pictures by seed or from latents, at any size and in any window."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from . import streams
from .devices import choose_device, choose_dtype
from .models import load_model
from .notes import Note, version
from .options import (
    Device,
    Grid,
    Json,
    Label,
    LatentsFile,
    Model,
    OutputText,
    Overwrite,
    Precision,
    PrecisionOption,
    Psi,
    Quiet,
    Res,
    Seeds,
    Size,
    Verbose,
)
from .outputs import Drawing, Kind, Pictures, draw_to, output_for, write_latents_of
from .ranks import own_device

if TYPE_CHECKING:
    import torch

    from polyinr_core.latents.file import Latents
    from polyinr_core.model import Generator
    from polyinr_core.snapshots.snapshot import Snapshot

log = logging.getLogger(__name__)


def sample(
    output: OutputText,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = "0:1",
    model: Model = None,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw pictures by seed, or from a latents file, at any size and in any window.

    A folder gets one PNG a picture; .png, .jpg, .webp, .tif a picture, or a sheet of several;
    .npy the unclamped colours; .safetensors the latents instead of pictures; - a PNG on stdout.
    """
    from polyinr_core.pictures.sizes import parse_window

    if (seeds is None) == (latents is None):
        raise RequestError("name the pictures by --seeds 0-7 or by --latents FILE, one of the two")
    bounds = parse_window(grid)
    wanted = _parse_sides(res, size)
    target = output_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet)
    if target.kind is Kind.latents and (wanted or grid != "0:1"):
        raise RequestError("latents have no size and no window: leave --res, --size and --grid out")
    place = own_device(choose_device(device))
    dtype = choose_dtype(precision, place, eight_bits=target.kind not in (Kind.array, Kind.latents))
    snapshot, model_file = load_model(model, quiet=quiet)
    width, height = wanted or (snapshot.resolution, snapshot.resolution)
    if not width and target.kind is not Kind.latents:
        raise RequestError(f"{model_file} does not say its resolution; give --res or --size")

    drawing = _drawing(snapshot, width, height, bounds=bounds, dtype=dtype, device=place)
    base: Note = {
        "polyinr": version(),
        "model": snapshot.sha256,
        "model_file": model_file.name,
        "size": [width, height],
        "bounds": list(bounds),
        "precision": str(dtype).removeprefix("torch."),
        "device": place.type,
    }
    index = _class_index(label, snapshot)
    if seeds is not None:
        pictures = _by_seed(seeds, drawing, base, label=index, psi=1.0 if psi is None else psi)
    else:
        assert latents is not None
        pictures = _from_file(latents, drawing, base, label=index, psi=psi)
    pictures = pictures.share(target)
    if target.kind is Kind.latents:
        write_latents_of(target, pictures)
    else:
        draw_to(target, drawing, pictures)


def _parse_sides(res: str | None, size: str | None) -> tuple[int, int] | None:
    """Return (width, height) as asked for, None if nothing is asked. Raises RequestError."""
    from polyinr_core.pictures.sizes import parse_size

    if res is not None and size is not None:
        raise RequestError("--res and --size both say the size; give one of the two")
    if res is not None and not res.strip().isdecimal():
        raise RequestError(f"--res {res!r} is no number of pixels; for width x height there is --size")
    text = size if res is None else res
    return None if text is None else parse_size(text)


def _class_index(label: str | None, snapshot: "Snapshot") -> int | None:
    """Return the class that --label names, None if it is not given. Raises LabelError."""
    from polyinr_core.latents.naming import parse_label

    if label is None:
        return None
    classes = snapshot.generator.config.classes
    return parse_label(label, classes=classes, class_names=snapshot.class_names)


def _drawing(
    snapshot: "Snapshot",
    width: int,
    height: int,
    *,
    bounds: tuple[float, float, float, float],
    dtype: "torch.dtype",
    device: "torch.device",
) -> Drawing:
    """Bring the model to its device and number format."""
    import torch

    from polyinr_core.model.precision import in_precision

    snapshot.generator.to(device=device)
    if dtype == torch.float64:
        snapshot.generator.double()
    synthesis = in_precision(snapshot.generator.synthesis, dtype)
    return Drawing(snapshot, synthesis, width, height, bounds=bounds, dtype=dtype, device=device)


def _by_seed(text: str, drawing: Drawing, base: Note, *, label: int | None, psi: float) -> Pictures:
    """Name pictures by --seeds. Raises RequestError."""
    from polyinr_core.latents.naming import parse_seeds
    from polyinr_core.latents.spaces import from_seed

    seeds = parse_seeds(text)
    snapshot = drawing.snapshot
    names = tuple(f"seed{seed:04d}" for seed in seeds)

    def latents_of(index: int) -> "Latents":
        latents = from_seed(snapshot.generator, seeds[index], label=label, psi=psi)
        return replace(latents, model_sha256=snapshot.sha256)

    def note_of(latents: "Latents", index: int) -> Note:
        return {**base, "seed": seeds[index], "psi": psi, **_class_note(latents, snapshot.class_names)}

    return Pictures(names, latents_of, note_of)


def _from_file(path: Path, drawing: Drawing, base: Note, *, label: int | None, psi: float | None) -> Pictures:
    """Name pictures by --latents. Raises RequestError, FileError."""
    from polyinr_core.latents.file import read_latents
    from polyinr_core.latents.spaces import check_latents, to_affine, with_label

    snapshot = drawing.snapshot
    generator: Generator = snapshot.generator
    kept = read_latents(streams.binary_stdin() if str(path) == "-" else path)
    kept = with_label(generator, kept, label)
    check_latents(generator, kept, source=str(path))
    if kept.space != "z" and kept.model_sha256 not in ("", snapshot.sha256):
        log.warning("%s was made with another model; its %s may not mean the same here", path, kept.space)
    named_by_seed = len(set(kept.seeds)) == len(kept)
    names = tuple(
        f"seed{kept.seeds[index]:04d}" if named_by_seed else f"picture{index:04d}" for index in range(len(kept))
    )
    source: Note = {"latents": path.name, "latents_sha256": kept.sha256}
    if psi is not None:
        source["psi"] = psi

    def latents_of(index: int) -> "Latents":
        return to_affine(generator, kept.picture(index), psi=psi)

    def note_of(latents: "Latents", index: int) -> Note:
        seed = {"seed": latents.seeds[0]} if latents.seeds else {}
        own = _class_note(latents, snapshot.class_names)
        return {**base, **source, "index": index, "count": len(kept), **seed, **own}

    return Pictures(names, latents_of, note_of)


def _class_note(latents: "Latents", class_names: Sequence[str]) -> Note:
    if latents.label is None:
        return {}
    index = int(latents.label[0])
    return {"label": index, "class": class_names[index]} if index < len(class_names) else {"label": index}
