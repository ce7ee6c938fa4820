"""`polyinr invert`: find the latents of photos, and tune the model around them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_cli import console
from polyinr_cli.image_selection import class_index
from polyinr_cli.invert_options import (
    DeltaFile,
    LossName,
    LossOption,
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
    check_outputs,
    check_ranges,
    delta_path,
    load_targets,
)
from polyinr_cli.model_lookup import load_model
from polyinr_cli.options import Device, Grid, Json, Model, OutputText, Overwrite, Quiet, Size, Verbose
from polyinr_cli.outputs import Reporter, parse_output
from polyinr_cli.runtime import choose_device
from polyinr_core.errors import RequestError
from polyinr_core.rendering.writers import OutputKind, write_latents_to
from polyinr_core.runtime.resources import available_memory, total_memory

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.inversion.invert import InversionResult, PsnrProgress
    from polyinr_core.inversion.loss import TargetImage


def invert(
    photos: Photos,
    output: OutputText,
    space: SpaceOption = Space.affine,
    loss: LossOption = LossName.auto,
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
    """Invert photos into the model's latent space, and optionally fine-tune the model around them.

    Writes the latents, one row for each photo, to a .safetensors file or to stdout (-). Every command that has
    --latents renders them. After --tune they belong to the tuned model, -m MODEL+DELTA. Computes in float32.

    Example: polyinr invert photo.jpg -o photo.safetensors --tune
    """
    check_ranges(steps=steps, restarts=restarts, seed=seed)
    if not tune and (tune_rank, tune_steps, delta) != (None, None, None):
        raise RequestError("--tune-rank, --tune-steps and --delta require --tune")
    target = parse_output(
        output,
        overwrite=overwrite,
        as_json=as_json,
        kinds=(OutputKind.latents, OutputKind.stdout),
        payload="latents",
    )
    delta_file = delta_path(target, delta) if tune else None
    check_outputs(target, delta_file, show)
    torch_device = choose_device(device)
    checkpoint, model_file = load_model(model, quiet=quiet)
    tune_steps = 200 if tune_steps is None else tune_steps
    check_ranges(tune_steps=tune_steps)
    channels = checkpoint.generator.config.channels
    if tune_rank is not None and not 1 <= tune_rank <= channels:
        raise RequestError(f"--tune-rank {tune_rank} is out of range 1-{channels} (the model has {channels} channels)")
    index = class_index(label, checkpoint)

    from polyinr_cli.parsing import parse_window
    from polyinr_core.images.io import write_image
    from polyinr_core.inversion.invert import comparison_grid
    from polyinr_core.inversion.invert import invert as invert_image
    from polyinr_core.inversion.loss import LOSS_DESCRIPTIONS, load_loss
    from polyinr_core.latents.latents import concatenate

    window = parse_window(grid)
    images = load_targets(photos, res=res, size=size, resolution=checkpoint.resolution)
    inversion_loss = load_loss(loss.value, vgg16=vgg16).to(torch_device)
    checkpoint.generator.to(torch_device)
    console.say(f"polyinr: loss: {LOSS_DESCRIPTIONS[inversion_loss.name]}", quiet=quiet, always=True)
    for image in images:
        _report_conversion(image, quiet=quiet)
    memory = total_memory(torch_device) if torch_device.type == "cuda" else available_memory()
    results = []
    for image in images:
        with _psnr_bar(image.name, quiet=quiet) as progress:
            result = invert_image(
                checkpoint,
                image,
                steps=steps,
                space=space.value,
                loss=inversion_loss,
                restarts=restarts,
                seed=seed,
                label=index,
                window=window,
                memory=memory,
                progress=progress,
            )
        summary = f"{image.name}: {result}; {result.steps} steps in {result.seconds:.1f} s"
        console.say(summary, quiet=quiet, always=True)
        results.append(result)

    sha256, rows = checkpoint.sha256, [[image.pixels, one.image] for image, one in zip(images, results, strict=True)]
    facts = [result.to_dict() for result in results]
    delta_facts: dict[str, Any] = {}
    if delta_file is not None:
        tuned, delta_facts = _tune(
            checkpoint,
            results,
            delta_file,
            rank=tune_rank,
            steps=tune_steps,
            seed=seed,
            overwrite=overwrite,
            quiet=quiet,
        )
        sha256 = delta_facts["model"]
        for one, row, fact in zip(tuned, rows, facts, strict=True):
            row.append(one.image)
            fact["tuned"] = one.scores()
    latents = concatenate([one.latents for one in results])
    write_latents_to(target, replace(latents, model_sha256=sha256))
    if show is not None:
        write_image(show, comparison_grid(rows), overwrite=overwrite)
    shared = {
        "model": sha256,
        "model_file": model_file.name,
        "loss": inversion_loss.name,
        "space": space.value,
        "window": list(window),
        "seed": seed,
    }
    reporter = Reporter(as_json)
    for number, fact in enumerate(facts):
        reporter.json(target.path, {**shared, "index": number, **fact})
    if delta_file is not None:
        reporter.json(delta_file, delta_facts)


@contextmanager
def _psnr_bar(description: str, *, quiet: bool) -> "Iterator[PsnrProgress]":
    """Yield a callback that moves a progress bar with the PSNR on stderr, or does nothing without a terminal."""
    with console.noted_progress(description, quiet=quiet) as move:
        yield lambda done, total, psnr: move(done, total, f"PSNR {psnr:.1f} dB")


def _report_conversion(image: "TargetImage", *, quiet: bool) -> None:
    """Report that only the first frame of a photo is used, or that it is resized."""
    if image.frames > 1:
        console.say(f"{image.name}: using the first of {image.frames} frames", quiet=quiet, always=True)
    if image.is_resized:
        height, width = image.pixels.shape[:2]
        resized = f"{image.name}: resized from {image.width}x{image.height} to {width}x{height}"
        console.say(resized, quiet=quiet, always=True)


def _tune(
    checkpoint: "Checkpoint",
    results: "list[InversionResult]",
    path: Path,
    *,
    rank: int | None,
    steps: int,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> "tuple[list[InversionResult], dict[str, Any]]":
    """Tune the model, save the delta, and return the results with the tuned model and the facts for --json."""
    from polyinr_core.checkpoints.delta import apply_delta, save_delta
    from polyinr_core.inversion.invert import render_with
    from polyinr_core.inversion.pivotal_tuning import locality_psnr, tune

    started = time.monotonic()
    names = [Path(result.target.name).name for result in results]
    origin = {"photos": names, "steps": steps, "seed": seed}
    with _psnr_bar("tuning", quiet=quiet) as progress:
        delta = tune(checkpoint, results, rank=rank, steps=steps, seed=seed, origin=origin, progress=progress)
    delta = save_delta(path, delta, overwrite=overwrite)
    model = apply_delta(checkpoint, delta, source=path)
    tuned = [render_with(result, model.generator.synthesis) for result in results]
    for result in tuned:
        console.say(f"{result.target.name}, tuned: {result}", quiet=quiet, always=True)
    others = locality_psnr(checkpoint.generator, model.generator, seed=seed)
    seconds = time.monotonic() - started
    console.say(
        f"{path}: rank {delta.rank}, {path.stat().st_size / 1024:,.0f} KiB, {steps} steps in {seconds:.1f} s; random "
        f"images before and after tuning: PSNR {others:.1f} dB",
        quiet=quiet,
        always=True,
    )
    return tuned, {
        "model": model.sha256,
        "model_before": checkpoint.sha256,
        "rank": delta.rank,
        "steps": steps,
        "seconds": round(seconds, 3),
        "locality_psnr": others,
    }
