"""Start values that let a short run begin at once: coordinates reach every level, and no level fades."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.locate import load_model_file
from polyinr_core.data.dataset import ImageDataset
from polyinr_core.data.resample import ResizedDataset, normalized
from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import ConfigError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator, LevelAffine, Mapping
from polyinr_core.models.layers import EqualizedLinear, rms_normalize
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.rng import seeded_init

from .config import TrainingConfig

SAMPLES = 64
FIRST_SLOPES, SLOPES = 3.0, 0.5  # along x and y, of level 0 and of the others, times PyTorch's own start values
RGB = 0.5  # root mean square of the first colors


@torch.no_grad()
def balance(generator: Generator, rng: torch.Generator) -> None:
    """Change a fresh generator's weights so that its images vary and its gradients are of one size.

    The release's start values multiply coordinates and features by small random numbers at each level: a fresh
    network draws one flat color and needs many images to leave it. Here the chain of coordinates starts as
    the identity, after a first step that brings [0, 1] to [-1, 1]; modulations start around 1; and each
    product is scaled, level after level, to features of root mean square 1 (Mishkin and Matas, "All You Need
    Is a Good Init", 2016).
    """
    for index, level in enumerate(generator.affine.levels):
        assert isinstance(level, LevelAffine)
        balance_level(level, first=index == 0)
    config, synthesis = generator.config, generator.synthesis
    z = torch.randn(SAMPLES, config.z_dim, generator=rng)
    label = torch.randint(config.classes, (SAMPLES,), generator=rng) if config.classes else None
    points = torch.cat([torch.rand(SAMPLES, 2, generator=rng), torch.ones(SAMPLES, 1)], dim=1)
    affine = generator.affine(generator.w(z, label))
    h: Tensor | None = None
    for product, matrix in zip(synthesis.products, affine.unbind(dim=1), strict=True):
        m = points @ matrix if h is None else h * synthesis.modulation(matrix, points)
        product.bias.zero_()  # type: ignore[operator]
        h = synthesis.activate(product(m))
        scale = h.square().mean().sqrt()
        product.weight.div_(scale)  # type: ignore[operator]
        h = h / scale
    synthesis.to_rgb.bias.zero_()
    assert h is not None
    synthesis.to_rgb.weight.mul_(RGB / synthesis.to_rgb(h).square().mean().sqrt())


def balance_level(level: LevelAffine, *, first: bool) -> None:
    """Give a level's heads their start values."""
    n = level.map.out_features // 3
    slopes = FIRST_SLOPES if first else SLOPES
    level.map.weight[: 2 * n].mul_(slopes)
    level.map.bias[: 2 * n].mul_(slopes)
    level.map.bias[2 * n :] = 0.0 if first else 1.0
    if level.chain is not None:
        level.chain.weight.mul_(0.1)
        level.chain.bias.copy_(torch.tensor([2.0, 0, 0, 2, -1, -1] if first else [1.0, 0, 0, 1, 0, 0]))


IMAGES_PER_CLASS = 32
SIDE = 128


@torch.no_grad()
def class_means(data: ImageDataset, features: Lite0Features) -> Tensor:
    """Return [classes, 320]: the deepest tap averaged over space and over up to 32 images of each class.

    A class without images gets the mean of the others. The release starts every data set from such a table
    of ImageNet's classes, whose rows correlate with the class means of these features (docs/method.md, "Where
    paper and release differ"). Computed where `features` is, returned on the CPU.
    """
    device = next(features.parameters()).device
    reader = ResizedDataset(data, data.resolution)
    rows: list[Tensor | None] = []
    for label in range(data.classes):
        members = np.flatnonzero(data.labels == label)[:IMAGES_PER_CLASS]
        if not len(members):
            rows.append(None)
            continue
        images = normalized(reader.read(members.tolist()))
        resized = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        rows.append(features(resized.to(device))[-1].mean(dim=(0, 2, 3)).cpu())
    present = torch.stack([row for row in rows if row is not None]).mean(dim=0)
    return torch.stack([present if row is None else row for row in rows])


def center_rows(table: Tensor, amount: float) -> Tensor:
    """Return class rows [classes, d] minus `amount` of their mean, scaled to the old root mean square length.

    Mean features of the classes of one dataset are nearly parallel, so that a network hardly tells the classes apart
    at first. `amount` 0 returns the rows as they are, 1 centers them over the classes. Rows that are all alike stay.
    """
    centered = table - amount * table.mean(dim=0)
    length = centered.norm()
    return table if length <= 1e-6 * table.norm() else centered * (table.norm() / length)


ADOPTED = ("form", "levels", "channels", "z_dim", "w_dim")  # what a run's configuration takes from a checkpoint
FIXED = ("mapping_layers", "clamp")  # what it cannot express


def start_from(
    config: TrainingConfig, source: PathLike | Checkpoint | None, given: set[str]
) -> tuple[TrainingConfig, Checkpoint | None]:
    """Return the configuration and the checkpoint of a run that starts from a model, named as for `load`, or from none.

    `given` holds the fields that the user asked for. Raises ConfigError, FileError.
    """
    if source is None:
        return config, None
    checkpoint = source if isinstance(source, Checkpoint) else load_model_file(source)[0]
    return adopt(config, checkpoint, given), checkpoint


def adopt(config: TrainingConfig, checkpoint: Checkpoint, given: set[str]) -> TrainingConfig:
    """Return `config` with the generator's sizes of `checkpoint`, and the checkpoint's SHA-256 in `init_from`.

    `given` holds the fields that the user asked for. Raises ConfigError where one of them contradicts the
    checkpoint, or where the checkpoint is of a form that training does not make.
    """
    theirs = checkpoint.generator.config
    for field in ADOPTED:
        wanted, found = getattr(config, field), getattr(theirs, field)
        if field in given and wanted != found:
            raise ConfigError(
                f"{field} {wanted} contradicts the checkpoint to start from, which has {found}; leave it out"
            )
    source = checkpoint.sha256 or str(checkpoint.origin.get("sha256", ""))  # of a released file, read as it is
    adopted = replace(config, init_from=source, **{field: getattr(theirs, field) for field in ADOPTED})
    ours = adopted.generator(theirs.classes)
    for field in (*FIXED, *(("table_dim",) if theirs.classes else ())):
        if getattr(ours, field) != getattr(theirs, field):
            raise ConfigError(
                f"the checkpoint to start from has {field} {getattr(theirs, field)}, training makes "
                f"{getattr(ours, field)}; choose another checkpoint"
            )
    return adopted


@torch.no_grad()
def generator_from(
    checkpoint: Checkpoint,
    *,
    classes: int,
    class_names: Sequence[str] = (),
    table: Tensor | None = None,
    seed: int = 0,
) -> Generator:
    """Return a generator for data of `classes` classes (0: unconditional) that starts as the checkpoint's.

    A class that the checkpoint has too (see `kept_rows`) keeps its row of the class table and its mean of w; any
    other starts from its row of `table` [classes, 320] and from the mean of the old means. With the same
    classes the images are the checkpoint's. From unconditional to conditional they are too, at first in every
    class alike: the class enters the mapping through weights that start at 0 (`seed` draws the layer before
    them). From conditional to unconditional, the classes' mean takes the place of the class before the first
    activation. A learned grid is left out. Raises ConfigError.
    """
    old = checkpoint.generator
    with seeded_init("fine-tune", seed):
        generator = Generator(config_for(checkpoint, classes, table))
    generator.affine.load_state_dict(old.affine.state_dict())
    generator.synthesis.load_state_dict(old.synthesis.state_dict())
    mapping, trained = generator.mapping, old.mapping
    for layer, source in zip(list(mapping.layers)[1:], list(trained.layers)[1:], strict=True):
        layer.load_state_dict(source.state_dict())
    copy_first_layer(mapping, trained)
    kept = kept_rows(checkpoint, classes, class_names)
    means = trained.w_avg.reshape(-1, trained.w_avg.shape[-1])  # [old classes or 1, w]
    if not classes:
        mapping.w_avg.copy_(means.mean(dim=0))
        return generator
    rows = [means.mean(dim=0) if row is None else means[row] for row in kept]
    mapping.w_avg.copy_(torch.stack(rows))
    if old.config.classes:
        mapping.label_proj.load_state_dict(trained.label_proj.state_dict())
    if table is not None:
        mapping.table.weight.copy_(table)
    elif None in kept:
        raise ConfigError("classes that the checkpoint does not have need a table of the data's class means")
    for row, source_row in enumerate(kept):
        if source_row is not None:
            mapping.table.weight[row] = trained.table.weight[source_row]
    return generator


def config_for(checkpoint: Checkpoint, classes: int, table: Tensor | None) -> GeneratorConfig:
    """Return the new generator's configuration: the checkpoint's, with a class table of one row a class."""
    old = checkpoint.generator.config
    table_dim = old.table_dim if table is None else table.shape[1]
    if classes and table is not None and len(table) != classes:
        raise ConfigError(f"a table of {len(table)} rows does not fit {classes} classes")
    if classes and old.classes and table_dim != old.table_dim:
        raise ConfigError(f"a class table of width {table_dim} does not fit the checkpoint's {old.table_dim}")
    return replace(old, classes=classes, table_rows=classes, table_dim=table_dim)


def kept_rows(checkpoint: Checkpoint, classes: int, class_names: Sequence[str]) -> list[int | None]:
    """Return for each class its number in the checkpoint, or None if it is new.

    Classes are the same by name. Where the data or the checkpoint has no names, they are the same by number if
    there are as many of them, and all new otherwise.
    """
    old = checkpoint.generator.config.classes
    if len(class_names) == classes and checkpoint.class_names:
        numbers = {name: number for number, name in enumerate(checkpoint.class_names[:old])}
        return [numbers.get(name) for name in class_names]
    return list(range(classes)) if classes == old else [None] * classes


def copy_first_layer(mapping: Mapping, trained: Mapping) -> None:
    """Copy the mapping's first layer, of z or of z and class, so that what it does with z stays.

    The layer divides by sqrt(inputs), and there are z_dim or 2 z_dim of them: the weights of z are multiplied
    by sqrt(new / old). A class that comes gets weights of 0; one that goes leaves its mean over the classes in
    the bias.
    """
    layer, source = cast(EqualizedLinear, mapping.layers[0]), cast(EqualizedLinear, trained.layers[0])
    z_dim = trained.config.z_dim
    of_z, of_class = source.weight.split([z_dim, source.weight.shape[1] - z_dim], dim=1)
    layer.bias.copy_(source.bias)
    if layer.weight.shape == source.weight.shape:
        layer.weight.copy_(source.weight)
        return
    layer.weight.zero_()
    layer.weight[:, :z_dim] = of_z * math.sqrt(layer.weight.shape[1] / source.weight.shape[1])
    if trained.config.classes:
        label = torch.arange(trained.config.classes)
        seen = rms_normalize(trained.label_proj(trained.table(label))).mean(dim=0)  # [z]
        layer.bias.add_(of_class @ seen / math.sqrt(source.weight.shape[1]))


def describe_start(checkpoint: Checkpoint, classes: int, class_names: Sequence[str]) -> list[str]:
    """Return lines for a person: what of the checkpoint the run does not start from."""
    old = checkpoint.generator.config.classes
    lines = []
    if checkpoint.learned_grid is not None:
        side = checkpoint.resolution
        lines.append(f"the grid that the checkpoint learned at {side} px is left out; training uses the regular one")
    if classes and not old:
        lines.append(f"the checkpoint has no classes: at first it draws the same in each of the {classes}")
    elif old and not classes:
        lines.append(f"the checkpoint's {old} classes become one: it starts from their mean")
    elif new := kept_rows(checkpoint, classes, class_names).count(None):
        lines.append(f"{new} of {classes} classes are new to the checkpoint: they start from the data's features")
    return lines
