"""Released files opened: the tensors of the network to use, found in a pickle or a safetensors file."""

import math
import mmap
import stat
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import SnapshotError
from ..files import PathLike, explain
from ..pickles import LONGEST_NAME, Made, PickleProblem, read_pickle, shown
from ..tensor_files import METADATA, TensorFileError, check_values, is_utf8, read_header, read_tensors
from .names import is_released_name
from .renaming import Stored, snapshot_of
from .snapshot import METADATA_KEY, Snapshot, check_drawing
from .storages import StoredTensor

NETWORK = "G_ema"
TEST_VECTORS = ("input.", "output.", "output64.", "debug.", "post_train.")
MOST_MODULES = 500
MOST_TENSORS = 2_000
LONGEST_HEADER = 2**22
MOST_DEPTH = 8
OURS = "it is a polyinr snapshot already; use it as it is, or make it smaller with --half"


def read_released(path: PathLike) -> Snapshot:
    """Read a released pickle, or its tensors under their released names in a safetensors file.

    Weights are bit for bit those of G_ema; nothing in the file is executed. `origin` tells the file's name and
    SHA-256. Raises SnapshotError, FileError.
    """
    path = Path(path)
    try:
        data = map_file(path)
        if is_safetensors(data):
            stored, kimg = stored_in_safetensors(path, data), 0.0
        else:
            stored, kimg = stored_in_pickle(data)
        snapshot = snapshot_of(stored, kimg=kimg)
        check_values(snapshot.generator.state_dict())
        check_drawing(snapshot.generator)
        digest = sha256(data).hexdigest()
        origin = {"converter": f"polyinr {version('polyinr')}", "file": path.name, "sha256": digest}
        return replace(snapshot, origin=origin)
    except PickleProblem as problem:
        raise SnapshotError(path, f"not a released snapshot: {problem}") from problem
    except TensorFileError as error:
        raise SnapshotError(path, f"not a sound snapshot: {error}") from error
    except SafetensorError as error:
        raise SnapshotError(path, f"a damaged safetensors file ({shown(str(error))})") from error
    except OSError as error:
        raise explain(path, error) from error


def map_file(path: Path) -> memoryview:
    """Return the file's bytes, read from the disk only where they are looked at."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PickleProblem("it is not a regular file")
    if not status.st_size:
        raise PickleProblem("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_safetensors(data: memoryview) -> bool:
    """Say whether a file begins as safetensors do: with the length of a JSON object that follows."""
    return len(data) > 8 and int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{"


def stored_in_safetensors(path: Path, data: memoryview) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by name, test vectors left out. Raises PickleProblem."""
    if int.from_bytes(data[:8], "little") > LONGEST_HEADER:
        raise PickleProblem("its safetensors header is longer than that of any released generator")
    if not is_utf8(path):
        held = read_tensors(bytes(data))
        if METADATA_KEY in read_header(path)[METADATA]:
            raise PickleProblem(OURS)
        return {
            name: Stored(tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]
            for name, tensor in held.items()
            if not name.startswith(TEST_VECTORS)
        }
    file = safe_open(path, framework="pt")  # stays open while its tensors may be read
    if METADATA_KEY in (file.metadata() or {}):
        raise PickleProblem(OURS)
    names = [name for name in file.keys() if not name.startswith(TEST_VECTORS)]  # noqa: SIM118  not iterable
    return {
        name: Stored(tuple(file.get_slice(name).get_shape()), partial(file.get_tensor, name)) for name in names
    }


def stored_in_pickle(data: memoryview) -> tuple[dict[str, Stored], float]:
    """Return the tensors of G_ema by name, and the thousands of pictures it has seen. Raises PickleProblem."""
    if data[:2] == b"PK":
        raise PickleProblem("a zip archive; the released snapshots are plain pickles")
    top, end = read_pickle(data, known=is_released_name)
    if end != len(data):
        raise PickleProblem(f"{len(data) - end:,} bytes follow after the pickle's end")
    if not isinstance(top, dict) or NETWORK not in top:
        raise PickleProblem(f"it holds no network {NETWORK}; released snapshots are dictionaries with one")
    stored = stored_in_modules(top[NETWORK])
    if 4 * sum(math.prod(tensor.shape) for tensor in stored.values()) > 2 * len(data):
        raise PickleProblem("its tensors claim more values than the file has bytes for")
    return stored, kimg_of(top.get("progress"))


def stored_in_modules(network: Any) -> dict[str, Stored]:
    """Walk a network's `_parameters`, `_buffers`, `_modules`; return its tensors by their dotted names.

    Raises PickleProblem.
    """
    found: dict[str, Stored] = {}
    waiting = [("", network, 0)]
    for _ in range(MOST_MODULES):
        if not waiting:
            return found
        prefix, module, depth = waiting.pop()
        state = state_of(module, prefix)
        for kind in ("_parameters", "_buffers"):
            for name, value in members_of(state, kind, most=MOST_TENSORS - len(found)).items():
                if value is not None:
                    tensor = StoredTensor(shown(prefix + name), value)
                    found[prefix + name] = Stored(tensor.shape, tensor.numbers)
        inner = members_of(state, "_modules", most=MOST_MODULES)
        if inner and depth == MOST_DEPTH:
            raise PickleProblem(f"modules nested deeper than {MOST_DEPTH} in {NETWORK}")
        waiting += [(f"{prefix}{name}.", value, depth + 1) for name, value in inner.items() if value is not None]
    raise PickleProblem(f"more than {MOST_MODULES:,} modules in {NETWORK}")


def members_of(state: Mapping[str, Any], kind: str, *, most: int) -> Mapping[str, Any]:
    """Return a module's tensors or inner modules by their names. Raises PickleProblem for more than `most`."""
    members = items_of(state.get(kind))
    if len(members) > most or len(max(members, key=len, default="")) > LONGEST_NAME:
        raise PickleProblem(f"too many {kind.strip('_')} in {NETWORK}, or too long a name")
    return members


def state_of(module: Any, prefix: str) -> Mapping[str, Any]:
    """Return the attributes of a module that is stored by reference or through the persistence wrapper."""
    if isinstance(module, Made):
        state = module.state
        if module.function.name == "_reconstruct_persistent_obj" and module.arguments:
            state = items_of(module.arguments[0]).get("state")
        if items_of(state):
            return items_of(state)
    raise PickleProblem(f"{shown(f'{NETWORK}.{prefix}').rstrip('.')} is no network module")


def items_of(value: Any) -> Mapping[str, Any]:
    """Return the items of a plain dictionary, or of an object that is one (OrderedDict, EasyDict)."""
    if isinstance(value, Made):
        return value.items
    return value if isinstance(value, dict) else {}


def kimg_of(progress: Any) -> float:
    """Return how many thousands of pictures were seen, 0 if the file does not say."""
    counted = items_of(progress).get("cur_nimg")
    if isinstance(counted, Made):
        tensor = StoredTensor("cur_nimg", counted)
        numbers = tensor.numbers() if math.prod(tensor.shape) == 1 else None
        counted = None if numbers is None or numbers.is_floating_point() else int(numbers)
    return counted / 1000 if type(counted) is int and 0 <= counted < 2**53 else 0.0
