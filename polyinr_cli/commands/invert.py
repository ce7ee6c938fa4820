"""`polyinr invert`: find the latents of photos or of a video's frames, and tune the model around them."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

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

NO_ENCODER = Path("none")
RANGES = {"steps": (0, 10**6), "restarts": (1, 256), "seed": (0, 2**32 - 1), "tune_steps": (1, 10**6)}


def invert(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...",
            help="Image files of any size and format, folders of them, or one video (needs PyAV); - is stdin.",
        ),
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
            metavar="FILE|none",
            help="Start at what this encoder says: `polyinr encoder` makes it. Default: the bundled one for the "
            "bundled model, where it applies; else, and with none, the mean image.",
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

    Writes the latents, one row for each photo or frame, to a .safetensors file or to stdout (-). Every command that has
    --latents renders them, in the photo's shape. Photos of one size are optimized together; of a video, each frame
    starts at the one before. --tune keeps the latents, and saves the tuned model as a delta: both
    -m MODEL and -m MODEL+DELTA render them. Ctrl-C keeps the best found so far.

    Example: polyinr invert photo.jpg -o photo.safetensors --tune
    """
    if not tune and (tune_rank, tune_steps, delta) != (None, None, None):
        raise RequestError("--tune-rank, --tune-steps and --delta require --tune")
    tune_steps = 200 if tune_steps is None else tune_steps
    _check_ranges(steps=steps, restarts=restarts, seed=seed, tune_steps=tune_steps)
    is_named = encoder not in (None, NO_ENCODER)
    if is_named and (space == "z" or grid != "0:1"):
        raise RequestError("--encoder gives w and affine in the trained window; leave --space z and --grid out")
    run = RunOptions(model, device=device, overwrite=overwrite, as_json=as_json, quiet=quiet)
    target = run.output(output, kinds=(OutputKind.latents, OutputKind.stdout), payload="latents")
    delta_file = _delta_file(target, delta) if tune else None
    _check_outputs(delta_file, show, overwrite=overwrite)
    sources = _sources(photos, res=res, size=size)
    check_paths(model, encoder if is_named else None, *photos)
    window = parse_window(grid)
    torch_device = choose_device(device)
    checkpoint, model_file = load_model(model, quiet=quiet)
    channels = checkpoint.generator.config.channels
    if tune_rank is not None and not 1 <= tune_rank <= channels:
        raise RequestError(f"--tune-rank {tune_rank} is out of range 1-{channels} (the model has {channels} channels)")

    import torch

    from polyinr_core.images.io import write_image
    from polyinr_core.inversion.encoder import default_encoder, load_encoder
    from polyinr_core.inversion.invert import invert_images
    from polyinr_core.inversion.loss import LOSS_DESCRIPTIONS, load_loss, load_targets
    from polyinr_core.inversion.pivotal_tuning import comparison_of, latents_of, tune_to_file
    from polyinr_core.latents.latents import parse_label

    classes, names = checkpoint.generator.config.classes, checkpoint.class_names
    index = None if label is None else parse_label(label, classes=classes, class_names=names)
    images, fps = load_targets(
        sources,
        size=None if size is None else parse_size(size),
        shorter_side=None if res is None else parse_size(str(res))[0],
        resolution=checkpoint.resolution,
    )
    start = load_encoder(encoder) if is_named and encoder is not None else None
    if encoder is None:
        start = default_encoder(checkpoint, space=space, window=window, label=index)
    if steps == 0 and start is None:
        raise RequestError("--steps 0 is out of range 1-1000000; without --encoder there is nothing to start from")
    inversion_loss = load_loss(loss, vgg16=vgg16).to(torch_device)
    checkpoint.generator.to(torch_device)

    def say(text: str) -> None:
        console.say(text, quiet=quiet, always=True)

    is_perceptual = inversion_loss.perceptual is not None
    both = "; their sum is minimized, so PSNR may fall where the perceptual distance falls" if is_perceptual else ""
    say(f"polyinr: loss: {LOSS_DESCRIPTIONS[inversion_loss.name]}{both}")
    if encoder is None and start is not None:
        say("polyinr: starting at what the bundled encoder says (--encoder none: at the mean image)")
    for note in (note for image in images[: 1 if fps else None] for note in image.notes):
        say(note)
    if res is None and size is None and any(image.is_resized for image in images):
        say(f"polyinr: photos are matched at the model's {checkpoint.resolution} pixels; --res N matches more detail")
    noun = "frame" if fps else "photo"
    with stopping() as signal:
        title = images[0].name if len(images) == 1 else console.count(len(images), noun)
        with console.psnr_progress(title, quiet=quiet) as progress:
            results = invert_images(
                checkpoint,
                images,
                is_video=fps is not None,
                steps=steps,
                space=space,
                loss=inversion_loss,
                restarts=restarts,
                seed=seed,
                label=index,
                window=window,
                memory=working_memory(torch_device),
                encoder=start,
                product_dtype=torch.bfloat16 if multiplies_bfloat16(torch_device) else None,
                progress=progress,
                stop=signal.asked,
            )
        for result in results:
            say(f"{result.target.name}: {result}; {result.steps} steps in {result.seconds:.1f} s")
        if signal.asked():
            left = f"; {len(images) - len(results)} of {len(images)} {noun}s left out" if len(images) > 1 else ""
            say(f"polyinr: interrupted: keeping the best found so far{left}{', not tuned' if tune else ''}")
            delta_file = None
        tuning = None
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
            for before, tuned in zip(results, tuning.results, strict=True):
                say(f"{tuned.target.name}, before tuning: {before}")
                say(f"{tuned.target.name}, after tuning:  {tuned}")
            say(f"{delta_file}: {tuning}")
        is_interrupted = signal.asked()
    found = latents_of(results, tuning)
    write_latents_to(target, found)
    if show is not None:
        write_image(show, comparison_of(results, tuning), overwrite=overwrite)
    if target.stream is None:
        for line in _commands(target.path, model_file, delta_file, count=len(found), fps=fps):
            say(line)
    shared = {
        "model": found.model_sha256,
        "model_file": model_file.name,
        "loss": inversion_loss.name,
        "space": space,
        "window": list(window),
        "seed": seed,
    }
    for number, result in enumerate(results):
        own = {} if tuning is None else {"tuned": tuning.results[number].scores()}
        run.reporter.json(target.path, {**shared, "index": number, **result.to_dict(), **own})
    if tuning is not None and delta_file is not None:
        run.reporter.json(delta_file, tuning.to_dict())
    if is_interrupted:
        raise typer.Exit(interruption.exit_code)


def _commands(latents: Path, model: Path, delta: Path | None, *, count: int, fps: float | None) -> Iterator[str]:
    """Yield lines with the commands that render the latents, in the photos' shape, also with the tuned model."""
    from polyinr_core.checkpoints.locate import model_argument

    named = {"inverted": model} if delta is None else {"inverted": model, "tuned": Path(f"{model}+{delta}")}
    for suffix, file in named.items():
        chosen = ["-m", model_argument(file), "-o"]
        output = f"{latents.stem}-{suffix}"
        words = ["sample", "--latents", str(latents), *chosen, output + (".png" if count == 1 else "/")]
        if fps and count > 1:
            words = ["interpolate", str(latents), "--frames", str(count), "--fps", f"{fps:g}", *chosen, f"{output}.mp4"]
        yield f"{'render it' if suffix == 'inverted' else 'tuned,'} with: {shlex.join(['polyinr', *words])}"


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


def _sources(photos: list[Path], *, res: int | None, size: str | None) -> list[Path | bytes]:
    """Return what to invert, stdin as its bytes. Raises RequestError."""
    if sum(str(path) == "-" for path in photos) > 1:
        raise RequestError("- is given more than once; stdin holds one photo")
    if res is not None and size is not None:
        raise RequestError("--res and --size exclude each other; give one of the two")
    return [console.binary_stdin("image") if str(path) == "-" else path for path in photos]
