"""`polyinr invert`: find the latents of photos, and tune the model around them."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import (
    Device,
    Grid,
    Json,
    Model,
    OutputText,
    Overwrite,
    Quiet,
    Size,
    Verbose,
    check_paths,
    parse_res,
)
from polyinr_cli.parsing import parse_size, parse_window
from polyinr_cli.rendering import RunOptions, load_model
from polyinr_cli.runtime import choose_device, interruption, multiplies_bfloat16, stopping
from polyinr_core.errors import RequestError
from polyinr_core.rendering.writers import Output, OutputKind, write_latents_to
from polyinr_core.runtime.resources import working_memory

if TYPE_CHECKING:
    from polyinr_core.inversion.invert import InversionResult
    from polyinr_core.inversion.loss import TargetImage

RANGES = {"steps": (0, 10**6), "restarts": (1, 256), "seed": (0, 2**32 - 1), "tune_steps": (1, 10**6)}


def invert(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="Image files of any size and format; - reads one from stdin."),
    ],
    output: OutputText,
    space: Annotated[
        Literal["affine", "w", "z"],
        typer.Option(
            help="Latent space to optimize. affine matches best; w and z stay closer to the training distribution."
        ),
    ] = "affine",
    loss: Annotated[
        Literal["auto", "lpips", "lite0", "pixels"],
        typer.Option(
            help="Mean squared error of the pixels, alone (pixels) or plus LPIPS-VGG (lpips) or EfficientNet-lite0 "
            "features (lite0). auto: lpips if the VGG16 weights are available, else lite0."
        ),
    ] = "auto",
    vgg16: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="VGG16 weights of torchvision, for LPIPS. Default: vgg16-397923af.pth in the cache of torch.hub.",
        ),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Maximum of Adam steps from each starting point, 1-1000000; up to four times as many cheaper L-BFGS "
            "steps follow. 0 takes what the encoder says.",
        ),
    ] = 300,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Start at what this encoder says, not at the mean image: `polyinr encoder` makes it."
        ),
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Number of starting points, 1-256; the best result is kept. The first is the mean image, the others "
            "(in z, all) are the random images nearest to the photo.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed, 0-4294967295.")] = 0,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Class to start from, by name or number. Default: the class whose mean image is nearest to the photo.",
        ),
    ] = None,
    res: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=parse_res,
            help="Shorter side in pixels at which a photo is inverted; the aspect ratio is kept. Default: that of the "
            "photo, at most the model's resolution. The time grows with the square.",
        ),
    ] = None,
    size: Size = None,
    grid: Grid = "0:1",
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Then fine-tune the model around the photos (pivotal tuning) and save a small delta."
        ),
    ] = False,
    tune_rank: Annotated[
        int | None,
        typer.Option(
            metavar="R", help="Rank of the weight change of each level, 1 to the number of channels. Default: 16."
        ),
    ] = None,
    tune_steps: Annotated[int | None, typer.Option(metavar="N", help="Tuning steps, 1-1000000. Default: 200.")] = None,
    delta: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file of the delta. Default: NAME.delta.safetensors beside --output."),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Also save a grid with a row for each photo: the photo, its inversion, its inversion after tuning.",
        ),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Invert photos into the model's latent space, and optionally fine-tune the model around them.

    Writes the latents, one row for each photo, to a .safetensors file or to stdout (-). Every command that has
    --latents renders them, in the photo's shape. --tune keeps them, and saves the tuned model as a delta: both
    -m MODEL and -m MODEL+DELTA render them. Ctrl-C keeps the best found so far.

    Example: polyinr invert photo.jpg -o photo.safetensors --tune
    """
    if not tune and (tune_rank, tune_steps, delta) != (None, None, None):
        raise RequestError("--tune-rank, --tune-steps and --delta require --tune")
    tune_steps = 200 if tune_steps is None else tune_steps
    _check_ranges(steps=steps, restarts=restarts, seed=seed, tune_steps=tune_steps)
    if steps == 0 and encoder is None:
        raise RequestError("--steps 0 is out of range 1-1000000; without --encoder there is nothing to start from")
    if encoder is not None and (space == "z" or grid != "0:1"):
        raise RequestError("--encoder gives w and affine in the trained window; leave --space z and --grid out")
    run = RunOptions(model, device=device, overwrite=overwrite, as_json=as_json, quiet=quiet)
    target = run.output(output, kinds=(OutputKind.latents, OutputKind.stdout), payload="latents")
    delta_file = _delta_file(target, delta) if tune else None
    _check_outputs(delta_file, show, overwrite=overwrite)
    check_paths(model, encoder, *photos)
    window = parse_window(grid)
    torch_device = choose_device(device)
    checkpoint, model_file = load_model(model, quiet=quiet)
    channels = checkpoint.generator.config.channels
    if tune_rank is not None and not 1 <= tune_rank <= channels:
        raise RequestError(f"--tune-rank {tune_rank} is out of range 1-{channels} (the model has {channels} channels)")

    import torch

    from polyinr_core.checkpoints.locate import model_argument
    from polyinr_core.images.io import write_image
    from polyinr_core.inversion.encoder import load_encoder
    from polyinr_core.inversion.invert import comparison_grid
    from polyinr_core.inversion.invert import invert as invert_image
    from polyinr_core.inversion.loss import LOSS_DESCRIPTIONS, load_loss
    from polyinr_core.inversion.pivotal_tuning import tune_to_file
    from polyinr_core.latents.latents import concatenate, parse_label

    classes, names = checkpoint.generator.config.classes, checkpoint.class_names
    index = None if label is None else parse_label(label, classes=classes, class_names=names)
    images = _load_targets(photos, res=res, size=size, resolution=checkpoint.resolution)
    start = None if encoder is None else load_encoder(encoder)
    inversion_loss = load_loss(loss, vgg16=vgg16).to(torch_device)
    checkpoint.generator.to(torch_device)

    def say(text: str) -> None:
        console.say(text, quiet=quiet, always=True)

    is_perceptual = inversion_loss.perceptual is not None
    both = "; their sum is minimized, so PSNR may fall where the perceptual distance falls" if is_perceptual else ""
    say(f"polyinr: loss: {LOSS_DESCRIPTIONS[inversion_loss.name]}{both}")
    for note in (note for image in images for note in image.notes):
        say(note)
    if res is None and size is None and any(image.is_resized for image in images):
        say(f"polyinr: photos are matched at the model's {checkpoint.resolution} pixels; --res N matches more detail")
    results: list[InversionResult] = []
    with stopping() as signal:
        for image in images:
            with console.psnr_progress(image.name, quiet=quiet) as progress:
                result = invert_image(
                    checkpoint,
                    image,
                    steps=steps,
                    space=space,
                    loss=inversion_loss,
                    restarts=restarts,
                    seed=seed,
                    label=index,
                    window=window,
                    memory=working_memory(torch_device),
                    start=None if start is None else start.encode(checkpoint, image),
                    product_dtype=torch.bfloat16 if multiplies_bfloat16(torch_device) else None,
                    progress=progress,
                    stop=signal.asked,
                )
            say(f"{image.name}: {result}; {result.steps} steps in {result.seconds:.1f} s")
            results.append(result)
            if result.is_interrupted:
                left = f"; {len(images) - len(results)} of {len(images)} photos left out" if len(images) > 1 else ""
                say(f"polyinr: interrupted: keeping the best found so far{left}{', not tuned' if tune else ''}")
                delta_file = None
                break

        sha256, rows = checkpoint.sha256, [[one.target.pixels, one.image] for one in results]
        facts = [result.to_dict() for result in results]
        found = [one.latents for one in results]
        delta_facts: dict[str, Any] = {}
        if delta_file is not None:
            with console.psnr_progress("tuning", quiet=quiet) as progress:
                tuning = tune_to_file(
                    delta_file,
                    checkpoint,
                    results,
                    rank=tune_rank,
                    steps=tune_steps,
                    seed=seed,
                    overwrite=overwrite,
                    progress=progress,
                    stop=signal.asked,
                )
            for number, (before, tuned) in enumerate(zip(results, tuning.results, strict=True)):
                say(f"{tuned.target.name}, before tuning: {before}")
                say(f"{tuned.target.name}, after tuning:  {tuned}")
                rows[number].append(tuned.image)
                facts[number]["tuned"] = tuned.scores()
                (photo,) = found[number].photos
                scores = photo.scores | {"tuned": tuned.scores()}
                found[number] = replace(found[number], photos=(replace(photo, scores=scores),))
            say(f"{delta_file}: {tuning}")
            sha256, delta_facts = tuning.model.sha256, tuning.to_dict()
        is_interrupted = signal.asked()
    untuned = checkpoint.sha256 if delta_file is not None else ""
    write_latents_to(target, replace(concatenate(found), model_sha256=sha256, untuned_sha256=untuned))
    if show is not None:
        write_image(show, comparison_grid(rows), overwrite=overwrite)
    if target.stream is None:
        base = model_argument(model_file)
        say(f"render it with: {_command(target.path, base, count=len(found), suffix='inverted')}")
        if delta_file is not None:
            tuned_model = model_argument(Path(f"{model_file}+{delta_file}"))
            say(f"tuned, with: {_command(target.path, tuned_model, count=len(found), suffix='tuned')}")
    shared: dict[str, Any] = {
        "model": sha256,
        "model_file": model_file.name,
        "loss": inversion_loss.name,
        "space": space,
    }
    shared |= {"window": list(window), "seed": seed}
    for number, fact in enumerate(facts):
        run.reporter.json(target.path, {**shared, "index": number, **fact})
    if delta_file is not None:
        run.reporter.json(delta_file, delta_facts)
    if is_interrupted:
        raise typer.Exit(interruption.exit_code)


def _command(latents: Path, model: str, *, count: int, suffix: str) -> str:
    """Return the command that renders the latents, in the photos' shape."""
    output = f"{latents.stem}-{suffix}" + (".png" if count == 1 else "/")
    return shlex.join(["polyinr", "sample", "--latents", str(latents), "-m", model, "-o", output])


def _check_ranges(**values: int) -> None:
    """Raise RequestError for values, named like their options, that are out of range."""
    for name, value in values.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise RequestError(f"--{name.replace('_', '-')} {value} is out of range {low}-{high}")


def _delta_file(target: Output, named: Path | None) -> Path:
    """Return the output file of the delta. Raises RequestError."""
    if named is None:
        if target.stream is not None:
            raise RequestError("the latents go to stdout; name a file for the delta with --delta FILE")
        return target.path.with_name(f"{target.path.stem}.delta.safetensors")
    if named.suffix != ".safetensors":
        raise RequestError(f"--delta {named}: a delta is a .safetensors file")
    if named.absolute() == target.path.absolute():
        raise RequestError("--output and --delta name the same file; use two different files")
    return named


def _check_outputs(delta: Path | None, show: Path | None, *, overwrite: bool) -> None:
    """Raise RequestError or FileError, before the computation, if an output file cannot be written."""
    from polyinr_core.images.io import format_of
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if show is not None:
        format_of(show)
    for path in (delta, show):
        if path is not None:
            refuse_overwrite(path, overwrite=overwrite)
            check_place(path)


def _load_targets(photos: list[Path], *, res: int | None, size: str | None, resolution: int) -> "list[TargetImage]":
    """Return the photos at the size at which they are inverted. Raises RequestError, FileError."""
    from polyinr_core.inversion.loss import load_target

    if sum(str(path) == "-" for path in photos) > 1:
        raise RequestError("- is given more than once; stdin holds one photo")
    if res is not None and size is not None:
        raise RequestError("--res and --size exclude each other; give one of the two")
    return [
        load_target(
            console.binary_stdin("image") if str(path) == "-" else path,
            name="stdin" if str(path) == "-" else str(path),
            size=None if size is None else parse_size(size),
            shorter_side=None if res is None else parse_size(str(res))[0],
            resolution=resolution,
        )
        for path in photos
    ]
