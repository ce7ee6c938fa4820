"""Which model file a command uses: --model, $POLYINR_MODEL, the newest below ./runs, the bundled one."""

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
BUNDLED = "model.safetensors"


def find_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the model file to use, and say which if the person named none or a folder. Raises PolyinrError."""
    if model is not None:
        return newest_in(model, "-m", quiet=quiet) if model.is_dir() else model
    if named := os.environ.get(VARIABLE):
        if Path(named).is_dir():
            return newest_in(Path(named), f"${VARIABLE}", quiet=quiet)
        if not Path(named).is_file():
            raise FileError(named, f"no such file (named by ${VARIABLE}); name another with -m")
        return _said(Path(named), f"from ${VARIABLE}", quiet=quiet)
    if newest := newest_snapshot(RUNS):
        return _said(newest, "the newest below ./runs", quiet=quiet)
    bundled = resources.files("polyinr_core") / "assets" / BUNDLED
    if bundled.is_file():
        return _said(Path(str(bundled)), "the bundled one", quiet=quiet)
    raise PolyinrError(
        f"no model: none below ./runs, ${VARIABLE} is not set; train one (`polyinr train`), convert a released "
        "one (`polyinr convert`), or name one with -m"
    )


def load_model(model: Path | None, *, quiet: bool = False) -> tuple["Snapshot", Path]:
    """Find a model and read it. Returns (snapshot, its file). Raises PolyinrError."""
    path = find_model(model, quiet=quiet)
    from polyinr_core.snapshots.snapshot import load_snapshot

    return load_snapshot(path), path


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
