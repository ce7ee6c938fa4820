"""The plan of a training run on the screen, for --dry-run: a table for people, or JSON lines."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import WeightsError

from . import streams
from .devices import total_memory
from .live import duration

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polyinr_core.data.picture_set import PictureSet
    from polyinr_core.training.config import TrainingConfig
    from polyinr_core.training.plan import Plan, StagePlan

HEADINGS = ("stage", "kimg", "batch", "iterations", "g_lr", "d_lr", "mirror", "guidance", "blur", "chunk")
COSTS = ("pictures/s", "time", "memory")


def show(plan: "Plan", *, as_json: bool = False) -> None:
    """Write a plan to stdout: one JSON object a line, or aligned columns that stay readable in a pipe."""
    if as_json:
        for fact in plan.to_dicts():
            streams.json_line(fact)
        return
    for line in lines_of(plan):
        streams.line(line)


def show_plan(
    config: "TrainingConfig",
    data: "PictureSet",
    names: list[str],
    files: dict[str, Path],
    *,
    device: "torch.device",
    dtype: "torch.dtype",
    as_json: bool,
) -> None:
    """Make the plan of a run and show it; weights that are missing do not stop it. Raises PolyinrError."""
    from polyinr_core.training.plan import make_plan
    from polyinr_core.training.run import check_run

    check_run(config, data)
    weights, missing = weights_at_hand({*names} - {"inception"}, files)
    memory = total_memory(device)
    made = make_plan(config, data, weights, device=device, dtype=dtype, memory=memory)
    show(replace(made, notes=(*made.notes, *missing)), as_json=as_json)


def lines_of(plan: "Plan") -> list[str]:
    """Return the lines of a plan as a person reads them."""
    data = plan.data
    classes = f"{data['classes'] or 'no'} classes"
    held_out = f" ({data['held_out']:,} held out)" if data["held_out"] else ""
    pictures = f"{data['pictures']:,} pictures{held_out}"
    parts = {
        "learned": ("generator", "critic"),
        "frozen": ("backbones", "classifier"),
    }
    counted = {
        kind: [f"{name} {plan.parameters[name]:,}" for name in names if name in plan.parameters]
        for kind, names in parts.items()
    }
    return [
        f"data        {data['name']}: {pictures} of {data['resolution']} px, {classes}",
        f"parameters  learned: {', '.join(counted['learned'])}; frozen: {', '.join(counted['frozen'])}",
        "",
        *aligned([(*HEADINGS, *COSTS), *(cells_of(stage) for stage in plan.stages)]),
        "",
        f"in all      about {duration(plan.seconds)}, {size(plan.memory)} at the peak, judging by a short probe",
        *(f"note        {note}" for note in plan.notes),
    ]


def cells_of(stage: "StagePlan") -> tuple[str, ...]:
    """Return a stage's row of the table."""
    parts = stage.batch // stage.micro_batch
    return (
        f"{stage.resolution} px",
        f"{stage.kimg:,.6g}",
        f"{stage.batch}" if parts == 1 else f"{parts}x{stage.micro_batch}",
        f"{stage.iterations:,}",
        f"{stage.g_lr:.3g}",
        f"{stage.d_lr:.3g}",
        "yes" if stage.mirror else "no",
        f"{stage.guidance:g}" if stage.guidance else "-",
        f"{stage.blur:g} px" if stage.blur else "-",
        f"{stage.chunk:,}" if stage.chunk else "-",
        f"{stage.batch / stage.seconds_per_iteration:,.3g}",
        duration(stage.seconds),
        size(stage.memory),
    )


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, each column as wide as its widest cell, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def size(count: int) -> str:
    """Return bytes in MiB or GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def weights_at_hand(names: set[str], files: dict[str, Path]) -> tuple[dict[str, dict[str, "Tensor"]], list[str]]:
    """Return the pretrained networks that are here, and a line about each that is not; nothing is fetched.

    Raises WeightsError for a file that was named and cannot be used.
    """
    from polyinr_core.weights.pretrained import load_pretrained

    found, lines = {}, []
    for name in sorted(names):
        try:
            found[name] = load_pretrained(name, file=files.get(name))
        except WeightsError as error:
            if name in files:
                raise
            lines.append(str(error))
    return found, lines
