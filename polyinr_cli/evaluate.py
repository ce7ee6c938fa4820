"""polyinr evaluate: figures of what a model draws, or of any pictures, against real ones, with their card."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_core.errors import RequestError

from . import recipe, streams
from .devices import choose_device
from .judged import (
    HeldOutRun,
    SaveStatistics,
    SplitOverRanks,
    check_ranks,
    check_statistics_file,
    open_judged,
)
from .models import load_model
from .options import Device, Json, Label, Model, OptionalOutput, Overwrite, Quiet, Verbose
from .ranks import joined, own_device, own_rank

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from polyinr_core.evaluation.drawn import DrawnPictures
    from polyinr_core.evaluation.measure import Side
    from polyinr_core.evaluation.seen import Seen
    from polyinr_core.metrics.rules import Sense

ENOUGH = 10_000  # pictures; figures of fewer are biased by much of what sets models apart
DRAWN = 10_000
DEFAULT = "fd-lite2,kd-lite2"


def evaluate(
    real: Annotated[
        Path,
        typer.Option(
            "--real",
            metavar="DATA",
            show_default=False,
            help="Real pictures: an archive, tar shards, a folder; or statistics of some, .safetensors or .npz.",
        ),
    ],
    fake: Annotated[
        Path | None,
        typer.Option(
            "--fake",
            metavar="DATA",
            show_default=False,
            help="Generated pictures, likewise; without it -m draws.",
        ),
    ] = None,
    model: Model = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="fid, fid-clean, sfid, rfid-seed0, is, kid, pr, pr-adm, or fd-, kd-, pr-, dc- in lite2, "
            "inception, dinov2, timm:NAME, torchscript:FILE.",
        ),
    ] = DEFAULT,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            show_default=False,
            help=f"Generated pictures: seeds 0 to N-1, or N of --fake. Without it {DRAWN}, or all of --fake.",
        ),
    ] = None,
    real_count: Annotated[
        int | None,
        typer.Option("--real-count", metavar="N", show_default=False, help="Real pictures; all without it."),
    ] = None,
    res: Annotated[
        int | None,
        typer.Option(
            "--res", metavar="N", show_default=False, help="Draw at N pixels; reduce stored pictures to N."
        ),
    ] = None,
    psi: Annotated[float, typer.Option("--psi", metavar="NUMBER", help="Truncation; 1 is none.")] = 1.0,
    label: Label = None,
    weights: recipe.Weights = None,
    download: recipe.Download = False,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", metavar="N", help="Intervals of 95 percent from N resamples; 0 is none.")
    ] = 0,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Pictures looked at together.")] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            show_default=False,
            help="Keep what is seen of pictures here, for the next time and to go on after Ctrl-C.",
        ),
    ] = None,
    held_out: HeldOutRun = None,
    save_statistics: SaveStatistics = None,
    split_over_ranks: SplitOverRanks = False,
    device: Device = "auto",
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure generated pictures against real ones, each metric by its protocol.

    -o result.json keeps the figures with a card: all that they depend on. --json prints the same.

    Example: polyinr evaluate --real cats.zip -m model.safetensors --count 10000 -o result.json
    """
    check_ranks(split_over_ranks)
    quiet = quiet or own_rank() > 0
    streams.refuse_two_payloads(output, as_json=as_json)
    if fake is not None and model is not None:
        raise RequestError("--fake gives pictures and -m draws them; give one of the two")
    if fake is not None and (label is not None or psi != 1):
        raise RequestError("--label and --psi are for a model that draws; leave them out with --fake")
    if output is not None and str(output) != "-":
        _check_output(output, overwrite=overwrite)
    check_statistics_file(save_statistics, overwrite=overwrite)
    for name, number in (("--count", count), ("--real-count", real_count), ("--res", res), ("--batch", batch)):
        if number is not None and number < 1:
            raise RequestError(f"{name} {number} is below 1")
    if bootstrap < 0 or bootstrap == 1:
        raise RequestError(f"--bootstrap {bootstrap} is no number of resamples; give 2 or more, 100 say, or 0")
    if not abs(psi) <= 1e6:
        raise RequestError(f"psi {psi} is no number that pictures can be drawn with; 0.5 to 1 is usual")
    files = recipe.parse_weights(weights or [])

    from polyinr_core.evaluation.measure import Settings, check
    from polyinr_core.evaluation.measure import evaluate as measured
    from polyinr_core.evaluation.protocols import load_networks
    from polyinr_core.evaluation.saved import SavedStatistics
    from polyinr_core.evaluation.saved import save_statistics as write_statistics
    from polyinr_core.metrics.rules import metrics_named, networks_of

    chosen = metrics_named([name.strip() for name in metrics.split(",")])
    place = own_device(choose_device(device))
    settings = Settings(batch=batch, bootstrap=bootstrap, cache=cache)
    reals = open_judged(real, option="--real", side=res, count=real_count, run=held_out)
    if save_statistics is not None and isinstance(reals, SavedStatistics):
        raise RequestError(f"--real {real} are statistics already; --save-statistics is for pictures")
    if fake is not None:
        fakes: Side = open_judged(fake, option="--fake", side=res, count=count)
    else:
        fakes = _drawn(model, count or DRAWN, res=res, psi=psi, label=label, device=place, quiet=quiet)
    check(reals, fakes, chosen, settings)
    networks = load_networks(networks_of(chosen.values()), files, download=download)

    def keep_reals(seen: "Mapping[Sense, Seen]") -> None:
        if save_statistics is not None and not isinstance(reals, SavedStatistics):
            write_statistics(save_statistics, reals, seen, networks, overwrite=overwrite)

    with joined(place) as ranks, ExitStack() as bars:
        result = measured(
            reals,
            fakes,
            chosen,
            networks,
            device=place,
            settings=settings,
            progress=lambda what: bars.enter_context(streams.progress(f"looking at {what}", quiet=quiet)),
            ranks=ranks,
            warn=lambda text: streams.say(f"polyinr: {text}", quiet=quiet, always=True),
            keep_reals=keep_reals,
        )
        if not ranks.leads:
            return
        _warn_if_few(reals, fakes, quiet=quiet)
        _report(result, output, overwrite=overwrite, as_json=as_json)


def _drawn(
    model: Path | None,
    count: int,
    *,
    res: int | None,
    psi: float,
    label: str | None,
    device: "torch.device",
    quiet: bool,
) -> "DrawnPictures":
    """Return the pictures that a model draws. Raises PolyinrError."""
    from polyinr_core.evaluation.drawn import DrawnPictures

    from .named import class_index

    snapshot, file = load_model(model, quiet=quiet)
    index = class_index(label, snapshot)
    snapshot.generator.to(device=device)
    return DrawnPictures(snapshot, name=str(file), count=count, side=res, psi=psi, label=index)


def _check_output(output: Path, *, overwrite: bool) -> None:
    from polyinr_core.errors import FileError
    from polyinr_core.files import refuse_overwrite

    if output.suffix != ".json":
        raise RequestError(f"-o {output}: figures and card are written as .json")
    if output.is_dir():
        raise FileError(output, "is a folder, a file is needed")
    refuse_overwrite(output, overwrite=overwrite)


def _warn_if_few(reals: "Side", fakes: "Side", *, quiet: bool) -> None:
    known = [len(side) for side in (reals, fakes) if len(side)]  # statistics may not say
    if len(known) == 2 and min(known) < ENOUGH:
        streams.say(
            f"polyinr: {len(reals)} real and {len(fakes)} generated pictures: under {ENOUGH} the distances are "
            "biased by the counts; compare only figures of equal counts",
            quiet=quiet,
            always=True,
        )


def _report(result: dict[str, Any], output: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Write figures and card where they are asked for; print a table where stdout is free."""
    from polyinr_core.files import written_beside

    if as_json:
        streams.json_line(result)
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if output is not None and str(output) == "-":
        streams.json_line(result)
        return
    if output is not None:
        with written_beside(output, overwrite=overwrite) as draft:
            draft.write_text(text)
    if not as_json:
        for line in table(result["figures"]):
            streams.line(line)


def table(figures: dict[str, dict[str, float]]) -> list[str]:
    """Return figures as lines: name, value, and the interval where there is one."""
    width = max(map(len, figures))
    lines = []
    for name, row in figures.items():
        words = f"{name:<{width}}  {row['value']:12.6g}"
        if "low" in row:
            words += f"  {row['low']:.6g} to {row['high']:.6g}"
        elif "deviation" in row:
            words += f"  +- {row['deviation']:.3g}"
        lines.append(words)
    return lines
