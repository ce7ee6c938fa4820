"""Hostile files are refused in one line, in bounded time and memory, and nothing in them is run."""

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from forging import Persistent, forge, released_tensors
from hostile import hostile_files

from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.checkpoints.safe_unpickler import PickleProblem, read_pickle
from polyinr_core.errors import CheckpointError

REFERENCE = Path(__file__).parent.parent / "reference"
CANARY = Path("canary")  # in the folder in which the files are read
FILES = hostile_files(CANARY)
MAX_SECONDS = 2.0  # of CPU a file; about 0.5 on a slow core
MAX_MEMORY = 400 * 2**20  # of address space, beyond what the process has after its first conversion

# Reads every file of a folder in a process that may not grow, and that notes whatever could run something.
CHILD = """
import json, resource, sys, time
from pathlib import Path
from polyinr_core.checkpoints.official import load_official_checkpoint

folder, most = Path("files"), int(sys.argv[1])
load_official_checkpoint(Path("whole.pkl"))
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + most, size + most))
events = []

def note(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    runs = "exec compile import os. subprocess. pickle. marshal. code. function. socket. ctypes."
    if writes or event.startswith(tuple(runs.split())):
        events.append(event)

sys.addaudithook(note)
for path in sorted(folder.iterdir()):
    events.clear()
    start = time.process_time()
    try:
        load_official_checkpoint(path)
        outcome = ["converted", ""]
    except BaseException as error:
        outcome = [type(error).__name__, str(error).removeprefix(f"{path}: ")]
    print(json.dumps([int(path.stem), *outcome, time.process_time() - start, sorted(set(events))]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each hostile file, and whether the canary was made."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "whole.pkl").write_bytes(forge(released_tensors()))
    (root / "files").mkdir()
    for index, content in enumerate(FILES.values()):
        (root / "files" / f"{index}.pkl").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(MAX_MEMORY)],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    found = {index: row for index, *row in map(json.loads, done.stdout.splitlines())}
    return {name: found[index] for index, name in enumerate(FILES)}, (root / CANARY).exists()


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_in_one_line(name, outcomes):
    kind, message, seconds, events = outcomes[0][name]
    assert kind == "CheckpointError", message
    assert message.startswith("not a released checkpoint: ")
    assert message.isprintable()
    assert len(message) < 250
    assert seconds < MAX_SECONDS
    assert events == []


def test_nothing_ran(outcomes):
    assert len(FILES) > 150
    assert not outcomes[1]


def test_embedded_source_and_hooks_are_stepped_over(tmp_path):
    # the release itself embeds source and functions: a whole file with others in their place converts, unrun
    canary = tmp_path / "canary"

    class Planted(Persistent):
        source = f"open({str(canary)!r}, 'w')"

    Planted.__module__, Planted.__qualname__ = "training.networks_gmgan", "Planted"
    path = tmp_path / "whole.pkl"
    path.write_bytes(forge(released_tensors(), Planted, D=Planted()))
    assert load_official_checkpoint(path).resolution == 4
    assert not canary.exists()


def convert_or_refuse(path: Path) -> bool:
    """Say whether the file converts; any error but a CheckpointError of one line fails the test."""
    problem = ""
    try:
        load_official_checkpoint(path)
    except CheckpointError as error:
        problem = str(error)
    assert problem.isprintable()
    return not problem


def bitten(data: bytes, rng: random.Random) -> bytes:
    """Return the file cut short, or with up to eight bytes changed, inserted or taken out."""
    damaged = bytearray(data)
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(damaged))
        match rng.randrange(4):
            case 0:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1:
                damaged[at] = rng.randrange(256)
            case 2:
                damaged.insert(at, rng.randrange(256))
            case 3:
                del damaged[at]
    return bytes(damaged)


def test_damage_to_a_small_file_never_surprises(tmp_path):
    # a good part of so small a file is structure, not numbers
    whole = forge(released_tensors(), progress={"cur_nimg": 7})
    path = tmp_path / "damaged.pkl"
    outcomes = set()
    for seed in range(300):
        path.write_bytes(bitten(whole, random.Random(seed)))
        outcomes.add(convert_or_refuse(path))
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", ["official_like.pkl", "official_like_full.pkl"])
def test_damage_to_a_large_file_never_surprises(name, tmp_path):
    whole = (REFERENCE / name).read_bytes()
    path = tmp_path / "damaged.pkl"
    for seed in range(12):
        path.write_bytes(bitten(whole, random.Random(seed)))
        convert_or_refuse(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["official_like.pkl", "official_like_full.pkl", "official_like_uncond.pkl"])
def test_damage_to_a_large_file_never_surprises_at_length(name, tmp_path):
    whole = (REFERENCE / name).read_bytes()
    path = tmp_path / "damaged.pkl"
    for seed in range(1000, 1120):
        path.write_bytes(bitten(whole, random.Random(seed)))
        convert_or_refuse(path)


def test_noise_never_surprises():
    rng = random.Random(0)
    opcodes = b"(0123NKMJGXCq]}t)ubasedR\x80\x81\x85\x86\x87\x88\x8c\x8e\x90\x91\x92\x93\x94\x95lQhjrUT."
    for _ in range(3000):
        noise = bytes(rng.choice(opcodes) if rng.random() < 0.8 else rng.randrange(256) for _ in range(60))
        with contextlib.suppress(PickleProblem):
            read_pickle(memoryview(b"\x80\x04" + noise), known=lambda module, name: True)


def test_what_a_file_with_a_hole_announces_is_bounded(tmp_path):
    # a file with a hole costs nothing on the disk: gigabytes of weights may be announced, and be there
    header = b'{"gridt":{"dtype":"F32","shape":[1,65536,65536],"data_offsets":[0,17179869184]}}'
    path = tmp_path / "hole.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 17179869184)
    with pytest.raises(CheckpointError, match="more than 268,435,456 values"):
        load_official_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        (10).to_bytes(8, "little") + b"{" + bytes(20),
        (2).to_bytes(8, "little") + b"{}",
        (60).to_bytes(8, "little") + b'{"gridt":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  ',
        (2**63).to_bytes(8, "little") + b"{}",
        (2**23).to_bytes(8, "little") + b"{" + b" " * 2**23,
    ],
)
def test_broken_safetensors_files_are_refused(content, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    assert not convert_or_refuse(path)
