"""`polyinr invert`: photos to latents, and the model tuned around them."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polyinr_cli import console as streams
from polyinr_cli.invert_options import (
    DeltaFile,
    ObjectiveName,
    ObjectiveOption,
    Photos,
    Restarts,
    Seed,
    ShorterSide,
    Show,
    Space,
    SpaceOption,
    StartLabel,
    Steps,
    Tune,
    TuneRank,
    TuneSteps,
    Vgg16,
    check_counts,
    check_outputs,
    delta_path,
    photos_named,
)
from polyinr_cli.matching import Tuning, facts_of, matched_photo, say_changes, tune_around, write_sheet
from polyinr_cli.model_lookup import load_model
from polyinr_cli.named import class_index
from polyinr_cli.options import Device, Grid, Json, Model, OutputText, Overwrite, Quiet, Size, Verbose
from polyinr_cli.runtime import available_memory, choose_device, total_memory
from polyinr_cli.targets import Kind, target_for, write_latents_to
from polyinr_core.errors import RequestError

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint

TUNE_RANK, TUNE_STEPS = 16, 200


def invert(
    photos: Photos,
    output: OutputText,
    space: SpaceOption = Space.affine,
    objective: ObjectiveOption = ObjectiveName.auto,
    vgg16: Vgg16 = None,
    steps: Steps = 400,
    restarts: Restarts = 1,
    seed: Seed = 0,
    label: StartLabel = None,
    res: ShorterSide = None,
    size: Size = None,
    grid: Grid = "0:1",
    tune: Tune = False,
    tune_rank: TuneRank = None,
    tune_steps: TuneSteps = None,
    delta: DeltaFile = None,
    show: Show = None,
    model: Model = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring photos in: find the latents whose images match them, and optionally tune the model around them.

    The latents, one row a photo, go to a .safetensors file, or to stdout (-); any command that takes --latents
    draws them. After --tune they belong to the tuned model, -m MODEL+DELTA. Computed in float32.

    Example: polyinr invert photo.jpg -o photo.safetensors --tune
    """
    check_counts(steps=steps, restarts=restarts, seed=seed)
    if not tune and (tune_rank, tune_steps, delta) != (None, None, None):
        raise RequestError("--tune-rank, --tune-steps and --delta are for --tune; add it, or leave them out")
    target = target_for(
        output,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
        kinds=(Kind.latents, Kind.stdout),
        payload="latents",
    )
    delta_file = delta_path(target, delta) if tune else None
    check_outputs(target, delta_file, show)

    place = choose_device(device)
    checkpoint, model_file = load_model(model, quiet=quiet)
    tuning = None
    if delta_file is not None:
        tuning = _tuning(checkpoint, tune_rank, TUNE_STEPS if tune_steps is None else tune_steps)
    index = class_index(label, checkpoint)
    window, images = photos_named(photos, res=res, size=size, grid=grid, checkpoint=checkpoint)

    from polyinr_core.inversion.loss import WORDS, choose_objective
    from polyinr_core.latents.io import joined

    judge = choose_objective(objective.value, vgg16=vgg16).to(place)
    checkpoint.generator.to(place)
    streams.say(f"polyinr: matching by {WORDS[judge.name]}", quiet=quiet, always=True)
    for image in images:
        say_changes(image, quiet=quiet)
    memory = total_memory(place) if place.type == "cuda" else available_memory()
    matched = [
        matched_photo(
            image,
            checkpoint,
            judge,
            space=space.value,
            window=window,
            steps=steps,
            restarts=restarts,
            seed=seed,
            label=index,
            memory=memory,
            quiet=quiet,
        )
        for image in images
    ]
    sha256 = checkpoint.sha256
    delta_facts: dict[str, Any] = {}
    if tuning is not None and delta_file is not None:
        sha256, delta_facts = tune_around(
            matched, checkpoint, delta_file, tuning, seed=seed, overwrite=overwrite, quiet=quiet
        )
    latents = joined([one.found.latents for one in matched])
    write_latents_to(target, replace(latents, model_sha256=sha256))
    if show is not None:
        write_sheet(show, [one.pixels for one in matched], overwrite=overwrite)
    base = {
        "model": sha256,
        "model_file": model_file.name,
        "objective": judge.name,
        "space": space.value,
        "window": list(window),
        "seed": seed,
    }
    target.report((target.path, base | facts_of(row, one)) for row, one in enumerate(matched))
    if delta_facts:
        target.report([(delta_file, delta_facts)] if delta_file else [])


def _tuning(checkpoint: "Checkpoint", rank: int | None, steps: int) -> Tuning:
    """Return how the model is tuned. Raises RequestError."""
    channels = checkpoint.generator.config.channels
    rank = min(TUNE_RANK, channels) if rank is None else rank
    if not 1 <= rank <= channels:
        raise RequestError(f"--tune-rank {rank} is outside 1-{channels}, the model's channels")
    check_counts(tune_steps=steps)
    return Tuning(rank, steps)
