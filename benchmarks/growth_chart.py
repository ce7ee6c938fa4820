"""The chart of benchmarks/growth.py: python benchmarks/growth_chart.py draws it anew from the figures."""

import json
from pathlib import Path
from typing import Any

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, PALE = "#1f5fa8", "#b8b8b8"


def curve(axes: Axes, x: list[float], y: list[float], *, power: int, title: str, across: str, up: str) -> None:
    """Draw measured points over the straight line that a power of x is, through the last of them."""
    axes.plot(x, [y[-1] * (one / x[-1]) ** power for one in x], color=PALE, linewidth=4)
    axes.plot(x, y, "o-", color=INK, markersize=5)
    axes.set(xscale="log", yscale="log", title=title, xlabel=across, ylabel=up)
    axes.set_xticks(x, [f"{one:g}" for one in x])
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def draw_chart(found: dict[str, Any], path: Path) -> None:
    """Draw what growth.py found."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    (pixels, memory), (channels, images) = figure.subplots(2, 2)
    sides = [row["side"] for row in found["pixels"]]
    seconds = [row["ns_a_pixel"] * row["side"] ** 2 / 1e9 for row in found["pixels"]]
    curve(
        pixels,
        sides,
        seconds,
        power=2,
        title="Drawing: linear in the pixels",
        across="pixels a side",
        up="processor seconds",
    )
    memory.plot(sides, [row["mib"] for row in found["pixels"]], "o-", color=INK, markersize=5)
    memory.set(xscale="log", title="Drawing: memory beside the weights", xlabel="pixels a side", ylabel="MiB")
    memory.set_xticks(sides, [f"{side}" for side in sides])
    memory.set_ylim(0, 2 * max(row["mib"] for row in found["pixels"]))
    memory.minorticks_off()
    memory.grid(alpha=0.25)
    curve(
        channels,
        [row["channels"] for row in found["channels"]],
        [row["seconds"] for row in found["channels"]],
        power=2,
        title="Drawing: quadratic in the channels",
        across="channels",
        up="processor seconds, 64 px",
    )
    curve(
        images,
        [row["images"] for row in found["images"]],
        [row["seconds"] for row in found["images"]],
        power=1,
        title="Evaluating: linear in the images",
        across="images on either side",
        up="seconds",
    )
    figure.text(0.995, 0.005, "pale: the law", ha="right", va="bottom", color="#777777", fontsize=8)
    figure.savefig(path, dpi=110)


def main(figures: Path = Path("benchmarks/results/growth.json"), chart: Path = Path("docs/images/growth.png")) -> None:
    """Draw the chart of figures measured before."""
    draw_chart(json.loads(figures.read_text()), chart)


if __name__ == "__main__":
    typer.run(main)
