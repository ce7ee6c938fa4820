"""Which model a command uses: --model, $POLYINR_MODEL, the newest checkpoint below ./runs, the bundled one."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, PolyinrError, RequestError

from . import console
from .options import Precision
from .parsing import ViewportOptions
from .runtime import choose_device, choose_dtype, rank_device

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.rendering.model import Model
    from polyinr_core.rendering.render import Renderer

logger = logging.getLogger(__name__)
VARIABLE = "POLYINR_MODEL"
RUNS = Path("runs")


def load_model(model: Path | None, *, quiet: bool = False) -> tuple["Checkpoint", Path]:
    """Find a model, read it, and apply the deltas that are named with it.

    Returns the checkpoint and its file; with deltas the file's name is that of all, joined by plus signs.
    Raises PolyinrError.
    """
    from polyinr_core.checkpoints.locate import load_model_file

    return load_model_file(find_model(model, quiet=quiet))


def find_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the model file to use, and report it if none or a folder was named. Raises PolyinrError."""
    from polyinr_core.checkpoints.locate import bundled_model, newest_checkpoint, split_deltas

    if model is not None:
        return resolve_folder(model, "-m", quiet=quiet)
    if named := os.environ.get(VARIABLE):
        path = resolve_folder(Path(named), f"${VARIABLE}", quiet=quiet)
        if path != Path(named):
            return path
        if not path.is_file() and not all(part.exists() for part in split_deltas(path)):
            raise FileError(named, f"no such file (named by ${VARIABLE}); name another with -m")
        return _report(path, f"from ${VARIABLE}", quiet=quiet)
    if newest := newest_checkpoint(RUNS):
        return _report(newest, "the newest below ./runs", quiet=quiet)
    if (bundled := bundled_model()).is_file():
        return _report(bundled, "the bundled one", quiet=quiet)
    raise PolyinrError(
        f"no model found: none below ./runs, and ${VARIABLE} is not set; train one (`polyinr train`), convert a "
        "released one (`polyinr convert`), or name one with -m"
    )


def resolve_folder(model: Path, named_by: str, *, quiet: bool) -> Path:
    """Return a model as it is named, or the newest checkpoint if a folder is named, also in FOLDER+DELTA.

    Raises FileError.
    """
    from polyinr_core.checkpoints.locate import PLUS, newest_in, split_deltas

    base, *deltas = split_deltas(model)
    if not base.is_dir():
        return model
    newest = _report(newest_in(base), f"the newest below {base}, named by {named_by}", quiet=quiet)
    return Path(PLUS.join(map(str, [newest, *deltas])))


def _report(path: Path, source: str, *, quiet: bool) -> Path:
    console.say(f"polyinr: model {path} ({source})", quiet=quiet, always=True)
    return path


def open_model(model: Path | None, *, precision: Precision, device: str, is_8_bit: bool, quiet: bool) -> "Model":
    """Find a model and load it onto its device, in its dtype. Raises PolyinrError.

    A missing GPU is a warning, and the CPU is used. --precision auto is float32 for a model whose images
    bfloat16 would change visibly.
    """
    import torch

    from polyinr_core.rendering.model import Model

    place = rank_device(choose_device(device, otherwise_cpu=True))
    dtype = choose_dtype(precision, place, is_8_bit=is_8_bit)
    checkpoint, path = load_model(model, quiet=quiet)
    opened = Model(checkpoint, device=place, dtype=dtype, path=path)
    if precision is Precision.auto and dtype == torch.bfloat16 and not opened.is_faithful():
        logger.info("bfloat16 would change the images of %s: rendering in float32", path.name)
        opened = Model(checkpoint, device=place, path=path)
    return opened


def renderer_for(
    model: "Model",
    options: ViewportOptions,
    *,
    bits: int = 8,
    is_sized: bool = True,
    tolerance: float = 0.0,
) -> "Renderer":
    """Return the renderer of a viewport; without `is_sized` the size does not matter. Raises RequestError."""
    from polyinr_core.rendering.render import Renderer

    resolution = model.resolution
    if not resolution:
        if is_sized and not options.is_sized:
            raise RequestError(f"{model.path} does not state its resolution; give --res or --size")
        resolution = 1
    return Renderer(model, options.viewport(resolution), bits=bits, tolerance=tolerance)
