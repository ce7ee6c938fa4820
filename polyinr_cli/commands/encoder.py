"""`polyinr encoder`: train an encoder of images into a model's latents, from which `polyinr invert` starts."""

from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Device, Json, Overwrite, Quiet, Verbose, check_paths, parse_res
from polyinr_cli.rendering import load_model
from polyinr_cli.runtime import choose_device, interruption, stopping
from polyinr_core.errors import RequestError

MAX_STEPS, MAX_BATCH = 10**7, 2**16


def encoder(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Encoder to write (.safetensors).")],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="Model to train for: a checkpoint, a run folder or MODEL+DELTA. Default: as for -m elsewhere.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Training steps, 1-10000000.")] = 1000,
    batch: Annotated[int, typer.Option(metavar="N", help="New samples of each step, 1-65536.")] = 16,
    res: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=parse_res,
            help="Resolution in pixels at which images are encoded, a multiple of 8 in 8-256. Default: that of the "
            "model, at most 64.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed, 0-4294967295.")] = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train an encoder on the model's own samples, from which `polyinr invert --encoder FILE` starts.

    Every sample is new, so nothing but the model is needed. Ctrl-C ends the training and saves the encoder as it is.
    The file is below 2 MB for the bundled model.

    Example: polyinr encoder model.safetensors -o encoder.safetensors
    """
    for name, value, low, high in (
        ("--steps", steps, 1, MAX_STEPS),
        ("--batch", batch, 1, MAX_BATCH),
        ("--seed", seed, 0, 2**32 - 1),
    ):
        if not low <= value <= high:
            raise RequestError(f"{name} {value} is out of range {low}-{high}")
    if output.suffix != ".safetensors":
        raise RequestError(f"-o {output}: an encoder is a .safetensors file")
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    refuse_overwrite(output, overwrite=overwrite)
    check_place(output)
    check_paths(model)
    torch_device = choose_device(device)
    checkpoint, model_file = load_model(model, quiet=quiet)
    checkpoint.generator.to(torch_device)
    from polyinr_core.inversion.encoder import save_encoder, train_encoder

    with console.psnr_progress(f"encoder of {model_file.name}", quiet=quiet) as progress, stopping() as signal:
        trained = train_encoder(
            checkpoint, steps=steps, batch=batch, resolution=res, seed=seed, progress=progress, stop=signal.asked
        )
    sha256 = save_encoder(output, trained, overwrite=overwrite)
    facts = trained.facts
    is_interrupted = facts["steps"] < steps
    ended = "interrupted: saved as it is after" if is_interrupted else "trained in"
    console.say(
        f"{output}: {ended} {facts['steps']} steps, {facts['seconds']:.0f} s; held-out samples start at PSNR "
        f"{facts['psnr']:.2f} dB, from the mean image at {facts['psnr_of_mean']:.2f} dB",
        quiet=quiet,
        always=True,
    )
    about = {"sha256": sha256, "model": checkpoint.sha256, "resolution": trained.config.resolution}
    console.Reporter(as_json, quiet).json(output, about | facts)
    if is_interrupted:
        raise typer.Exit(interruption.exit_code)
