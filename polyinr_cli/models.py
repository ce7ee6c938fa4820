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
BUNDLED = "model.safetensors"


def find_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the model file to use, and say which if the person did not. Raises PolyinrError."""
    if model is not None:
        return model
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise FileError(named, f"no such file (named by ${VARIABLE}); name another with -m")
        return _said(Path(named), f"from ${VARIABLE}", quiet=quiet)
    snapshots = [path for path in RUNS.glob("**/snapshots/*.safetensors") if path.is_file()]
    if snapshots:
        newest = max(snapshots, key=lambda path: (path.stat().st_mtime_ns, str(path)))
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


def _said(path: Path, where: str, *, quiet: bool) -> Path:
    streams.say(f"polyinr: model {path} ({where})", quiet=quiet, always=True)
    return path
