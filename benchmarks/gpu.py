"""Correctness and speed on a large GPU, in one run: python benchmarks/gpu.py --minutes 25

Two ceilings first: a large copy on the device and a square bfloat16 product. Then, each as long as there is time
and written down at once: is everything correct (golden files, bfloat16 against float32, a training step); rendering
against the baseline and the floor of its products, by each of Triton's tiles; training against the baseline
form. Medians of several runs after warm-up, timed by the device's own events. Weights are random.

Its logic runs without a GPU: python benchmarks/gpu.py --device cpu --quick
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from baseline import LEVELS, BaselineGenerator, BaselineTrainer
from level_cost import table
from random_models import random_generator
from results_io import facts, write
from safetensors.torch import load_file
from timing import Bench
from torch import Tensor

from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.rendering.backends import Backend, in_precision, select_backend
from polyinr_core.rendering.backends.triton import Tile, TritonBackend, has_kernels
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import TrainingConfig
from polyinr_core.training.state import create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step

GOLDEN = Path(__file__).parent.parent / "tests" / "reference"
BF16 = torch.bfloat16
CANDIDATES = {  # tiles that are timed, for the table in rendering/backends/triton.py
    BF16: (
        Tile(64, 128, 64),
        Tile(128, 128, 64, warps=8),
        Tile(128, 256, 64, warps=8),
        Tile(64, 256, 64, warps=4),
        Tile(64, 256, 64, warps=8, all_levels=True),
    ),
    torch.float32: (
        Tile(64, 64, 32),
        Tile(128, 64, 16, warps=8),
        Tile(128, 128, 16, warps=8),
        Tile(64, 128, 16, warps=8, all_levels=True),
    ),
}
MAX_FUSED_CHANNELS = 512  # of tiles with all levels
PART = 2**14  # pixels of all images, whose features, read and written, stay in a second-level cache
Row = dict[str, Any]


def ceilings(bench: Bench) -> Row:
    """Return the bytes a second of a copy and the operations a second of a bfloat16 product."""
    many, side = (2**20, 256) if bench.quick else (2**31, 8192)
    source = torch.randn(many // 4, device=bench.device)
    target = torch.empty_like(source)
    copied = bench.milliseconds(lambda: target.copy_(source))
    a, b = (torch.randn(side, side, device=bench.device, dtype=BF16) for _ in range(2))
    multiplied = bench.milliseconds(lambda: a @ b)
    return {"copy_bytes_a_second": 2e3 * many / copied, "product_flops_a_second": 2e3 * side**3 / multiplied}


@torch.no_grad()
def golden(bench: Bench) -> Iterator[Row]:
    """Yield how far each backend is from the golden images, which float32 holds to 1e-4."""
    for name in ("generator_small", "generator_uncond_small"):
        vectors = load_file(GOLDEN / f"{name}.safetensors")
        generator = load_official_checkpoint(GOLDEN / f"{name}.safetensors").generator.to(bench.device)
        label = vectors["input.class_id"].to(bench.device) if generator.config.classes else None
        affine = generator.affine(generator.w(vectors["input.z"].to(bench.device), label))
        expected = vectors["output.image_psi1_res32"].to(bench.device)
        coordinates = RegularGrid(32, 32).coordinates(device=bench.device)
        for form, backend in backends(bench, generator.synthesis, torch.float32):
            rendered = backend(affine, coordinates).mT.unflatten(2, (32, 32))
            yield {"file": name, "form": form, "off": float((rendered - expected).abs().max())}


def backends(bench: Bench, synthesis: Any, dtype: torch.dtype) -> Iterator[tuple[str, Backend]]:
    """Yield what renders a network: plain, with each of Triton's tiles, and what would be chosen."""
    n, word = synthesis.config.channels, str(dtype).removeprefix("torch.")
    yield f"eager {word}", synthesis
    if has_kernels(synthesis, bench.device):
        for tile in CANDIDATES[dtype]:
            if n <= MAX_FUSED_CHANNELS or not tile.all_levels:
                shape = f"{tile.pixels}x{tile.outputs}x{tile.inputs}{' whole' if tile.all_levels else ''}"
                yield f"triton {shape} {word}", TritonBackend(synthesis, tile=tile)
    yield f"chosen {word}", select_backend(synthesis, bench.device)


@torch.no_grad()
def sampling(bench: Bench) -> Iterator[Row]:
    """Yield milliseconds an image of every form, and how many times the floor of its products that is."""
    cases = [(n, 256, batch) for batch in (8, 1, 64) for n in (512, 1024)] + [(512, 1024, 1), (1024, 1024, 1)]
    for n, side, batch in [(16, 8, 2)] if bench.quick else cases:
        generator = random_generator(GeneratorConfig(channels=n, levels=LEVELS)).to(bench.device)
        affine = generator.affine(generator.w(torch.randn(batch, generator.config.z_dim, device=bench.device)))
        coordinates = RegularGrid(side, side).coordinates(device=bench.device)
        baseline = BaselineGenerator(side, n).eval().to(bench.device)
        z = torch.randn(batch, generator.config.z_dim, device=bench.device)
        works: dict[str, Callable[[], object]] = {"baseline float32": partial(baseline, z)}
        forms = itertools.chain(
            backends(bench, generator.synthesis, torch.float32),
            backends(bench, in_precision(generator.synthesis, BF16), BF16),
        )
        for form, backend in forms:
            works[form] = partial(backend, affine, coordinates)
            works[f"{form}, in parts"] = partial(in_parts, backend, affine, coordinates)
        exact = None
        floor = products(bench, side**2 * batch, n) / batch
        yield {"channels": n, "side": side, "batch": batch, "form": "floor bfloat16", "ms": floor}
        for form, work in works.items():
            if not bench:
                return
            row: Row = {"channels": n, "side": side, "batch": batch, "form": form}
            try:
                rendered = work()
                if form == "eager float32":
                    exact = rendered
                if isinstance(rendered, Tensor) and exact is not None and rendered.shape == exact.shape:
                    row |= differences(rendered, exact)
                row["ms"] = bench.milliseconds(work) / batch
                row |= {"to_floor": row["ms"] / floor, "mib": bench.peak(work)}
            except Exception as error:  # a form that fails is a finding, and the next one is measured
                row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
            rendered = None
            yield row


def in_parts(backend: Backend, affine: Tensor, coordinates: Tensor) -> Tensor:
    """Render so few pixels at a time that their features stay in cache."""
    return torch.cat([backend(affine, part) for part in coordinates.split(max(1, PART // len(affine)))], dim=1)


def products(bench: Bench, pixels: int, n: int) -> float:
    """Return the milliseconds of the bare bfloat16 products of so many pixels."""
    h = torch.randn(pixels, n, device=bench.device, dtype=BF16)
    weight, out = torch.randn(n, n, device=bench.device, dtype=BF16), torch.empty_like(h)
    return bench.milliseconds(lambda: [torch.mm(h, weight, out=out) for _ in range(LEVELS - 1)])


def differences(rendered: Tensor, exact: Tensor) -> Row:
    """Return how far images are off, of the whole's size, and in steps of 255 on 99.9 % of the pixels."""
    off = (rendered - exact).abs()
    steps = 127.5 * off.amax(dim=2).flatten()
    share = steps.kthvalue(max(1, int(0.999 * len(steps)))).values
    return {"relative": float(off.norm() / exact.norm()), "steps_999": float(share)}


def training(bench: Bench) -> Iterator[Row]:
    """Yield images a second and peak memory of whole iterations, baseline and ours."""
    weights = {"lite0": load_pretrained("lite0")}
    cases = [(side, n) for n in (512, 1024, 256) for side in (32, 64, 128, 256)]
    for side, n in [(8, 16)] if bench.quick else cases:
        batch = 2 if bench.quick else 32
        config = TrainingConfig(batch=batch, channels=n, backbones=("lite0",), cond=False)
        reals = torch.rand(batch, 3, side, side, device=bench.device) * 2 - 1
        z = torch.randn(batch, config.z_dim, device=bench.device)
        forms: list[tuple[str, torch.dtype, int]] = [
            ("ours float32", torch.float32, 0),
            ("ours bfloat16", BF16, 0),
            ("ours bfloat16, in chunks", BF16, 16384),
        ]
        for form, dtype, chunk in [("baseline float32", torch.float32, 0), *forms]:
            if not bench:
                return
            row: Row = {"side": side, "channels": n, "batch": batch, "form": form}
            try:
                if form.startswith("baseline"):
                    work = baseline_iteration(bench, weights["lite0"], reals, z, n=n)
                else:
                    work = our_iteration(bench, config, weights, reals, z, dtype=dtype, chunk=chunk)
                row["images_a_second"] = 1000 * batch / bench.milliseconds(work)
                row["mib"] = bench.peak(work)
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
            work = None
            yield row


def baseline_iteration(bench: Bench, weights: Any, reals: Tensor, z: Tensor, *, n: int) -> Callable[[], object]:
    """Return an iteration of the baseline; it makes its random numbers where it stands."""
    with bench.device:
        trainer = BaselineTrainer({name: w.to(bench.device) for name, w in weights.items()}, side=reals.shape[-1], n=n)

    def work() -> None:
        with bench.device:
            trainer.iterate(reals, z, z, sigma=2.0, beta=0.9)

    return work


def our_iteration(
    bench: Bench,
    config: TrainingConfig,
    weights: Any,
    reals: Tensor,
    z: Tensor,
    *,
    dtype: torch.dtype,
    chunk: int,
) -> Callable[[], object]:
    """Return an iteration of ours; afterwards its weights are checked to be finite."""
    first = create_generator(config, 0, None)
    networks = start_stage(config, first, stage=0, weights=weights, device=bench.device, dtype=dtype)
    side = reals.shape[-1]
    coordinates = RegularGrid(side, side).coordinates(device=bench.device)
    options = StepOptions(coordinates, micro_batch=len(z), blur_sigma=2.0, augment_rng=generator_for, chunk=chunk)
    fakes = Batch(z, None)

    def work() -> None:
        train_step(networks, options, reals=Batch(reals, None), g_fakes=fakes, d_fakes=fakes, ema_beta=0.9)

    work()
    if not all(parameter.isfinite().all() for parameter in networks.generator.parameters()):
        raise RuntimeError("weights are not finite after a step")
    return work


def shown(row: Row) -> str:
    """Return a row as a line."""
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


def main(
    device: str = "cuda",
    minutes: float = 25.0,
    quick: bool = False,
    output: Path = Path("benchmarks/results/gpu.json"),
) -> None:
    """Measure everything that there is time for; what fails is noted, and the rest goes on."""
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: no GPU is here; --device cpu --quick tries its logic")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    bench = Bench(torch.device(device), seconds=60 * minutes, quick=quick)
    name = torch.cuda.get_device_name() if device == "cuda" else "none"
    figures: Row = {"ceilings": ceilings(bench)}
    described = facts(gpu=name, quick=quick, counts=table(), figures=figures)
    print("\n".join([*table(), shown(figures["ceilings"])]), flush=True)
    parts = {"correct": golden, "sampling": sampling, "training": training}
    for part, measure in parts.items():
        figures[part] = []
        try:
            for row in measure(bench) if bench else ():
                figures[part].append(row)
                print(f"{part}: {shown(row)}", flush=True)
                write(output, described)
        except Exception as error:
            figures[part].append({"failed": f"{type(error).__name__}: {error}"})
            print(f"{part}: {figures[part][-1]}", flush=True)
    write(output, described)


if __name__ == "__main__":
    typer.run(main)
