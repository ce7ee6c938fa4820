"""The recipe of a training run: its options, and the configuration that a preset and they make up."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_core.errors import RequestError

from .options import Precision

if TYPE_CHECKING:
    from polyinr_core.training.config import TrainingConfig


def over(flags: str, help: str, *, metavar: str | None = None) -> Any:
    """Make an option that goes over the preset's value, where it is given."""
    return typer.Option(*flags.split(), metavar=metavar, show_default=False, help=help)


Preset = Annotated[
    str,
    typer.Option("--preset", metavar="NAME", help="emoji, tiny, imagenet or ffhq; other options go over it."),
]
Stages = Annotated[
    str | None,
    over(
        "--stages",
        "As 32:200,64:100. A stage may have its own batch, g_lr, d_lr, mirror, guidance: 64:100:batch=32.",
        metavar="RES:KIMG,...",
    ),
]
Batch = Annotated[int | None, over("--batch", "Images an iteration, of all processes together.", metavar="N")]
MicroBatch = Annotated[int | None, over("--micro-batch", "Images in memory at once; divides the batch.", metavar="N")]
Chunk = Annotated[
    int | None,
    over(
        "--chunk",
        "Pixels of the generator's backward pass at once, 0 for all. Without it: as memory needs.",
        metavar="PIXELS",
    ),
]
TrainingPrecision = Annotated[
    Precision | None, over("--precision", "auto: bfloat16 where the hardware has it. Weights stay float32.")
]
Seed = Annotated[int | None, over("--seed", "Of every random draw of the run.", metavar="N")]
Channels = Annotated[int | None, over("--channels", "Width of every level.", metavar="N")]
Backbones = Annotated[
    str | None, over("--backbones", "What the discriminator looks through: lite0, deit-base or both.", metavar="A,B")
]
DiscriminatorRes = Annotated[
    int | None, over("--disc-res", "Side at which the backbones look, as 128 or 224.", metavar="N")
]
Cond = Annotated[bool | None, over("--cond/--no-cond", "Learn the classes. Default: where the data has some.")]
Mirror = Annotated[bool | None, over("--mirror/--no-mirror", "Show mirrored images too.")]
Classifier = Annotated[
    str | None, over("--classifier", "What guides towards the classes: lite2 or deit-small.", metavar="NAME")
]
Guidance = Annotated[float | None, over("--guidance", "Weight of the classifier's loss; 0 is none.", metavar="WEIGHT")]
HeldOut = Annotated[
    int | None,
    over(
        "--held-out",
        "Images kept from training, to notice over-fitting. Default: 2 %, at most 512, of 500 or more.",
        metavar="N",
    ),
]
Workers = Annotated[
    int | None, over("--workers", "Processes that read images. Default: as the data needs.", metavar="N")
]
InitFrom = Annotated[
    Path | None, over("--init-from", "Start from this model, or a run folder's newest.", metavar="CHECKPOINT")
]
AutoAdvance = Annotated[
    int | None,
    over(
        "--auto-advance",
        "End a stage after N measurements in a row that were no better than the best.",
        metavar="N",
    ),
]
StateEvery = Annotated[float | None, over("--state-every", "What resuming needs, written so often.", metavar="KIMG")]
CheckpointEvery = Annotated[
    float | None, over("--checkpoint-every", "A model and a sheet of its images, so often.", metavar="KIMG")
]
MetricEvery = Annotated[
    float | None, over("--metric-every", "Distances to the data, so often; 0 is never.", metavar="KIMG")
]
Metrics = Annotated[
    str | None,
    over("--metrics", "fd-lite2, kd-lite2, fid; the first one is watched.", metavar="A,B"),
]
Keep = Annotated[int | None, over("--keep", "Newest models kept, beside the best; 0 is all.", metavar="N")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="NAME=FILE",
        show_default=False,
        help="A network's weights from a file of yours; may be given several times.",
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch weights that are not on this machine.")]
MaxTime = Annotated[str | None, over("--max-time", "Stop and save after 90s, 9m, 24h.", metavar="9m")]
RunDir = Annotated[Path | None, over("--run-dir", "Default: runs/PRESET-DATA.", metavar="DIR")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, with time and memory from a short probe, and exit.")
]


def given_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of a command's options that are fields of a configuration and were given, as its values."""
    from polyinr_core.training.config import TrainingConfig, parse_stages

    names = {field.name for field in fields(TrainingConfig)} - {"init_from"}
    given = {name: value for name, value in options.items() if name in names and value is not None}
    for name in ("backbones", "metrics"):
        if name in given:
            given[name] = tuple(given[name].split(","))
    if "stages" in given:
        given["stages"] = parse_stages(given["stages"])
    if "precision" in given:
        given["precision"] = str(given["precision"])
    return given


def configure(preset: str, given: dict[str, Any]) -> "TrainingConfig":
    """Return a preset's configuration with the given fields over it, also over those of its stages.

    Raises ConfigError, RequestError.
    """
    from polyinr_core.training.config import PRESETS, SETTINGS

    if preset not in PRESETS:
        raise RequestError(f"preset {preset!r} is unknown; choose from {', '.join(PRESETS)}")
    config = PRESETS[preset]
    own: dict[str, Any] = dict.fromkeys(given.keys() & SETTINGS)
    stages = tuple(replace(stage, **own) for stage in config.stages)
    config = replace(config, **{"stages": stages, **given})
    if "metrics" in given and not config.metric_every:
        raise RequestError("--metrics says what to measure, but it is never done: give --metric-every, too")
    return config


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
