"""Peak memory of a process that renders: python benchmarks/rendering_memory.py [MODEL.safetensors] [--suffix .tif]"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from peak_memory import peak, run_in_process


def render(model: str, side: int, path: str) -> dict[str, Any]:
    """Render one image and return the peak of this process."""
    from polyinr_cli.main import outcome

    start = time.perf_counter()
    code = outcome(["sample", "-m", model, "--seeds", "1", "--res", str(side), "-o", path, "-q"])
    return {"side": side, "mib": peak(), "seconds": round(time.perf_counter() - start, 1), "exit_code": code}


def measure(model: Path | None, side: int, suffix: str) -> dict[str, Any]:
    """Measure an image, by default one of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        rendered = model or run_in_process(write_random_model, Path(folder) / "fresh.safetensors")
        return run_in_process(render, str(rendered), side, f"{folder}/image{suffix}")


def write_random_model(path: Path) -> Path:
    """Write a model of random weights; apart, as a process starts with the peak of the one that starts it."""
    from random_models import save_random_model

    return save_random_model(path)


def main(
    model: Annotated[Path | None, typer.Argument(help="By default one of random weights.")] = None,
    sides: Annotated[
        str, typer.Option(help="Pixels a side, each rendered by a process of its own.")
    ] = "32,1024,2048,4096",
    suffix: Annotated[str, typer.Option(help="What is written: .png, .tif, .dzi, .npy.")] = ".png",
    output: Path = Path("benchmarks/results/rendering_memory.json"),
) -> None:
    """Measure images of several sizes."""
    rows = []
    for side in map(int, sides.split(",")):
        row = measure(model, side, suffix)
        rows.append(row)
        print("{side:6} px  {mib:6} MiB  {seconds:7} s  exit code {exit_code}".format(**row), flush=True)
    from results_io import facts, write  # with torch, which would count as the rendering processes' own

    write(output, facts(figures=rows))


if __name__ == "__main__":
    typer.run(main)
