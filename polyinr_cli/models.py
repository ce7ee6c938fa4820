"""Which model file a command uses: --model, $POLYINR_MODEL, the newest below ./runs, the bundled one.

A name with a plus, MODEL+DELTA, is a model and a delta that was tuned for it, unless a file has that very name.
"""

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, PolyinrError

from . import streams

if TYPE_CHECKING:
    from polyinr_core.snapshots.snapshot import Snapshot

VARIABLE = "POLYINR_MODEL"
RUNS = Path("runs")
SNAPSHOTS = "snapshots"  # the folder of a run that holds them
BEST = "best.safetensors"  # a model kept for its distance, whenever it was written
BUNDLED = "emoji.safetensors"
PLUS = "+"


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
    if newest := newest_snapshot(RUNS):
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


def load_model(model: Path | None, *, quiet: bool = False) -> tuple["Snapshot", Path]:
    """Find a model, read it, and apply the deltas named with it. Raises PolyinrError.

    Returns (snapshot, its file); with deltas the file's name is that of all, joined by plus signs.
    """
    path = find_model(model, quiet=quiet)
    base, *deltas = split_deltas(path)
    if deltas and base.is_dir():
        base = newest_in(base, "-m" if model is not None else f"${VARIABLE}", quiet=quiet)
    from polyinr_core.snapshots.snapshot import load_snapshot

    if not deltas:
        _refuse_lone_delta(base)
        return load_snapshot(base), base
    from polyinr_core.snapshots.delta import apply_delta, read_delta

    snapshot = load_snapshot(base)
    for delta in deltas:
        snapshot = apply_delta(snapshot, read_delta(delta), source=delta)
    return snapshot, base.with_name("+".join([base.name, *(delta.name for delta in deltas)]))


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
    from polyinr_core.snapshots.delta import is_delta

    if path.suffix == ".safetensors" and is_delta(path):
        raise FileError(path, f"a delta; name the model that it was tuned for as well: -m MODEL{PLUS}{path.name}")


def newest_snapshot(folder: Path) -> Path | None:
    """Return the newest .safetensors file in a `snapshots` folder at or below `folder`, None if there is none.

    A run's best model counts only where it is the only one: when it was written says nothing.
    """
    found = [path for path in folder.glob("**/*.safetensors") if path.absolute().parent.name == SNAPSHOTS]
    found = [path for path in found if path.is_file()]
    numbered = {path.parent for path in found if path.name != BEST}
    found = [path for path in found if path.name != BEST or path.parent not in numbered]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def newest_in(folder: Path, named_by: str, *, quiet: bool) -> Path:
    """Return the newest snapshot of a run folder that the person named, and say which. Raises FileError."""
    newest = newest_snapshot(folder)
    if newest is None:
        raise FileError(folder, f"holds no snapshot ({SNAPSHOTS}/*.safetensors at any depth); name a model file")
    return _said(newest, f"the newest below {folder}, named by {named_by}", quiet=quiet)


def _said(path: Path, where: str, *, quiet: bool) -> Path:
    streams.say(f"polyinr: model {path} ({where})", quiet=quiet, always=True)
    return path
