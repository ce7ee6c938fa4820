"""Options that several commands share, as annotated types; groups of options; the settings of `train` as a table."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from polyinr_core.errors import FileError, RequestError

MAX_DIGITS = 12
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Precision(StrEnum):
    """The dtype in which a command computes."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float64 = "float64"


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command's parameter be a group of options, which Typer sees in its place.

    A group is a dataclass, whose fields are the options, or a dictionary that is annotated with a `SettingsTable` and
    holds those of its options that are given.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[Callable[..., Any], list[Parameter]]] = {}
    for name, parameter in signature(command).parameters.items():
        hint = hints[name]
        table = next((extra for extra in get_args(hint) if isinstance(extra, SettingsTable)), None)
        if table is not None:
            groups[name] = (table.given, table.parameters())
        elif is_dataclass(hint):
            groups[name] = (hint, _parameters_of(hint))  # type: ignore[assignment]
        parameters += groups[name][1] if name in groups else [parameter.replace(annotation=hint)]

    def grouped(**given: Any) -> None:
        for name, (group, members) in groups.items():
            given[name] = group(**{member.name: given.pop(member.name) for member in members})
        command(**given)

    grouped.__doc__, grouped.__name__ = command.__doc__, command.__name__
    grouped.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return grouped


def _parameters_of(group: Any) -> list[Parameter]:
    """Return the parameters of a dataclass of options."""
    hints = get_type_hints(group, include_extras=True)
    return [_option(field.name, field.default, hints[field.name]) for field in fields(group)]


def _option(name: str, default: object, annotation: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@dataclass(frozen=True)
class SettingsTable:
    """The options of a training configuration, which default to the values of the preset.

    `groups` holds the groups of --help. In each the field and its metavar, as "batch N", name the help text. A flag and
    a choice have no metavar.
    """

    groups: Mapping[str, Mapping[str, str]]

    def parameters(self) -> list[Parameter]:
        """Return the options as parameters of a command, None where one is not given."""
        from polyinr_core.training.config import TrainingConfig

        types, parameters = get_type_hints(TrainingConfig), []
        for panel, settings in self.groups.items():
            for words, text in settings.items():
                field, _, metavar = words.partition(" ")
                name = field.replace("_", "-")
                option = typer.Option(
                    f"--{name}/--no-{name}" if types[field] is bool else f"--{name}",
                    metavar=metavar or None,
                    help=f"{text} {preset_values(field)}".strip(),
                    rich_help_panel=panel,
                )
                parameters.append(_option(field, None, Annotated[_type_of(types[field]) | None, option]))
        return parameters

    def given(self, **values: Any) -> dict[str, Any]:
        """Return the settings that are given."""
        return {name: value for name, value in values.items() if value is not None}


def _type_of(annotation: Any) -> Any:
    """Return the type of a field's option: that of choices, numbers and flags, text for what the library parses."""
    if get_origin(annotation) is Literal:
        return annotation
    kinds = {*(get_args(annotation) or (annotation,))} & {bool, int, float}
    return kinds.pop() if kinds else str


def preset_values(field: str) -> str:
    """Return what the presets set a field to: "[small: 32; tiny: 8; imagenet, ffhq: 64]", "[default: hinge]" if all do.

    Empty for a field that no preset sets.
    """
    from polyinr_core.training.config import DEFAULT_PRESET, PRESETS

    presets_by_value: dict[str, list[str]] = {}
    for preset in sorted(PRESETS, key=lambda preset: preset != DEFAULT_PRESET):
        value = PRESETS[preset].to_dict()[field]
        if isinstance(value, bool):
            value = "yes" if value else "no"
        items = value if isinstance(value, list) else str(value).removesuffix(".0").split(",")
        text = ",".join(items if len(items) <= 2 else [items[0], "...", items[-1]])
        presets_by_value.setdefault(text, []).append(preset)
    if len(presets_by_value) == 1:
        return "" if "None" in presets_by_value else f"[default: {text}]"
    parts = [f"{', '.join(presets)}: {text}" for text, presets in presets_by_value.items()]
    return f"[{'; '.join(parts)}]"


def _raise_verbosity(verbose: bool) -> bool:
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    return verbose


def _lower_verbosity(quiet: bool) -> bool:
    if quiet:
        logging.getLogger().setLevel(logging.ERROR)
    return quiet


def _checked_bits(bits: int | None) -> int | None:
    if bits not in (None, 8, 16):
        raise RequestError(f"--bits {bits} is neither 8 nor 16")
    return bits


def _checked_tolerance(tolerance: float | None) -> float | None:
    if tolerance is not None and not 0 <= tolerance <= 255:
        raise RequestError(f"--tolerance {tolerance:g} is outside 0-255; 0 renders exactly")
    return tolerance


def check_paths(*paths: Path | None) -> None:
    """Raise FileError for a path that does not exist, before PyTorch is imported to read it.

    Patterns of shards, MODEL+DELTA, names such as hf:owner/name and - are left to their readers.
    """
    from polyinr_core.runtime.atomic_io import explain

    for path in paths:
        if path is None or str(path) in ("-", "bundled") or set(str(path)) & set("*?[{+:\0"):
            continue
        try:
            path.stat()
        except OSError as error:
            raise explain(path, error) from error


def check_output_file(path: Path | None, suffix: str, *, overwrite: bool) -> None:
    """Raise PolyinrError if -o cannot be written as a file of this suffix; None and - are fine."""
    if path is None or str(path) == "-":
        return
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if path.suffix != suffix:
        raise RequestError(f"-o {path}: the result is written as {suffix}")
    if path.is_dir():
        raise FileError(path, "is a folder; name a file")
    refuse_overwrite(path, overwrite=overwrite)
    check_place(path)


def parse_duration(text: str) -> float:
    """Parse --max-time, such as 90s, 9m, 24h or 2d, as seconds. Raises RequestError."""
    try:
        seconds = float(text[:-1]) * UNITS[text[-1:]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"--max-time {text!r} is not a duration; write 90s, 9m or 24h")
    return seconds


def parse_res(text: str) -> int:
    """Parse --res, a number of pixels. Raises RequestError."""
    if not text.strip().isdecimal() or len(text) > MAX_DIGITS:
        raise RequestError(
            f"--res {text[:40]!r} is not a number of pixels; write an integer such as 256 (--size takes width x height)"
        )
    return int(text)


def refuse_options(given: Mapping[str, object], *, beside: str) -> None:
    """Raise RequestError for an option, such as --count, that is given and does not apply."""
    for name, value in given.items():
        if value is not None and value != []:
            raise RequestError(f"{name} does not apply to {beside}; leave it out")


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


def output_option(metavar: str, help: str) -> Any:
    """Return the option -o of a command that writes something of its own."""
    return typer.Option("-o", "--output", metavar=metavar, help=help)


# As typed: a trailing slash, which Path drops, means a folder.
OutputText = Annotated[str, output_option("PATH", "Output path; its suffix sets the format. - is stdout.")]
_FORMAT = typer.Option(
    "--format", help="Format of -o -: a PNG, an array, latents, or raw pixels (3 bytes each, image after image)."
)
StdoutFormat = Annotated[Literal["png", "npy", "latents", "rgb24"] | None, _FORMAT]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output if it exists, which is otherwise an error.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=_lower_verbosity, help="Print errors only.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=_raise_verbosity, help="Print more messages, and tracebacks of errors."),
]

Model = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        metavar="PATH",
        help="Checkpoint, MODEL+DELTA, run folder (its newest checkpoint), or hf:OWNER/NAME[@REVISION] on the hub. "
        "Default: $POLYINR_MODEL, else the newest checkpoint below ./runs, else the bundled model.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="Where to compute: auto (a CUDA GPU if available), cpu, cuda, cuda:N or mps."
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Type of the arithmetic. auto: bfloat16 if the hardware supports it, the output is 8-bit and the result "
        "is visually identical; otherwise float32.",
    ),
]

Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0-7,12", help="Seeds of the images, one image each.")]
LatentsFile = Annotated[
    Path | None, typer.Option("--latents", metavar="FILE", help="Latents file to render; - is stdin.")
]
Label = Annotated[
    str | None, typer.Option("--label", metavar="CLASS", help="Class, by name or number. Default: drawn from the seed.")
]
Psi = Annotated[
    float | None,
    typer.Option(
        "--psi",
        metavar="NUMBER",
        help="Truncation psi: 1 is none (the default for seeds), 0 the mean image. Default for latents: as stored.",
    ),
]
Res = Annotated[int | None, typer.Option("--res", metavar="N", parser=parse_res, help="Width and height in pixels.")]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="WxH", help="Width x height in pixels; another shape than a square shows more of the plane."
    ),
]
Grid = Annotated[
    str, typer.Option("--grid", metavar="A:B", help="Window, A:B or X0:X1,Y0:Y1; 0:1 is the trained square.")
]
OptionalGrid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="A:B",
        help="Window, A:B or X0:X1,Y0:Y1; 0:1 is the trained square. Default: 0:1 along the shorter side.",
    ),
]
Stretch = Annotated[
    bool, typer.Option("--stretch", help="Stretch the trained square to --size, rather than show more beside it.")
]
Supersample = Annotated[
    int, typer.Option("--supersample", metavar="K", help="Average K x K points per pixel, against aliasing; 1 to 64.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="STEPS",
        callback=_checked_tolerance,
        help="Adaptive rendering: error of at most STEPS/255 on 99.9 % of the pixels. 0 is exact.",
    ),
]
_BITS = typer.Option(
    "--bits",
    metavar="8|16",
    callback=_checked_bits,
    show_default=False,
    help="Bits per color channel, in PNG and TIFF. Default: 8.",
)
Bits = Annotated[int, _BITS]
OptionalBits = Annotated[int | None, _BITS]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Use latents of another model if their shapes fit; the images differ. Replaces no file."
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", metavar="NAME=FILE", help="Read a pretrained network's weights from FILE. Can be repeated."
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Download pretrained weights that are not on this machine.")]

TRAINING_SETTINGS = SettingsTable(
    {
        "Stages and batches": {
            "stages RES:KIMG,...": (
                "Resolution and length of each stage, as 32:200,64:100 (px:kimg). A stage can override batch, g_lr, "
                "d_lr, mirror and guidance: 64:100:batch=32."
            ),
            "batch N": "Images per iteration, of all processes together (2-65536).",
            "micro_batch N": "Images per forward pass, of all processes together; a divisor of --batch. 0: --batch.",
            "chunk PIXELS": (
                "Pixels of the generator's backward pass at a time, to save memory. 0: all. Default: as memory "
                "requires."
            ),
            "precision": "Type of the matrix products. auto: bfloat16 where supported. Weights stay float32.",
            "seed N": "Seed of all random numbers of the run (0 to 2^32-1).",
            "mirror": "Also train on mirrored images.",
            "auto_advance N": "End a stage after N measurements in a row without improvement. 0: never.",
        },
        "Networks": {
            "channels N": "Width of the synthesis network.",
            "class_centering PART": (
                "Part of their common mean to subtract from the class embeddings at the start. 0: none, as in the "
                "release, 1: all."
            ),
            "cond": "Train a class-conditional model, if the dataset has labels.",
            "classifier": "Network of classifier guidance.",
            "guidance WEIGHT": "Weight of the classifier's loss. 0: no guidance.",
        },
        "Discriminator": {
            "backbones A,B": "Backbones of the discriminator: lite0, deit-base, or both.",
            "disc_res N": "Resolution of the backbones' input in px, as 128 or 224.",
            "head_resolution N": (
                "Image size that the depth of the discriminator's heads is made for, a power of two. At most twice "
                "--disc-res."
            ),
            "loss": "Adversarial loss; relativistic compares pairs of a real and a fake.",
            "penalty WEIGHT": (
                "Weight of the discriminator's gradient penalty (R1 and R2 by finite differences), as 0.01. 0: none."
            ),
            "penalty_every N": "Compute the penalty in every N-th iteration only, with N times the weight.",
            "lecam WEIGHT": "Weight of the LeCam penalty, as 0.01. 0: none.",
            "augment": (
                "Augmentation in front of the discriminator; adaptive applies as much as the overfitting requires."
            ),
            "schedule": (
                "Learning rates, blur and penalty over a stage; under cosine the rates and the penalty fall to 10 %."
            ),
            "blur_kimg KIMG": "Thousand images of a stage over which the blur in front of the discriminator fades.",
        },
        "Data": {
            "held_out N": (
                "Images withheld from training, to detect overfitting. Default: 2 %, at most 512, of a dataset of 500 "
                "or more."
            ),
            "workers N": "Processes that decode images (0-256). Default: up to 4, for a dataset above 1 GiB.",
        },
        "Saving and measuring": {
            "state_every KIMG": "Save a resumable training state every KIMG thousand images.",
            "checkpoint_every KIMG": "Save a checkpoint and a grid of samples every KIMG thousand images.",
            "keep N": "Keep the N newest checkpoints, beside the best. 0: all.",
            "metric_every KIMG": "Compute the metrics every KIMG thousand images. 0: never.",
            "metrics A,B": (
                "Metrics to compute: fd-lite2, kd-lite2, fid. The first one decides which checkpoint is the best."
            ),
        },
    }
)
TrainingSettings = Annotated[dict[str, Any], TRAINING_SETTINGS]
