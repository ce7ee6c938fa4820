"""Locate and load a model: a checkpoint, a run folder's newest one, MODEL+DELTA, hf:OWNER/NAME, or the bundled one."""

import os
from contextlib import suppress
from hashlib import sha256 as digest
from importlib import resources
from pathlib import Path

from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.strict_json import FOLDERS

from .checkpoint import Checkpoint, load_checkpoint, read_facts
from .delta import apply_delta, combined_sha256, is_delta, load_delta
from .hub import hub_name_of, is_hub_name, local_file

BUNDLED = "bundled"  # the name of the model that comes with the package
BUNDLED_FILE = "bundled.safetensors"
CHECKPOINT_FOLDER = "checkpoints"  # of a run
FOLDER_NAMES = (CHECKPOINT_FOLDER, FOLDERS[CHECKPOINT_FOLDER])  # and its name in runs of polyinr 0.1
RUNS = Path("runs")  # where runs are sought and made by default
BEST = "best.safetensors"  # the checkpoint of the best metric so far, whenever it was written
PLUS = "+"
MAX_DEPTH = 4  # folders between the one that is named and a run folder
MAX_ENTRIES = 100_000  # that are listed on the way: a tenth of a second


def load_model_file(model: PathLike | None = None) -> tuple[Checkpoint, Path]:
    """Load a model and the deltas that are named with it.

    Args:
        model: A checkpoint, a folder with a run in it (its newest checkpoint is taken), MODEL+DELTA[+DELTA...],
            hf:OWNER/NAME[@REVISION] on the hub, "bundled" or None for the model that comes with the package. A file of
            that very name comes first.

    Returns:
        The checkpoint and the path of its file; with deltas the paths of all, joined by "+".

    Raises FileError, CheckpointError, RequestError.
    """
    base, *deltas = split_deltas(Path(BUNDLED if model is None else model))
    is_named = str(base) == BUNDLED and not base.exists()
    base = bundled_model() if is_named else local_file(base)
    if base.is_dir():
        base = newest_in(base)
    if not deltas:
        if base.suffix == ".safetensors" and is_delta(base):
            raise FileError(base, f"a delta; name the model that it was tuned for as well: MODEL{PLUS}{base.name}")
        return load_checkpoint(base), base
    checkpoint = load_checkpoint(base)
    for delta in deltas:
        checkpoint = apply_delta(checkpoint, load_delta(delta), source=delta)
    return checkpoint, Path(PLUS.join(map(str, [base, *deltas])))


def bundled_model() -> Path:
    """Return the path of the model that comes with the package."""
    return Path(str(resources.files("polyinr_core") / "assets" / BUNDLED_FILE))


def is_bundled(sha256: str) -> bool:
    """Return whether a hash is that of the bundled model."""
    return hash_of(bundled_model()) == sha256


def hash_of(model: Path) -> str | None:
    """Return the hash of a model with its deltas, None if there is no such file."""
    base, *deltas = [bundled_model() if str(part) == BUNDLED else part for part in split_deltas(model)]
    try:
        found = digest(base.read_bytes()).hexdigest()
        for delta in deltas:
            found = combined_sha256(found, digest(delta.read_bytes()).hexdigest())
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return None
    return found


def model_argument(path: Path) -> str:
    """Return a model as -m takes it here: "bundled", its name on the hub, or its path, relative if it lies below."""
    here = Path.cwd()

    def shorten(part: Path) -> str:
        if part == bundled_model():
            return BUNDLED
        if name := hub_name_of(part):
            return name
        full = Path(os.path.abspath(part))
        return str(full.relative_to(here) if full.is_relative_to(here) else full)

    return PLUS.join(map(shorten, split_deltas(path)))


def find_by_hash(sha256: str, *, named: str, beside: Path) -> str | None:
    """Return the model of a hash as -m takes it in the current folder, None if it is not found.

    It is sought where it is `named`, from here and from the folders above the file `beside`, then below ./runs.
    """
    if is_bundled(sha256):
        return BUNDLED
    if is_hub_name(named):
        return named  # of a commit
    named = named.replace("~/", f"{Path.home()}/")
    above = [] if PLUS in named else [folder / named for folder in beside.absolute().parents]
    for path in (Path(named), *above):
        if hash_of(path) == sha256:
            return model_argument(path)
    with suppress(FileError):
        for folder in checkpoint_folders(RUNS) if RUNS.is_dir() else ():
            path = folder / Path(named).name
            if hash_of(path) == sha256:
                return model_argument(path)
    return None


def split_deltas(path: Path) -> list[Path]:
    """Return the model and the deltas that MODEL+DELTA... names; a path that exists is a model alone."""
    text = str(path)
    if PLUS not in text or path.exists():
        return [path]
    for cut in range(len(text) - 1, 0, -1):  # a plus may be part of a name: the pieces that exist decide
        if text[cut] == PLUS and Path(text[cut + 1 :]).is_file():
            head = split_deltas(Path(text[:cut]))
            if all(part.exists() or is_hub_name(part) for part in head):
                return [*head, Path(text[cut + 1 :])]
    return [Path(part) for part in text.split(PLUS) if part] or [path]


def newest_in(folder: Path) -> Path:
    """Return the newest checkpoint of the runs at or below a folder. Raises FileError if there is none."""
    newest = newest_checkpoint(folder)
    if newest is None:
        if untrained := [path for place in checkpoint_folders(folder) for path in checkpoint_files(place)]:
            raise FileError(folder, f"holds only an untrained checkpoint; train it, or name {untrained[0]}")
        where = f"{CHECKPOINT_FOLDER}/*.safetensors, at most {MAX_DEPTH} folders down"
        raise FileError(folder, f"holds no checkpoint ({where}); name a model file")
    return newest


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of the run at or below `folder` that was trained last, None if there is none.

    The newest checkpoint of a run is the one of the most images seen; untrained ones do not count. The last trained
    run is the one whose newest checkpoint was written last. Raises FileError for a folder of very many files, such
    as a whole disk.
    """
    newest = [path for place in checkpoint_folders(folder) if (path := newest_of_run(place)) is not None]
    return max(newest, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def newest_of_run(checkpoints: Path) -> Path | None:
    """Return the newest trained checkpoint in a `checkpoints` folder; the best one where it is the only one."""
    trained = {path: kimg for path in checkpoint_files(checkpoints) if (kimg := trained_kimg(path)) is not None}
    numbered = [path for path in trained if path.name != BEST]
    return max(numbered or trained, key=lambda path: (trained[path], path.stem.zfill(18)), default=None)


def trained_kimg(path: Path) -> float | None:
    """Return how many thousand images a checkpoint was trained on, 0 if unknown; None for an untrained one."""
    try:
        facts = read_facts(path)
    except PolyinrError:  # damaged: reported once it is read, if no other one is there
        return 0.0
    is_untrained = not facts["kimg"] and "stages" in facts["origin"]  # converted ones do not say their kimg
    return None if is_untrained else float(facts["kimg"])


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the `checkpoints` folders of the runs at or below a folder, MAX_DEPTH levels down. Raises FileError.

    A run's other folders, hidden folders and links to folders are not entered.
    """
    if folder.absolute().name in FOLDER_NAMES:
        return [folder]
    found, entries_seen = [], 0
    level = [folder]
    for _ in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for path in level:
            if held := [path / name for name in FOLDER_NAMES if os.path.isdir(path / name)]:
                found += held
                if path != folder:
                    continue
            with suppress(OSError), os.scandir(path) as entries:
                for entry in entries:
                    entries_seen += 1
                    if entries_seen > MAX_ENTRIES:
                        raise FileError(folder, "holds too many files to search for a model; name a run or a model")
                    if entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
                        below.append(path / entry.name)
        level = [path for path in below if path.name not in FOLDER_NAMES]
    return found


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the model files of a `checkpoints` folder."""
    return [path for path in folder.glob("*.safetensors") if path.is_file()]
