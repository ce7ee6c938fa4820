"""Peak memory of the generator's forward and backward pass against resolution: python benchmarks/checkpointing.py

One image, n = 512, ten levels, float32; plain, and with checkpointing in chunks. Each figure is of a fresh process:
on a CPU its resident set at the peak less that just before the pass, on a GPU what PyTorch had allocated at the
peak less what it held before. Prints a table and writes it as JSON below benchmarks/results/.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import typer
from peak_memory import MIB, Peak
from results_io import facts, write

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, render_checkpointed

CONFIG = GeneratorConfig(channels=512)


def measure(side: int, chunk: int, device: str, answer: Connection) -> None:
    """Send (bytes, seconds) of one forward and backward pass."""
    torch.manual_seed(0)
    generator = Generator(CONFIG).to(device)
    coordinates = RegularGrid(side, side).coordinates(device=torch.device(device))
    grad = torch.randn(1, side * side, 3, device=device)

    def once(coordinates: torch.Tensor, grad: torch.Tensor) -> None:
        affine = generator.affine(generator.w(torch.ones(1, CONFIG.z_dim, device=device)))
        if chunk:
            colors = render_checkpointed(generator.synthesis, affine, coordinates, chunk=chunk)
        else:
            colors = generator.synthesis(affine, coordinates)
        colors.backward(grad)

    once(coordinates[:16], grad[:, :16])  # gradients and libraries are in place
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held, start = torch.cuda.memory_allocated(), time.perf_counter()
        once(coordinates, grad)
        torch.cuda.synchronize()
        answer.send((torch.cuda.max_memory_allocated() - held, time.perf_counter() - start))
        return
    with Peak() as peak:
        start = time.perf_counter()
        once(coordinates, grad)
        seconds = time.perf_counter() - start
    answer.send((peak.bytes, seconds))


def main(
    sides: str = "32,64,128,256,512",
    chunk: int = 2048,
    plain_to: int = 256,
    device: str = "cpu",
    output: Path = Path("benchmarks/results/checkpointing.json"),
) -> None:
    """Measure sides with checkpointing, and without it up to `plain_to` pixels a side."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for side in map(int, sides.split(",")):
        row: dict[str, float] = {"side": side}
        for name, size in (("plain", 0), ("in chunks", chunk)):
            if not size and side > plain_to:
                continue
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(side, size, device, sender))
            process.start()
            peak, seconds = receiver.recv()
            process.join()
            row |= {f"{name}_mib": round(peak / MIB, 1), f"{name}_seconds": round(seconds, 3)}
            print(f"{side:5} px  {name:9} {peak / MIB:9.1f} MiB  {seconds:8.2f} s", flush=True)
        rows.append(row)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    write(output, facts(device=name, channels=CONFIG.channels, chunk=chunk, figures=rows))


if __name__ == "__main__":
    typer.run(main)
