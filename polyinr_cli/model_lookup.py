"""Which model file a command uses: --model, $POLYINR_MODEL, the newest below ./runs, the bundled one.

A name with a plus, MODEL+DELTA, is a model and a delta that was tuned for it, unless a file has that very name.
"""

import os
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.runtime.format1 import FOLDERS

from . import console as streams

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint

VARIABLE = "POLYINR_MODEL"
RUNS = Path("runs")
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
NAMES = (CHECKPOINTS, FOLDERS[CHECKPOINTS])  # and its name in runs of polyinr 0.1
BEST = "best.safetensors"  # a model kept for its distance, whenever it was written
BUNDLED = "emoji.safetensors"
PLUS = "+"
DEPTH = 4  # folders below the one that is named, to the run folder
MAX_ENTRIES = 100_000  # looked at on the way: a tenth of a second


def find_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the model file to use, and say which if the person named none or a folder. Raises PolyinrError."""
    if model is not None:
        return newest_in(model, "-m", quiet=quiet) if model.is_dir() else model
    if named := os.environ.get(VARIABLE):
        if Path(named).is_dir():
            return newest_in(Path(named), f"${VARIABLE}", quiet=quiet)
        if not Path(named).is_file() and not all(part.exists() for part in split_deltas(Path(named))):
            raise FileError(named, f"no such file (named by ${VARIABLE}); name another with -m")
        return _said(Path(named), f"from ${VARIABLE}", quiet=quiet)
    if newest := newest_checkpoint(RUNS):
        return _said(newest, "the newest below ./runs", quiet=quiet)
    if (bundled := bundled_model()).is_file():
        return _said(bundled, "the bundled one", quiet=quiet)
    raise PolyinrError(
        f"no model: none below ./runs, ${VARIABLE} is not set; train one (`polyinr train`), convert a released "
        "one (`polyinr convert`), or name one with -m"
    )


def bundled_model() -> Path:
    """Return where the model lies that comes with the package, if it does."""
    return Path(str(resources.files("polyinr_core") / "assets" / BUNDLED))


def is_bundled(sha256: str) -> bool:
    """Say whether a file's hash is that of the bundled model, which needs no naming."""
    from hashlib import sha256 as digest

    bundled = bundled_model()
    return bundled.is_file() and digest(bundled.read_bytes()).hexdigest() == sha256


def load_model(model: Path | None, *, quiet: bool = False) -> tuple["Checkpoint", Path]:
    """Find a model, read it, and apply the deltas named with it. Raises PolyinrError.

    Returns (checkpoint, its file); with deltas the file's name is that of all, joined by plus signs.
    """
    path = find_model(model, quiet=quiet)
    base, *deltas = split_deltas(path)
    if deltas and base.is_dir():
        base = newest_in(base, "-m" if model is not None else f"${VARIABLE}", quiet=quiet)
    from polyinr_core.checkpoints.checkpoint import load_checkpoint

    if not deltas:
        _refuse_lone_delta(base)
        return load_checkpoint(base), base
    from polyinr_core.checkpoints.delta import apply_delta, read_delta

    checkpoint = load_checkpoint(base)
    for delta in deltas:
        checkpoint = apply_delta(checkpoint, read_delta(delta), source=delta)
    return checkpoint, base.with_name("+".join([base.name, *(delta.name for delta in deltas)]))


def split_deltas(path: Path) -> list[Path]:
    """Return the model and the deltas that MODEL+DELTA... names; a path that exists is a model alone."""
    text = str(path)
    if PLUS not in text or path.exists():
        return [path]
    for cut in range(len(text) - 1, 0, -1):  # a plus may be part of a name: the pieces that exist decide
        if text[cut] == PLUS and Path(text[cut + 1 :]).is_file():
            head = split_deltas(Path(text[:cut]))
            if all(part.exists() for part in head):
                return [*head, Path(text[cut + 1 :])]
    return [Path(part) for part in text.split(PLUS) if part] or [path]


def _refuse_lone_delta(path: Path) -> None:
    """Raise FileError if a delta is named where a model is needed."""
    from polyinr_core.checkpoints.delta import is_delta

    if path.suffix == ".safetensors" and is_delta(path):
        raise FileError(path, f"a delta; name the model that it was tuned for as well: -m MODEL{PLUS}{path.name}")


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest .safetensors file in a `checkpoints` folder at or below `folder`, None if there is none.

    A run's best model counts only where it is the only one: when it was written says nothing. Raises FileError
    for a folder of very many others, such as a whole disk.
    """
    found = [path for place in checkpoint_folders(folder) for path in files_in(place)]
    numbered = {path.parent for path in found if path.name != BEST}
    found = [path for path in found if path.name != BEST or path.parent not in numbered]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the `checkpoints` folders of the runs at or below a folder, DEPTH levels down. Raises FileError.

    Neither a run's other folders nor hidden ones nor links to folders are gone into.
    """
    if folder.absolute().name in NAMES:
        return [folder]
    found, looked_at = [], 0
    level = [folder]
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for path in level:
            if held := [path / name for name in NAMES if os.path.isdir(path / name)]:
                found += held
                if path != folder:
                    continue
            with suppress(OSError), os.scandir(path) as entries:
                for entry in entries:
                    looked_at += 1
                    if looked_at > MAX_ENTRIES:
                        raise FileError(folder, "holds too much to look for models in; name a run folder or a model")
                    if entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
                        below.append(path / entry.name)
        level = [path for path in below if path.name not in NAMES]
    return found


def files_in(checkpoints: Path) -> list[Path]:
    """Return the model files of a `checkpoints` folder."""
    return [path for path in checkpoints.glob("*.safetensors") if path.is_file()]


def newest_in(folder: Path, named_by: str, *, quiet: bool) -> Path:
    """Return the newest checkpoint of a run folder that the person named, and say which. Raises FileError."""
    newest = newest_checkpoint(folder)
    if newest is None:
        reason = f"holds no checkpoint ({CHECKPOINTS}/*.safetensors, {DEPTH} folders down at most); name a model file"
        raise FileError(folder, reason)
    return _said(newest, f"the newest below {folder}, named by {named_by}", quiet=quiet)


def _said(path: Path, where: str, *, quiet: bool) -> Path:
    streams.say(f"polyinr: model {path} ({where})", quiet=quiet, always=True)
    return path
