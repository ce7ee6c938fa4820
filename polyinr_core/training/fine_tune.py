"""Fine-tuning: the generator of a snapshot as the start of a run, whatever classes the new data has."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model import Generator, GeneratorConfig
from ..model.layers import EqualizedLinear, rms_normalize
from ..model.mapping import Mapping
from ..seeds import start_values_of
from ..snapshots.snapshot import Snapshot
from .config import TrainingConfig

ADOPTED = ("form", "levels", "channels", "z_dim", "w_dim")  # what a run's configuration takes from a snapshot
FIXED = ("mapping_layers", "clamp")  # what it cannot express


def adopt(config: TrainingConfig, snapshot: Snapshot, given: set[str]) -> TrainingConfig:
    """Return `config` with the generator's sizes of `snapshot`, and the snapshot's SHA-256 in `init_from`.

    `given` holds the fields that the user asked for. Raises ConfigError where one of them contradicts the
    snapshot, or where the snapshot is of a form that training does not make.
    """
    theirs = snapshot.generator.config
    for field in ADOPTED:
        wanted, found = getattr(config, field), getattr(theirs, field)
        if field in given and wanted != found:
            raise ConfigError(
                f"{field} {wanted} contradicts the snapshot to start from, which has {found}; leave it out"
            )
    source = snapshot.sha256 or str(snapshot.origin.get("sha256", ""))  # of a released file, read as it is
    adopted = replace(config, init_from=source, **{field: getattr(theirs, field) for field in ADOPTED})
    ours = adopted.generator(theirs.classes)
    for field in (*FIXED, *(("table_dim",) if theirs.classes else ())):
        if getattr(ours, field) != getattr(theirs, field):
            raise ConfigError(
                f"the snapshot to start from has {field} {getattr(theirs, field)}, training makes "
                f"{getattr(ours, field)}; choose another snapshot"
            )
    return adopted


@torch.no_grad()
def generator_from(
    snapshot: Snapshot,
    *,
    classes: int,
    class_names: Sequence[str] = (),
    table: Tensor | None = None,
    seed: int = 0,
) -> Generator:
    """Return a generator for data of `classes` classes (0: unconditional) that starts as the snapshot's.

    A class that the snapshot has too (see `kept_rows`) keeps its row of the class table and its mean of w; any
    other starts from its row of `table` [classes, 320] and from the mean of the old means. With the same
    classes the pictures are the snapshot's. From unconditional to conditional they are too, at first in every
    class alike: the class enters the mapping through weights that start at 0 (`seed` draws the layer before
    them). From conditional to unconditional, the classes' mean takes the place of the class before the first
    activation. A learned grid is left out. Raises ConfigError.
    """
    old = snapshot.generator
    with start_values_of("fine-tune", seed):
        generator = Generator(config_for(snapshot, classes, table))
    generator.affine.load_state_dict(old.affine.state_dict())
    generator.synthesis.load_state_dict(old.synthesis.state_dict())
    mapping, trained = generator.mapping, old.mapping
    for layer, source in zip(list(mapping.layers)[1:], list(trained.layers)[1:], strict=True):
        layer.load_state_dict(source.state_dict())
    copy_first_layer(mapping, trained)
    kept = kept_rows(snapshot, classes, class_names)
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
        raise ConfigError("classes that the snapshot does not have need a table of the data's class means")
    for row, source_row in enumerate(kept):
        if source_row is not None:
            mapping.table.weight[row] = trained.table.weight[source_row]
    return generator


def config_for(snapshot: Snapshot, classes: int, table: Tensor | None) -> GeneratorConfig:
    """Return the new generator's configuration: the snapshot's, with a class table of one row a class."""
    old = snapshot.generator.config
    table_dim = old.table_dim if table is None else table.shape[1]
    if classes and table is not None and len(table) != classes:
        raise ConfigError(f"a table of {len(table)} rows does not fit {classes} classes")
    if classes and old.classes and table_dim != old.table_dim:
        raise ConfigError(f"a class table of width {table_dim} does not fit the snapshot's {old.table_dim}")
    return replace(old, classes=classes, table_rows=classes, table_dim=table_dim)


def kept_rows(snapshot: Snapshot, classes: int, class_names: Sequence[str]) -> list[int | None]:
    """Return for each class its number in the snapshot, or None if it is new.

    Classes are the same by name. Where the data or the snapshot has no names, they are the same by number if
    there are as many of them, and all new otherwise.
    """
    old = snapshot.generator.config.classes
    if len(class_names) == classes and snapshot.class_names:
        numbers = {name: number for number, name in enumerate(snapshot.class_names[:old])}
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


def describe_start(snapshot: Snapshot, classes: int, class_names: Sequence[str]) -> list[str]:
    """Return lines for a person: what of the snapshot the run does not start from."""
    old = snapshot.generator.config.classes
    lines = []
    if snapshot.learned_grid is not None:
        side = snapshot.resolution
        lines.append(
            f"the grid that the snapshot learned at {side} px is left out; training uses the regular one"
        )
    if classes and not old:
        lines.append(f"the snapshot has no classes: at first it draws the same in each of the {classes}")
    elif old and not classes:
        lines.append(f"the snapshot's {old} classes become one: it starts from their mean")
    elif new := kept_rows(snapshot, classes, class_names).count(None):
        lines.append(f"{new} of {classes} classes are new to the snapshot: they start from the data's features")
    return lines
