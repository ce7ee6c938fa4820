"""The options of `polyinr train`, and those of pretrained weights."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from polyinr_core.errors import RequestError

from .options import Precision


def preset_option(flags: str, help: str, *, metavar: str | None = None) -> Any:
    """Make an option whose default is the preset's value."""
    return typer.Option(*flags.split(), metavar=metavar, show_default=False, help=help)


Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Start from these settings: small, tiny, imagenet or ffhq. Options override them.",
    ),
]
Stages = Annotated[
    str | None,
    preset_option(
        "--stages",
        "Resolution and length of each stage, as 32:200,64:100 (px:kimg). A stage can override batch, g_lr, d_lr, "
        "mirror and guidance: 64:100:batch=32.",
        metavar="RES:KIMG,...",
    ),
]
Batch = Annotated[
    int | None, preset_option("--batch", "Images per iteration, of all processes together (2-65536).", metavar="N")
]
MicroBatch = Annotated[
    int | None,
    preset_option(
        "--micro-batch",
        "Images per forward pass, of all processes together; a divisor of --batch. 0: --batch.",
        metavar="N",
    ),
]
Chunk = Annotated[
    int | None,
    preset_option(
        "--chunk",
        "Pixels of the generator's backward pass at a time, to save memory. 0: all. Default: as memory requires.",
        metavar="PIXELS",
    ),
]
TrainingPrecision = Annotated[
    Precision | None,
    preset_option("--precision", "Type of the matrix products. auto: bfloat16 where supported. Weights stay float32."),
]
Seed = Annotated[
    int | None, preset_option("--seed", "Seed of all random numbers of the run (0 to 2^32-1).", metavar="N")
]
Channels = Annotated[int | None, preset_option("--channels", "Width of the synthesis network.", metavar="N")]
Backbones = Annotated[
    str | None,
    preset_option("--backbones", "Backbones of the discriminator: lite0, deit-base, or both.", metavar="A,B"),
]
DiscriminatorRes = Annotated[
    int | None,
    preset_option("--disc-res", "Resolution of the backbones' input in px, as 128 or 224.", metavar="N"),
]
Cond = Annotated[
    bool | None,
    preset_option("--cond/--no-cond", "Train a class-conditional model. Default: if the dataset has labels."),
]
Mirror = Annotated[bool | None, preset_option("--mirror/--no-mirror", "Also train on mirrored images.")]
Classifier = Annotated[
    str | None,
    preset_option("--classifier", "Network of classifier guidance: lite2 or deit-small.", metavar="NAME"),
]
Guidance = Annotated[
    float | None, preset_option("--guidance", "Weight of the classifier's loss. 0: no guidance.", metavar="WEIGHT")
]
HeldOut = Annotated[
    int | None,
    preset_option(
        "--held-out",
        "Images withheld from training, to detect overfitting. Default: 2 %, at most 512, of a dataset of 500 or more.",
        metavar="N",
    ),
]
Workers = Annotated[
    int | None,
    preset_option(
        "--workers",
        "Processes that decode images (0-256). Default: up to 4, for a dataset above 1 GiB.",
        metavar="N",
    ),
]
InitFrom = Annotated[
    Path | None,
    preset_option(
        "--init-from", "Start from this checkpoint, or from the newest one of a run folder.", metavar="CHECKPOINT"
    ),
]
AutoAdvance = Annotated[
    int | None,
    preset_option(
        "--auto-advance",
        "End a stage after N measurements in a row without improvement. 0: never.",
        metavar="N",
    ),
]
StateEvery = Annotated[
    float | None,
    preset_option("--state-every", "Save a resumable training state every KIMG thousand images.", metavar="KIMG"),
]
CheckpointEvery = Annotated[
    float | None,
    preset_option(
        "--checkpoint-every", "Save a checkpoint and a grid of samples every KIMG thousand images.", metavar="KIMG"
    ),
]
MetricEvery = Annotated[
    float | None,
    preset_option("--metric-every", "Compute the metrics every KIMG thousand images. 0: never.", metavar="KIMG"),
]
Metrics = Annotated[
    str | None,
    preset_option(
        "--metrics",
        "Metrics to compute: fd-lite2, kd-lite2, fid. The first one decides which checkpoint is the best.",
        metavar="A,B",
    ),
]
Keep = Annotated[
    int | None,
    preset_option("--keep", "Keep the N newest checkpoints, beside the best. 0: all.", metavar="N"),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="NAME=FILE",
        show_default=False,
        help="Read a pretrained network's weights from FILE. Can be repeated.",
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Download pretrained weights that are not on this machine.")]
MaxTime = Annotated[
    str | None,
    preset_option("--max-time", "Save and exit after this time: 90s, 9m, 24h. Default: no limit.", metavar="TIME"),
]
RunDir = Annotated[Path | None, preset_option("--run-dir", "The run folder. Default: runs/PRESET-DATA.", metavar="DIR")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan, with time and memory measured on a few iterations, and exit."),
]


def given_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of a command's options that are fields of a training configuration and were given."""
    from polyinr_core.training.config import TrainingConfig

    names = {field.name for field in fields(TrainingConfig)} - {"init_from"}
    given = {name: value for name, value in options.items() if name in names and value is not None}
    if "precision" in given:
        given["precision"] = str(given["precision"])
    return given


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """Read NAME=FILE. Raises RequestError."""
    files = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise RequestError(f"--weights {text!r} is not NAME=FILE, as deit-base=deit.safetensors")
        if name in files:
            raise RequestError(f"--weights names two files for {name}; give one")
        files[name] = Path(file)
    return files
