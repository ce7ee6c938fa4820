"""Correctness and speed on a GPU, in one run of bounded time: python benchmarks/gpu.py --minutes 7

In this order, each part with a file of its own that is written anew after every row:
- correctness: golden images, the backends against plain PyTorch, a training step against the same on a CPU;
- ceilings: the bytes a second of a large copy, the operations a second of bfloat16 products;
- training: whole iterations and their peak memory against the literal form, by resolution and channels;
- sampling: milliseconds an image against the literal form and the floor of its products; Triton's tiles at the end;
- float32: each way to multiply in float32, its milliseconds an image and how far it is from the golden images. The
  fastest below 1e-4 belongs into the table of rendering/backends/triton.py.
Medians after warm-up by the device's own events, random weights and data. What fails is a row, and the rest goes on.

Its logic runs without a GPU: python benchmarks/gpu.py --device cpu --quick
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from baseline import LEVELS, BaselineGenerator, BaselineTrainer
from launches import Launches
from level_cost import table
from random_models import random_generator
from results_io import facts, write
from safetensors.torch import load_file
from timing import Bench
from torch import Tensor

from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.layers import LevelFunction, select_level
from polyinr_core.rendering.backends import Backend, in_precision, select_backend
from polyinr_core.rendering.backends.triton import CUBLAS, Tile, TritonBackend, has_kernels
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import TrainingConfig
from polyinr_core.training.state import TrainingState, create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step

GOLDEN = Path(__file__).parent.parent / "tests" / "reference"
FOLDER = Path("benchmarks/results/gpu")
BF16 = torch.bfloat16
CPU = torch.device("cpu")
CANDIDATES = {  # tiles that are timed, for the table in rendering/backends/triton.py
    BF16: (
        Tile(64, 128, 64),
        Tile(128, 128, 64, warps=8),
        Tile(128, 256, 64, warps=8),
        Tile(64, 256, 64, warps=4),
        Tile(64, 256, 64, warps=8, all_levels=True),
        CUBLAS,
    ),
    torch.float32: (
        Tile(64, 64, 32),
        Tile(128, 64, 16, warps=8),
        Tile(128, 128, 16, warps=8),
        Tile(64, 128, 16, warps=8, all_levels=True),
        Tile(64, 64, 32, precision="tf32x3"),
        Tile(128, 64, 32, warps=8, precision="tf32x3"),
        Tile(128, 128, 32, warps=8, stages=2, precision="tf32x3"),
        CUBLAS,
    ),
}
MAX_FUSED_CHANNELS = 512  # of tiles with all levels
PART = 2**14  # pixels of all images, whose features, read and written, stay in a second-level cache
# how far a correct result may be off: of colors about [-1, 1] in float32; else of the norm. A step's gradients pass
# fifty layers with kinks, in which another order of sums takes other sides.
MAX_OFF, MAX_RELATIVE, MAX_GRADIENT = 1e-4, {torch.float32: 1e-4, BF16: 2e-2}, {torch.float32: 2e-2, BF16: 0.7}
MAX_LOSS = {torch.float32: 1e-3, BF16: 0.2}  # of an untrained discriminator, whose logits are about 0
SHARES = {"correctness": 0.3, "ceilings": 0.05, "training": 0.7, "sampling": 0.85, "float32": 1.0}  # of the time left
Row = dict[str, Any]


def correctness(bench: Bench) -> Iterator[Row]:
    """Yield how far each backend and a training step are off, and whether that is `right`."""
    yield from golden(bench)
    yield from agreement(bench)
    yield from level_agreement(bench)
    yield from step_agreement(bench)


@torch.no_grad()
def golden(bench: Bench) -> Iterator[Row]:
    """Yield how far each backend is from the golden images."""
    for name in ("generator_small", "generator_uncond_small"):
        vectors = load_file(GOLDEN / f"{name}.safetensors")
        generator = load_official_checkpoint(GOLDEN / f"{name}.safetensors").generator.to(bench.device)
        label = vectors["input.class_id"].to(bench.device) if generator.config.classes else None
        affine = generator.affine(generator.w(vectors["input.z"].to(bench.device), label))
        expected = vectors["output.image_psi1_res32"].to(bench.device)
        coordinates = RegularGrid(32, 32).coordinates(device=bench.device)
        synthesis = generator.synthesis
        for form, backend in (*plain_and_chosen(bench, synthesis), *tiles(bench, synthesis, torch.float32)):
            row: Row = {"file": name, "form": form}
            try:
                row["off"] = float((backend(affine, coordinates).mT.unflatten(2, (32, 32)) - expected).abs().max())
                row["right"] = row["off"] < MAX_OFF
            except Exception as error:  # a tile that does not compile is a finding
                row |= failed(error)
            yield row


@torch.no_grad()
def agreement(bench: Bench) -> Iterator[Row]:
    """Yield how far backends are from plain PyTorch in the same dtype, at sizes that no tile divides."""
    for n in (20,) if bench.quick else (72, 512, 1024):
        generator = random_generator(GeneratorConfig(channels=n, levels=LEVELS)).to(bench.device)
        affine = generator.affine(generator.w(torch.randn(2, generator.config.z_dim, device=bench.device)))
        coordinates = RegularGrid(37, 23).coordinates(device=bench.device)
        for dtype in (torch.float32, BF16):
            synthesis = generator.synthesis if dtype == torch.float32 else in_precision(generator.synthesis, dtype)
            expected = synthesis(affine, coordinates)
            forms = [*plain_and_chosen(bench, synthesis, dtype), *tiles(bench, synthesis, dtype)]
            for form, backend in forms[1:]:
                if not bench:
                    return
                row: Row = {"channels": n, "form": form}
                try:
                    row["off"] = float((backend(affine, coordinates) - expected).norm() / expected.norm())
                    row["right"] = row["off"] < MAX_RELATIVE[dtype]
                except Exception as error:  # a tile that does not compile is a finding
                    row |= failed(error)
                yield row


def level_agreement(bench: Bench) -> Iterator[Row]:
    """Yield whether training uses Triton's kernels for a level: it does once they agree with PyTorch (select_level)."""
    for n in () if bench.device.type == "cpu" else (72, 512, 1024):
        h, matrix = torch.randn(2, 64, n, device=bench.device), torch.randn(2, 3, n, device=bench.device)
        weight = torch.randn(n, n, device=bench.device)
        for dtype, features in ((torch.float32, h), (BF16, h), (BF16, h.to(BF16))):
            chosen = select_level(features, matrix, weight, True, 256.0, dtype)
            form = f"training kernels, {word(dtype)} products of {word(features.dtype)}"
            yield {"channels": n, "form": form, "right": chosen is not LevelFunction}


def step_agreement(bench: Bench) -> Iterator[Row]:
    """Yield how far gradients and losses of a training step are from those of float32 on a CPU."""
    n, side, batch = (16, 8, 2) if bench.quick else (128, 32, 4)
    weights = {"lite0": load_pretrained("lite0")}
    sizes = {"channels": n, "backbones": ("lite0",), "cond": False, "disc_res": 64, "head_resolution": 128}
    expected: dict[str, Tensor] = {}
    for device, dtype in ((CPU, torch.float32), (bench.device, torch.float32), (bench.device, BF16)):
        state = new_state(TrainingConfig(batch=batch, **sizes), weights, device, dtype)
        stats = iterate(state, *random_batches(batch, side, state, device), augment=True).read()
        players = {"generator": state.generator, "discriminator": state.discriminator.heads}
        gradients = {
            player: torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
            for player, network in players.items()
        }
        if not expected:
            expected, losses = gradients, stats
            continue
        for player, gradient in gradients.items():
            off = float((gradient - expected[player]).norm() / expected[player].norm())
            form = f"gradient of the {player}, {word(dtype)}"
            yield {"form": form, "off": off, "right": off < MAX_GRADIENT[dtype]}
        off = abs(stats.loss_d - losses.loss_d) + abs(stats.loss_g - losses.loss_g)
        off /= abs(losses.loss_d) + abs(losses.loss_g)
        yield {"form": f"losses, {word(dtype)}", "off": off, "right": off < MAX_LOSS[dtype]}


def ceilings(bench: Bench) -> Iterator[Row]:
    """Yield the bytes a second of a copy, read and written, and the operations a second of a bfloat16 product."""
    many, side = (2**20, 256) if bench.quick else (2**31, 8192)
    source = torch.randn(many // 4, device=bench.device)
    target = torch.empty_like(source)
    yield {"form": "copy", "bytes_a_second": 2e3 * many / bench.milliseconds(lambda: target.copy_(source))}
    a, b = (torch.randn(side, side, device=bench.device, dtype=BF16) for _ in range(2))
    yield {"form": "product", "flops_a_second": 2e3 * side**3 / bench.milliseconds(lambda: a @ b)}


def training(bench: Bench) -> Iterator[Row]:
    """Yield images a second and peak memory of whole iterations, G and D, of the literal form and ours."""
    weights = {"lite0": load_pretrained("lite0")}
    cases = [(side, n) for n in (512, 1024, 256, 128) for side in (32, 64, 128, 256)]
    forms = [("literal float32", torch.float32, 0), ("ours bfloat16", BF16, 0), ("ours float32", torch.float32, 0)]
    for side, n in [(8, 16)] if bench.quick else cases:
        batch = 2 if bench.quick else 32
        literal: Row = {}
        for form, dtype, chunk in [*forms, ("ours bfloat16, in chunks", BF16, 16384)]:
            if not bench:
                return
            row: Row = {"side": side, "channels": n, "batch": batch, "form": form}
            try:
                work = iteration_of(form, bench, weights, side=side, n=n, batch=batch, dtype=dtype, chunk=chunk)
                row["images_a_second"] = 1000 * batch / bench.milliseconds(work)
                row["mib"] = bench.peak(work)
                if form == forms[0][0]:
                    literal = row
                elif "images_a_second" in literal:
                    row["times_literal"] = row["images_a_second"] / literal["images_a_second"]
                if bench.quick or side == 32:
                    with Launches() as launches:
                        work()
                    row["launches"] = launches.count
            except Exception as error:
                row |= failed(error)
            work = None  # frees its memory before the next form
            yield row


def iteration_of(
    form: str, bench: Bench, weights: Any, *, side: int, n: int, batch: int, dtype: torch.dtype, chunk: int
) -> Callable[[], object]:
    """Return an iteration; afterwards its weights are checked to be finite."""
    if form.startswith("literal"):
        reals = torch.rand(batch, 3, side, side, device=bench.device) * 2 - 1
        z = torch.randn(batch, 64, device=bench.device)
        with bench.device:  # it makes its random numbers where it stands
            on_device = {name: weight.to(bench.device) for name, weight in weights["lite0"].items()}
            trainer = BaselineTrainer(on_device, side=side, n=n)

        def literal() -> None:
            with bench.device:
                trainer.iterate(reals, z, z, sigma=2.0, beta=0.9)

        return literal
    config = TrainingConfig(batch=batch, channels=n, backbones=("lite0",), cond=False)
    state = new_state(config, weights, bench.device, dtype)
    batches = random_batches(batch, side, state, bench.device)
    iterate(state, *batches, augment=True, chunk=chunk).read()  # raises if something is not finite
    return partial(iterate, state, *batches, augment=True, chunk=chunk)


def new_state(config: TrainingConfig, weights: Any, device: torch.device, dtype: torch.dtype) -> TrainingState:
    """Return the state at the start of a run without classes."""
    return start_stage(config, create_generator(config, 0, None), weights=weights, device=device, dtype=dtype)


def random_batches(batch: int, side: int, state: TrainingState, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and latents, the same on every device."""
    rng = generator_for("benchmark")
    reals = torch.rand(batch, 3, side, side, generator=rng) * 2 - 1
    return reals.to(device), torch.randn(batch, state.generator.config.z_dim, generator=rng).to(device)


def iterate(state: TrainingState, reals: Tensor, z: Tensor, *, augment: bool, chunk: int = 0) -> Any:
    """Train one iteration."""
    side, fakes = reals.shape[-1], Batch(z, None)
    coordinates = RegularGrid(side, side).coordinates(device=reals.device)
    rng = generator_for if augment else None
    options = StepOptions(coordinates, micro_batch=len(z), blur_sigma=2.0, augment_rng=rng, chunk=chunk)
    return train_step(state, options, reals=Batch(reals, None), g_fakes=fakes, d_fakes=fakes, ema_beta=0.9)


@torch.no_grad()
def sampling(bench: Bench) -> Iterator[Row]:
    """Yield milliseconds an image of every form, and how many times the floor of its products that is."""
    cases = [(n, 256, batch) for batch in (8, 1, 64) for n in (512, 1024)] + [(512, 1024, 1), (1024, 1024, 1)]
    cases = [(16, 8, 2)] if bench.quick else cases
    for with_tiles, some in ((False, cases), (True, cases[:2])):
        for n, side, batch in some:
            yield from sampling_case(bench, n=n, side=side, batch=batch, with_tiles=with_tiles)


def sampling_case(bench: Bench, *, n: int, side: int, batch: int, with_tiles: bool) -> Iterator[Row]:
    """Yield a row for each form; either plain and chosen ones, and the literal form, or Triton's tiles."""
    generator = random_generator(GeneratorConfig(channels=n, levels=LEVELS)).to(bench.device)
    z = torch.randn(batch, generator.config.z_dim, device=bench.device)
    affine = generator.affine(generator.w(z))
    coordinates = RegularGrid(side, side).coordinates(device=bench.device)
    floor = products(bench, side**2 * batch, n) / batch
    case = {"channels": n, "side": side, "batch": batch}
    works: dict[str, Callable[[], object]] = {}
    if not with_tiles:
        yield case | {"form": "floor bfloat16", "ms": floor}
        works["literal float32"] = partial(BaselineGenerator(side, n).eval().to(bench.device), z)
    for dtype in (torch.float32, BF16):
        synthesis = generator.synthesis if dtype == torch.float32 else in_precision(generator.synthesis, dtype)
        forms = tiles(bench, synthesis, dtype) if with_tiles else plain_and_chosen(bench, synthesis, dtype)
        works |= {form: partial(backend, affine, coordinates) for form, backend in forms}
        if dtype == BF16 and not with_tiles:
            chosen = select_backend(synthesis, bench.device)
            works["chosen bfloat16, in parts"] = partial(in_parts, chosen, affine, coordinates)
    exact = None
    for form, work in works.items():
        if not bench:
            return
        row: Row = case | {"form": form}
        try:
            rendered = work()
            if form == "eager float32":
                exact = rendered
            if isinstance(rendered, Tensor) and exact is not None and rendered.shape == exact.shape:
                row |= differences(rendered, exact)
            row["ms"] = bench.milliseconds(work) / batch
            row |= {"to_floor": row["ms"] / floor, "mib": bench.peak(work)}
        except Exception as error:
            row |= failed(error)
        rendered = None
        yield row


@torch.no_grad()
def float32(bench: Bench) -> Iterator[Row]:
    """Yield for each way to multiply in float32 its milliseconds an image, and how far it is from the golden images."""
    off: dict[str, float] = {}
    for row in golden(bench):
        off[row["form"]] = max(row.get("off", float("inf")), off.get(row["form"], 0.0))
    for n, side, batch in [(16, 8, 2)] if bench.quick else [(512, 256, 8), (1024, 256, 8)]:
        generator = random_generator(GeneratorConfig(channels=n, levels=LEVELS)).to(bench.device)
        affine = generator.affine(generator.w(torch.randn(batch, generator.config.z_dim, device=bench.device)))
        coordinates, synthesis = RegularGrid(side, side).coordinates(device=bench.device), generator.synthesis
        for form, backend in (*plain_and_chosen(bench, synthesis), *tiles(bench, synthesis, torch.float32)):
            if not bench:
                return
            row = {"channels": n, "side": side, "batch": batch, "form": form}
            try:
                row["ms"] = bench.milliseconds(partial(backend, affine, coordinates)) / batch
                row |= {"off_golden": off[form], "right": off[form] < MAX_OFF}
            except Exception as error:
                row |= failed(error)
            yield row


def plain_and_chosen(bench: Bench, synthesis: Any, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Backend]]:
    """Yield the network itself and what would be chosen for the device."""
    yield f"eager {word(dtype)}", synthesis
    yield f"chosen {word(dtype)}", select_backend(synthesis, bench.device)


def tiles(bench: Bench, synthesis: Any, dtype: torch.dtype) -> Iterator[tuple[str, Backend]]:
    """Yield Triton's kernels with each of the tiles, where there are kernels."""
    if has_kernels(synthesis, bench.device):
        for tile in CANDIDATES[dtype]:
            if synthesis.config.channels <= MAX_FUSED_CHANNELS or not tile.all_levels:
                shape = f"{tile.pixels}x{tile.outputs}x{tile.inputs}{' whole' if tile.all_levels else ''}"
                form = "cublas" if tile == CUBLAS else f"triton {shape} {tile.precision}"
                yield f"{form} {word(dtype)}", TritonBackend(synthesis, tile=tile)


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


def failed(error: Exception) -> Row:
    """Return what a row says of an error."""
    return {"failed": f"{type(error).__name__}: {str(error)[:200]}"}


def word(dtype: torch.dtype) -> str:
    """Return the name of a dtype."""
    return str(dtype).removeprefix("torch.")


def shown(row: Row) -> str:
    """Return a row as a line."""
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


PARTS = {
    "correctness": correctness,
    "ceilings": ceilings,
    "training": training,
    "sampling": sampling,
    "float32": float32,
}


def main(
    device: str = "cuda", minutes: float = 7.0, quick: bool = False, output: Path = FOLDER, parts: str = ",".join(PARTS)
) -> None:
    """Measure everything that there is time for; what fails is noted, and the rest goes on."""
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: no GPU is here; --device cpu --quick tries its logic")
    if unknown := sorted({*parts.split(",")} - {*PARTS}):
        sys.exit(f"gpu.py: --parts {','.join(unknown)} is unknown; choose from {', '.join(PARTS)}")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    bench = Bench(torch.device(device), seconds=60 * minutes, quick=quick)
    name = torch.cuda.get_device_name() if device == "cuda" else "none"
    print("\n".join([name, *table()]), flush=True)
    for part in parts.split(","):
        rows: list[Row] = []
        described = facts(gpu=name, quick=quick, rows=rows)
        own = bench.within(SHARES[part] * bench.left)
        try:
            for row in PARTS[part](own) if bench else ():
                rows.append(row)
                print(f"{part}: {shown(row)}", flush=True)
                write(output / f"{part}.json", described)
        except Exception as error:
            rows.append(failed(error))
            print(f"{part}: {shown(rows[-1])}", flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
        write(output / f"{part}.json", described)


if __name__ == "__main__":
    typer.run(main)
