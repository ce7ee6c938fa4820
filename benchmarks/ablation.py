"""What each training option changes: python benchmarks/ablation.py TRAIN.zip HELD_OUT.zip --kimg 40 --seeds 0,1

Trains the preset `small` at 32 px with each of VARIANTS and each seed, into one run folder each below --runs, and
measures the checkpoints on images that no run has seen. A stopped benchmark resumes where it was: runs resume exactly,
and what --output holds for the same options is not trained again. Prints a table of the last checkpoints and plots all.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from results_io import facts, write

from polyinr_core.evaluation.evaluate import evaluate
from polyinr_core.rendering.model import load
from polyinr_core.training.loop import train

BEFORE = {"g_lr": 2e-4, "d_lr": 1e-4, "class_centering": 0.0, "penalty": 0.0, "blur_kimg": 300.0}  # polyinr 0.1
VARIANTS: dict[str, dict[str, Any]] = {
    "0.1": BEFORE,
    "rates x 2.5": {**BEFORE, "g_lr": 5e-4, "d_lr": 2.5e-4},
    "rates x 5": {**BEFORE, "g_lr": 1e-3, "d_lr": 5e-4},
    "+ short blur": {**BEFORE, "g_lr": 5e-4, "d_lr": 2.5e-4, "blur_kimg": 20.0},
    "+ centered classes": {"penalty": 0.0},
    "+ penalty = small": {},
    "+ relativistic": {"loss": "relativistic"},
    "+ adaptive": {"augment": "adaptive"},
    "+ LeCam": {"lecam": 0.01},
    "+ cosine": {"schedule": "cosine"},
    "+ view of 96 px": {"disc_res": 96},
    "+ view of 128 px": {"disc_res": 128},
}
METRICS = ("kd-lite2", "prdc-lite2")
COLUMNS = {
    "kd-lite2": "kd",
    "pr-lite2/precision": "precision",
    "pr-lite2/recall": "recall",
    "dc-lite2/coverage": "coverage",
}


def main(
    train_data: Path,
    held_out: Path,
    kimg: float = 40.0,
    every: Annotated[float, typer.Option(help="kimg between two measurements.")] = 10.0,
    count: Annotated[int, typer.Option(help="Generated images of a measurement.")] = 1000,
    seeds: str = "0,1",
    variants: Annotated[str, typer.Option(help="Names in VARIANTS, separated by commas. Default: all.")] = "",
    runs: Path = Path("runs/ablation"),
    output: Path = Path("benchmarks/results/ablation.json"),
    plot: Path = Path("docs/images/ablation.png"),
) -> None:
    """Train and measure every variant with every seed."""
    names = variants.split(",") if variants else list(VARIANTS)
    options = {"kimg": kimg, "every": every, "count": count}
    runs_measured = kept_runs(output, options)
    for seed in map(int, seeds.split(",")):
        for name in names:
            key = f"{name}, seed {seed}"
            if key not in runs_measured:
                folder = runs / key.replace(", ", "-").replace(" ", "-")
                settings = {"metric_every": 0.0, "checkpoint_every": every, "state_every": every / 4, "seed": seed}
                train(train_data, run_dir=folder, preset="small", stages=f"32:{kimg}", **settings, **VARIANTS[name])
                runs_measured[key] = {"settings": VARIANTS[name], "points": measure(folder, held_out, count=count)}
                write(output, facts(**options, runs=runs_measured))
    keys = {name: [key for key in runs_measured if key.startswith(f"{name}, seed")] for name in names}
    results = {name: [runs_measured[key]["points"] for key in keys[name]] for name in names}
    print_table(results)
    plot_curves(results, plot)


def kept_runs(output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return the runs that an earlier call with the same options measured, whose settings are still VARIANTS'."""
    kept = json.loads(output.read_text()) if output.exists() else {}
    if any(kept.get(name) != value for name, value in options.items()):
        return {}
    return {key: run for key, run in kept["runs"].items() if run["settings"] == VARIANTS.get(key.split(",")[0])}


def measure(folder: Path, held_out: Path, *, count: int) -> list[dict[str, float]]:
    """Return the metrics of each checkpoint of a run after its start, with its kimg."""
    measured = []
    for checkpoint in sorted((folder / "checkpoints").glob("[0-9]*.safetensors"))[1:]:
        found = evaluate(load(checkpoint), held_out, metrics=METRICS, count=count)["metrics"]
        measured.append({"kimg": int(checkpoint.stem) / 1000, **{name: found[name]["value"] for name in COLUMNS}})
    return measured


def row(name: str, of_seeds: list[list[dict[str, float]]]) -> str:
    """Return a line of the table: means over seeds of the last checkpoint, and the range of recall."""
    last = [points[-1] for points in of_seeds]
    cells = [f"{mean(point[key] for point in last):.3f}" for key in COLUMNS]
    recalls = [point["pr-lite2/recall"] for point in last]
    return f"| {name} | {' | '.join(cells)} | {min(recalls):.2f}-{max(recalls):.2f} |"


def print_table(results: dict[str, list[list[dict[str, float]]]]) -> None:
    """Print a table in Markdown."""
    print(f"| variant | {' | '.join(COLUMNS.values())} | recall of the seeds |")
    print("| --- " * (len(COLUMNS) + 2) + "|")
    for name, of_seeds in results.items():
        print(row(name, of_seeds))


def plot_curves(results: dict[str, list[list[dict[str, float]]]], path: Path) -> None:
    """Plot each metric over kimg: one line a variant, the mean of its seeds."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(2, 2).flat, COLUMNS.items(), strict=True):
        for name, of_seeds in results.items():
            columns = list(zip(*of_seeds, strict=False))
            axes.plot([c[0]["kimg"] for c in columns], [mean(p[key] for p in c) for c in columns], label=name)
        axes.set(title=title, xlabel="kimg")
    figure.axes[0].set_yscale("log")
    figure.axes[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
