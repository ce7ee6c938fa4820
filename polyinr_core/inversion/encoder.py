"""An encoder of images into the model's latents, trained on the model's own samples: where an inversion starts.

The samples are exact pairs of latents and image, as many as are wanted. Richardson et al., 2021 (encoding in style);
the residual of the affine parameters takes the part of W+ there.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.data.import_sources import Source, open_source
from polyinr_core.data.import_tables import read_label_table
from polyinr_core.data.labels import plain_name
from polyinr_core.errors import CheckpointError, ConfigError, ImageError, PolyinrError, RequestError
from polyinr_core.latents.directions import Directions, DirectionSpace, fit_directions
from polyinr_core.latents.latents import Latents, Space, in_space
from polyinr_core.models.coordinates import UNIT, Window
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.model import Model
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.rng import generator_for
from polyinr_core.runtime.strict_json import is_whole
from polyinr_core.runtime.tensor_files import (
    METADATA,
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

from .loss import TargetGrid, TargetImage, load_target, target_grid
from .search import NOT_FINITE, Stop, learning_rate, psnr_of, scale_of

EncoderProgress = Callable[[int, int, float], None]  # steps done, all steps, PSNR of the latest batch in dB

FORMAT = 1
METADATA_KEY = "polyinr_encoder"
BUNDLED_FILE = "bundled-encoder.safetensors"
MAX_RESOLUTION = 64  # default limit in pixels; an encoder places what the search then refines
WIDTHS = (32, 64, 128)  # channels of the stages, each of half the resolution of the one before
HIDDEN = 128
LATENT_SAMPLES = 256  # for the mean and the spread of w and of the affine parameters
LOSS_PIXELS = 128  # of each image, at which a step compares colors
LATENT_WEIGHT = 0.05  # of the error of the affine parameters, in units of their spread
MIXED = 0.5  # share of the samples whose levels come from two latents: the affine parameters of no single w
RATE = 2e-3
CHECKED_SAMPLES = 16  # held-out samples by which an encoder is judged
ENCODED_AT_ONCE = 64  # images
MAX_VALUES = 100  # of a column of labels, each of which gets a direction


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder: `resolution` of its input in pixels, and those of the model's latents.

    Raises ConfigError for sizes below 1, and for a resolution that is not a multiple of 8 in 8 to 256.
    """

    resolution: int
    w_dim: int
    levels: int
    channels: int

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 256 or self.resolution % 2 ** len(WIDTHS):
            raise ConfigError(f"resolution {self.resolution} of an encoder is not a multiple of 8 in 8-256")
        if not all(1 <= size <= 2**16 for size in (self.w_dim, self.levels, self.channels)):
            raise ConfigError("an encoder's latents have sizes of at least 1")


class Encoder(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] to w [N, w_dim] and a residual of the affine parameters [N, L, 3, n].

    The outputs are in the latents' own units: `w_mean`, `w_std` [w_dim] and `scale` [L, 3, 1] are the mean and the
    spread of random ones. `model_sha256` is the model that it was trained on, `facts` what is known of its training.
    """

    w_mean: Tensor
    w_std: Tensor
    scale: Tensor

    def __init__(self, config: EncoderConfig, *, model_sha256: str = "", facts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.model_sha256, self.facts = config, model_sha256, facts or {}
        stages: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            stages += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        side = config.resolution // 2 ** len(WIDTHS)
        pooled = min(side, 4)
        self.features = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(pooled), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(WIDTHS[-1] * pooled**2, HIDDEN), nn.SiLU())
        self.to_w = nn.Linear(HIDDEN, config.w_dim)
        self.to_residual = nn.Linear(HIDDEN, config.levels * 3 * config.channels)
        nn.init.zeros_(self.to_residual.weight)
        nn.init.zeros_(self.to_residual.bias)
        self.register_buffer("w_mean", torch.zeros(config.w_dim))
        self.register_buffer("w_std", torch.ones(config.w_dim))
        self.register_buffer("scale", torch.ones(config.levels, 3, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(self.features(images))
        w = self.w_mean + self.w_std * self.to_w(h)
        shape = (-1, self.config.levels, 3, self.config.channels)
        return w, self.scale * self.to_residual(h).view(shape)

    def latents(self, generator: Generator, images: Tensor) -> Latents:
        """Encode images [N, 3, H, W], resized to the encoder's resolution, differentiably: w and affine."""
        w, residual = self(_resized(images, self.config.resolution))
        w = w.unsqueeze(1).expand(-1, self.config.levels, -1)  # [N, L, w_dim]
        return Latents(w=w, affine=generator.affine(w) + residual, model_sha256=self.model_sha256)

    @torch.no_grad()
    def encode(self, model: Model | Checkpoint, target: TargetImage) -> Latents:
        """Return the latents at which an inversion of the target starts. Raises CheckpointError for another model."""
        return self.encode_all(model, [target])

    @torch.no_grad()
    def encode_all(self, model: Model | Checkpoint, targets: Sequence[TargetImage]) -> Latents:
        """Return the latents of targets of one size. Raises CheckpointError for another model."""
        checkpoint = model if isinstance(model, Checkpoint) else model.checkpoint
        if self.model_sha256 and self.model_sha256 != checkpoint.sha256:
            raise CheckpointError(
                "the encoder",
                f"was trained on the model {self.model_sha256[:12]}..., not on {checkpoint.sha256[:12]}...; "
                "train one for this model with `polyinr encoder`",
            )
        like = checkpoint.generator.mapping.w_avg
        colors = torch.cat([target.colors(like) for target in targets])
        return self.to(like).latents(checkpoint.generator, colors)


def train_encoder(
    model: Model | Checkpoint,
    *,
    steps: int = 1000,
    batch: int = 16,
    resolution: int | None = None,
    seed: int = 0,
    progress: EncoderProgress | None = None,
    stop: Stop = lambda: False,
) -> Encoder:
    """Train an encoder on the model's own samples, on the model's device.

    A step renders `batch` new samples, half of them with the levels of two latents, encodes them, and compares the
    colors that the encoded latents give at random pixels, and the affine parameters.

    Args:
        model: a model or a checkpoint.
        steps: at least 1.
        batch: samples of a step, at least 1.
        resolution: of the samples in pixels, a multiple of 8; by default the training resolution, at most 64.
        seed: the seed of the samples and of the encoder's initial weights.
        progress: called after each step with steps done, all steps and the PSNR of the batch in dB.
        stop: asked after each step whether to end there.

    Returns:
        The encoder; its `facts` hold the PSNR on held-out samples, and that of the mean image.

    Raises ConfigError, and PolyinrError if the model produces NaN or Inf.
    """
    started = time.monotonic()
    checkpoint = model if isinstance(model, Checkpoint) else model.checkpoint
    generator = checkpoint.generator
    if steps < 1 or batch < 1:
        raise ConfigError(f"{steps} steps of {batch} samples are too few; use at least 1 of each")
    config = generator.config
    if resolution is None:
        resolution = max(8, min(checkpoint.resolution or MAX_RESOLUTION, MAX_RESOLUTION) // 8 * 8)
    sizes = EncoderConfig(resolution, config.w_dim, config.levels, config.channels)
    like = generator.mapping.w_avg
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator_for(seed, "encoder", "weights"))))
        encoder = Encoder(sizes, model_sha256=checkpoint.sha256)
    _set_spread(encoder, generator, seed=seed)
    encoder.to(like)
    grid = target_grid(config, width=sizes.resolution, height=sizes.resolution, like=like)
    optimizer = torch.optim.Adam(encoder.parameters(), betas=(0.9, 0.99))
    taken = 0
    for step in range(steps):
        rng = generator_for(seed, "encoder", step)
        affine, images = _samples(generator, grid, batch, rng=rng)
        found = encoder.latents(generator, images).affine
        assert found is not None
        pixels = torch.randint(images.shape[2] * images.shape[3], (LOSS_PIXELS,), generator=rng).to(like.device)
        colors = generator.synthesis(found, grid.coordinates[pixels])  # [N, P, 3]
        error = (colors - images.flatten(2)[:, :, pixels].mT).square().mean()
        loss = error + LATENT_WEIGHT * ((found - affine) / encoder.scale).square().mean()
        if not math.isfinite(float(loss.detach())):
            raise PolyinrError(NOT_FINITE)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, base=RATE)
        for parameter, grad in zip(
            encoder.parameters(), torch.autograd.grad(loss, list(encoder.parameters())), strict=True
        ):
            parameter.grad = grad
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        taken = step + 1
        if progress is not None:
            progress(taken, steps, psnr_of(error))
        if stop():
            break
    encoder.facts = {
        "steps": taken,
        "batch": batch,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        **_held_out_psnr(encoder, generator, grid, seed=seed),
    }
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def _set_spread(encoder: Encoder, generator: Generator, *, seed: int) -> None:
    """Set the mean and the spread of random latents in an encoder."""
    w = _random_w(generator, LATENT_SAMPLES, rng=generator_for(seed, "encoder", "spread"))
    encoder.w_mean.copy_(w[:, 0].mean(dim=0))
    encoder.w_std.copy_(w[:, 0].std(dim=0).clamp_min(1e-6))
    encoder.scale.copy_(scale_of(generator.affine(w), "affine"))


def _random_w(generator: Generator, count: int, *, rng: torch.Generator) -> Tensor:
    """Draw w [N, L, w_dim] of random z and classes."""
    config, like = generator.config, generator.mapping.w_avg
    z = torch.randn(count, config.z_dim, generator=rng).to(like)
    label = torch.randint(config.classes, (count,), generator=rng).to(like.device) if config.classes else None
    return generator.w(z, label)


@torch.no_grad()
def _samples(
    generator: Generator, grid: TargetGrid, count: int, *, rng: torch.Generator, mixed: float = MIXED
) -> tuple[Tensor, Tensor]:
    """Draw affine parameters [N, L, 3, n] and their images [N, 3, R, R], clamped to [-1, 1] as those of files are."""
    affine = generator.affine(_random_w(generator, count, rng=rng))
    other = affine[torch.randperm(count, generator=rng).to(affine.device)]
    swapped = torch.rand(count, affine.shape[1], generator=rng) < 0.5
    swapped &= torch.rand(count, 1, generator=rng) < mixed
    affine = torch.where(swapped[:, :, None, None].to(affine.device), other, affine)
    return affine, grid.render(generator.synthesis, affine).clamp(-1, 1)


@torch.no_grad()
def _held_out_psnr(encoder: Encoder, generator: Generator, grid: TargetGrid, *, seed: int) -> dict[str, float]:
    """Return the mean PSNR in dB of held-out samples: as encoded, and of the mean image."""
    _, images = _samples(generator, grid, CHECKED_SAMPLES, rng=generator_for(seed, "encoder", "held out"), mixed=0)
    encoded = encoder.latents(generator, images).affine
    assert encoded is not None
    mean = encoder.w_mean.repeat(1, encoder.config.levels, 1)
    psnrs = {}
    for name, affine in (("psnr", encoded), ("psnr_of_mean", generator.affine(mean))):
        errors = (grid.render(generator.synthesis, affine).clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
        psnrs[name] = round(sum(map(psnr_of, errors)) / len(errors), 2)
    return psnrs


def directions_of_images(
    model: Model | Checkpoint,
    encoder: Encoder,
    images: PathLike | Sequence[PathLike],
    *,
    labels: PathLike | None = None,
    column: str | None = None,
    space: DirectionSpace = "w",
    progress: Callable[[int, int], None] | None = None,
) -> Directions:
    """Learn editing directions from labeled images, which are encoded.

    Args:
        model: a model or a checkpoint.
        encoder: of that model.
        images: anything that `prepare` reads. Two sources give one direction, from the first to the second. One
            source gives a direction for each of its labels, or for the second of two.
        labels: a .csv, .tsv or .jsonl file with the labels of one source, by the images' names, or by their numbers
            from 0 in a column `index`; images that it does not list are left out. By default its classes or folders.
        column: the column of the labels; by default the first of the usual names, such as `label`.
        space: "w" or "affine".
        progress: called with images done and images in all after each image.

    Raises RequestError, FileError, DatasetError, CheckpointError for the encoder of another model.
    """
    paths: list[PathLike] = [images] if isinstance(images, str | os.PathLike) else list(images)
    if len(paths) > 2 or (len(paths) == 2 and (labels is not None or column is not None)):
        raise RequestError("give one source of images with labels, or two sources without")
    sources = [open_source(path) for path in paths]
    if len(sources) == 2:
        of_source = [Path(path).stem or str(path) for path in paths]
        values: list[str | None] = [str(index) for index, one in enumerate(sources) for _ in one.names]
        names = [of_source[1]]
    else:
        values = _labels_of(sources[0], None if labels is None else Path(labels), column)
        found = sorted({value for value in values if value is not None})
        if not 2 <= len(found) <= MAX_VALUES:
            raise RequestError(f"the images have {len(found)} different labels; 2 to {MAX_VALUES} are needed")
        names = found[1:] if len(found) == 2 else found
    wanted = ["1"] if len(sources) == 2 else names
    payloads = (payload for source in sources for payload in source.payloads(0))
    image_names = (name for source in sources for name in source.names)
    known, targets, rows, side = [], [], [], encoder.config.resolution
    for done, (payload, name, value) in enumerate(zip(payloads, image_names, values, strict=True), start=1):
        if value is not None:
            if isinstance(payload, ImageError):
                raise RequestError(f"{name}: {payload}")
            known.append(value)
            targets.append(load_target(payload, name=name, size=(side, side)))
            if len(targets) == ENCODED_AT_ONCE:
                rows.append(in_space(encoder.encode_all(model, targets), space))
                targets = []
        if progress is not None:
            progress(done, len(values))
    if targets:
        rows.append(in_space(encoder.encode_all(model, targets), space))
    encoded = torch.cat(rows)
    is_attribute = torch.tensor([[value == one for one in wanted] for value in known])
    return fit_directions(encoded, is_attribute, space=space, names=names, model_sha256=encoder.model_sha256)


def _labels_of(source: Source, table: Path | None, column: str | None) -> list[str | None]:
    """Return the label of each image of a source, None for one that has none. Raises DatasetError, RequestError."""
    if table is None:
        if column is not None:
            raise RequestError(f"the column {column!r} of which table? name it by labels")
        info, note = source.labels.resolve_for("auto", source.path, source.name_of)
        if info.labels is None:
            raise RequestError(f"{source.path}: {note or 'its images have no labels'}; name a table of them")
        return [info.class_names[label] if info.class_names else str(label) for label in info.labels.tolist()]
    by_name = read_label_table(table, column=column)
    labels: list[str | None] = []
    for index, name in enumerate(map(plain_name, source.names)):
        base = name.rpartition("/")[2]
        key = next((key for key in (name, base, base.rpartition(".")[0], str(index)) if key in by_name), None)
        value = None if key is None else by_name[key]
        labels.append(None if value in (None, "") else str(value))
    return labels


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def save_encoder(path: PathLike, encoder: Encoder, *, overwrite: bool = False) -> str:
    """Save an encoder (.safetensors, float16) and return the file's hash. Raises FileError."""
    tensors = {name: tensor.detach().half().cpu() for name, tensor in encoder.state_dict().items()}
    facts = {
        "format": FORMAT,
        "config": asdict(encoder.config),
        "model_sha256": encoder.model_sha256,
        "facts": encoder.facts,
    }
    data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    with written_beside(Path(path), overwrite=overwrite) as draft:
        draft.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def is_encoder(path: PathLike) -> bool:
    """Return whether a safetensors file holds an encoder, by its header alone. Raises FileError, TensorFileError."""
    return METADATA_KEY in read_header(Path(path))[METADATA]


def bundled_encoder() -> Path:
    """Return the path of the encoder that comes with the package for the bundled model; it may be missing."""
    return Path(str(resources.files("polyinr_core") / "assets" / BUNDLED_FILE))


def default_encoder(
    model: Model | Checkpoint, *, space: Space = "affine", window: Window = UNIT, label: int | str | None = None
) -> Encoder | None:
    """Return the bundled encoder if it is the model's and applies: not in z, another window or for a given class.

    Raises CheckpointError for a damaged one.
    """
    path = bundled_encoder()
    if space == "z" or window != UNIT or label is not None or not path.is_file():
        return None
    encoder = load_encoder(path)
    return encoder if encoder.model_sha256 == model.sha256 else None


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """Return the facts of an encoder: its model, its resolution, its training and the PSNR it starts at."""
    return {
        "kind": "encoder",
        "model": encoder.model_sha256,
        "resolution": encoder.config.resolution,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        **encoder.facts,
    }


def load_encoder(path: PathLike) -> Encoder:
    """Load an encoder: float32, on the CPU. Raises CheckpointError, FileError."""
    path = Path(path)
    data = read_bytes(path)
    try:
        facts = facts_in(read_header(data), METADATA_KEY)
        if not isinstance(facts, dict):
            raise TensorFileError("it is not an encoder; `polyinr encoder MODEL` makes one")
        if facts.get("format") != FORMAT:
            raise TensorFileError(f"encoder format {facts.get('format')!r}, this polyinr reads {FORMAT}")
        sizes, model, known = facts.get("config"), facts.get("model_sha256"), facts.get("facts")
        if not isinstance(sizes, dict) or not isinstance(model, str) or not isinstance(known, dict):
            raise TensorFileError("its facts are damaged")
        if set(sizes) != set(EncoderConfig.__dataclass_fields__) or not all(map(is_whole, sizes.values())):
            raise TensorFileError("its sizes are damaged")
        with torch.device("meta"):  # sizes that the file does not hold cost no memory
            encoder = Encoder(EncoderConfig(**sizes), model_sha256=model, facts=known)
        tensors = read_tensors(data)
        check_values(tensors)
        encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except (TensorFileError, ConfigError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(path, f"cannot be used as an encoder: {reason}") from error
    return encoder.eval().requires_grad_(False)
