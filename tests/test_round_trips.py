"""Every format: facts that are written come back equal, or the writer refuses in one line and leaves nothing.

What comes back is equal but for one stated change: bytes of names that are not UTF-8 are escaped.
"""

import json
import math
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from polyinr_core.checkpoints.delta import Delta, load_delta, save_delta
from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.labels import LabelInfo
from polyinr_core.data.prepare import prepare
from polyinr_core.data.prepare_journal import WorkFolder
from polyinr_core.data.zip_dataset import ZipDataset, write_zip_dataset
from polyinr_core.errors import PolyinrError
from polyinr_core.evaluation.results import format_result, read_result
from polyinr_core.evaluation.statistics_io import open_statistics
from polyinr_core.images.animation import write_animation
from polyinr_core.images.io import encode_image, read_metadata, write_image
from polyinr_core.latents.direction_files import read_directions, write_directions
from polyinr_core.latents.directions import Directions
from polyinr_core.latents.io import read_latents, write_latents
from polyinr_core.latents.latents import Latents
from polyinr_core.metrics.feature_pass import FeatureCache
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.report.run_reader import read_log, read_run
from polyinr_core.runtime.strict_json import MAX_DEPTH, JsonError, format_json, parse_json, plain_json, to_unicode
from polyinr_core.training.config import PRESETS
from polyinr_core.training.run_dir import DataFacts, RunFolder
from polyinr_core.training.state import SavedState, read_state, write_state

TRIES = 60  # a format
NOT_HELD = object()  # of a format that has no place for facts of any kind
CONFIG = GeneratorConfig(levels=2, channels=4, z_dim=3, w_dim=5, classes=0)
TEXTS = [
    "",
    "cats",
    "caf\udce9",  # a name whose byte e9 is not UTF-8, as the file system gives it
    "\udcff\udc80",
    "caf\\xe9",
    "\ud800",  # half a character: refused
    "a\udfffb",
    "\U0001f600",
    "\u0000\u001f\u007f\u0085\u2028\ufeff\uffff",
    "e\u0301 \u202e \u200d",
    'quote " and \\ and </script>',
    "line\nline\r\n\ttab",
    "x" * 100_000,
    "é" * 3000,
]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Return a random fact, odd more often than not."""
    kinds = ["text", "whole", "number", "bool", "none"] + (["list", "object"] * 2 if depth < 4 else [])
    match rng.choice(kinds):
        case "text":
            return rng.choice(TEXTS)
        case "whole":
            return rng.choice([0, -1, 7, 2**31, 2**63, -(2**64), 10**300, rng.getrandbits(40)])
        case "number":
            return rng.choice([0.0, -0.0, 0.1, 1e-320, 1.7976931348623157e308, rng.gauss(0, 1e9)])
        case "bool":
            return rng.random() < 0.5
        case "none":
            return None
        case "list":
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {rng.choice(TEXTS[:9]): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def nested(depth: int) -> Any:
    held: Any = 1
    for _ in range(depth):
        held = [held]
    return held


def facts(rng: random.Random) -> dict[str, Any]:
    """Return an object of random facts, now and then with one that no JSON can hold."""
    made = {f"key {i}": value(rng) for i in range(rng.randrange(4))}
    odd = rng.randrange(12)
    if odd == 0:
        made["bad"] = rng.choice([math.nan, math.inf, -math.inf])
    elif odd == 1:
        made["deep"] = nested(rng.choice([MAX_DEPTH - 5, MAX_DEPTH + 5, 3000]))
    elif odd == 2:
        made["long"] = 10 ** rng.choice([309, 5000])
    return made


def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(CONFIG).eval()


def of_checkpoint(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    names = tuple(rng.choice(TEXTS[:9]) for _ in range(rng.randrange(3)))
    save_checkpoint(path, Checkpoint(generator(), class_names=names, kimg=rng.choice([0.5, 1e6]), origin=made))
    found = load_checkpoint(path)
    assert found.class_names == tuple(map(to_unicode, names))
    return found.origin


def of_delta(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    shapes = ((2, 4, 1), (2, 1, 4), (2, 4), (3, 4), (3,))
    tensors = [torch.rand(shape) for shape in shapes]
    save_delta(path, Delta(*tensors, model_sha256="ab", origin=made))
    return load_delta(path).origin


def of_latents(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    psi = rng.choice([None, 0.7, math.nan, 1e300])
    latents = Latents(z=torch.rand(1, 3), seeds=(rng.choice([0, 2**32]),), psi=psi, model_sha256=rng.choice(TEXTS))
    write_latents(path, latents)
    found = read_latents(path)
    assert (found.seeds, found.psi) == (latents.seeds, psi)
    assert found.model_sha256 == to_unicode(latents.model_sha256)
    return NOT_HELD


def of_directions(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    psi = rng.choice([1.0, math.inf, -0.5])
    space = torch.rand(2, 5)
    one = Directions("w", space, space[None], torch.ones(1), torch.ones(1), 9, psi, model_sha256=rng.choice(TEXTS))
    write_directions(path, one)
    assert read_directions(path).psi == psi
    assert read_directions(path).model_sha256 == to_unicode(one.model_sha256)
    return NOT_HELD


def of_cache(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    path.mkdir(exist_ok=True)
    kept = FeatureCache(path)
    kept.store(made, 5, {"mean": torch.ones(2)})
    count, tensors = kept.load(made) or (0, {})
    assert (count, tensors["mean"].tolist()) == (5, [1.0, 1.0])
    return plain_json(made)


def of_result(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    figure = rng.choice([1.5, 0, math.nan, 1e299])
    path.write_text(format_result({"format": 2, "metrics": {"fid": {"value": figure}}, "card": made}), "utf-8")
    assert read_result(path).metrics == {"fid": {"value": figure}}
    return read_result(path).card


def of_image(suffix: str) -> Callable[[Path, dict[str, Any], random.Random], Any]:
    def round_trip(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
        path = path.with_suffix(suffix)
        pixels = np.zeros((3, 4, 3), np.uint16 if rng.random() < 0.5 and suffix != ".gif" else np.uint8)
        note = {"polyinr": "1", **made}
        if suffix in (".gif", ".webp"):
            write_animation(path, iter([pixels.astype(np.uint8)] * 2), count=2, fps=10, metadata=note)
        else:
            write_image(path, pixels, metadata=note)
        found = read_metadata(path)
        found.pop("polyinr", None)
        return found

    return round_trip


def of_run(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    folder, name = RunFolder(path), rng.choice(TEXTS)
    for _ in range(2):  # anew, and to go on with
        folder.claim(PRESETS["tiny"], DataFacts(name, "ab", 5, 0))
    assert folder.read()["data"]["name"] == to_unicode(name)
    return NOT_HELD


def of_log(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    RunFolder(path.parent).append({"kimg": 1.0, **made})
    (event,) = read_log(path.parent / "log.jsonl").events
    event.pop("kimg")
    return event


def of_state(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    write_state(path, SavedState({"a": torch.zeros(1)}, {"stage": 0, "images": 4, "hooks": made}), images=4)
    state, damaged = read_state(path)
    assert state is not None
    assert not damaged
    return state.counters["hooks"]


def of_archive(path: Path, made: dict[str, Any], rng: random.Random) -> Any:
    names = tuple(dict.fromkeys(rng.choice(TEXTS[:9]) for _ in range(2)))
    labels = LabelInfo(np.arange(len(names)) % len(names), len(names), names)
    output = path.with_suffix(".zip")
    with WorkFolder(output, request="x") as work:
        for _ in names:
            work.add(rng.choice(TEXTS[:5]), encode_image(np.zeros((2, 2, 3), np.uint8)))
        try:
            write_zip_dataset(output, work.images(), labels, made, overwrite=False)
        finally:
            work.remove()
    with ZipDataset.open(output) as archive:
        assert archive.class_names == tuple(map(to_unicode, names))
        return archive.provenance


FORMATS: dict[str, Callable[[Path, dict[str, Any], random.Random], Any]] = {
    "checkpoint": of_checkpoint,
    "delta": of_delta,
    "latents": of_latents,
    "directions": of_directions,
    "statistics kept": of_cache,
    "result": of_result,
    "png": of_image(".png"),
    "tiff": of_image(".tif"),
    "gif": of_image(".gif"),
    "webp": of_image(".webp"),
    "run": of_run,
    "log": of_log,
    "state": of_state,
    "archive": of_archive,
}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_can_be_read(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    read = refused = 0
    left: list[Path] = []
    lines: set[int] = set()
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = facts(rng)
        try:
            found = FORMATS[name](folder / "file", made, rng)
        except PolyinrError as error:
            refused += 1
            lines |= {str(error).count("\n")}
            left += [path for path in folder.rglob("*") if path.is_file()]
            continue
        read += 1
        assert found is NOT_HELD or found == plain_json(made)
    assert not left
    assert lines <= {0}
    assert read > TRIES // 4
    assert refused > 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, -3e38])
def test_weights_that_cannot_be_read_are_not_written(bad: float, tmp_path: Path) -> None:
    sick = generator()
    with torch.no_grad():
        sick.synthesis.to_rgb.bias[0] = bad
    shapes = ((2, 4, 1), (2, 1, 4), (2, 4), (3, 4), (3,))
    space = torch.full((2, 5), bad)
    writers: list[Callable[[Path], object]] = [
        lambda path: save_checkpoint(path, Checkpoint(sick)),
        lambda path: save_delta(path, Delta(*[torch.full(shape, bad) for shape in shapes], model_sha256="")),
        lambda path: write_latents(path, Latents(w=space[None])),
        lambda path: write_directions(path, Directions("w", space, space[None], space[0, :1], space[0, :1], 9)),
    ]
    for write in writers:
        with pytest.raises(PolyinrError, match=r"NaN or Inf|above 1e"):
            write(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_finite_weights_that_overflow_are_not_written(tmp_path: Path) -> None:
    sick = Generator(replace(CONFIG, form="paper", levels=10)).eval()
    with torch.no_grad():
        for parameter in sick.parameters():
            parameter.fill_(1e8)
    with pytest.raises(PolyinrError, match="overflow"):
        save_checkpoint(tmp_path / "x.safetensors", Checkpoint(sick))
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8_is_escaped_by_one_rule() -> None:
    assert to_unicode(b"caf\xe9 \xff".decode("utf-8", "surrogateescape")) == "caf\\xe9 \\xff"
    assert to_unicode("café") == "café"
    with pytest.raises(JsonError, match="lone surrogate U\\+D800"):
        to_unicode("\ud800")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 65 + "]" * 65, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("NaN", "not a finite number"),
        ("-Infinity", "not a finite number"),
        ("1e999", "not a finite number"),
        ("9" * 309, "309 digits"),
        ("9" * 5000, "5000 digits"),
        (b"\xff\xfe", "not valid JSON"),
        (b"\xed\xa0\x80", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_texts_that_are_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(JsonError, match=words):
        parse_json(text)


def test_json_is_read_as_the_library_reads_it() -> None:
    text = format_json({"b": [1, 2.5, None, True, "é"], "a": {"": "\U0001f600"}})
    assert parse_json(text) == json.loads(text)
    assert parse_json(text.encode("utf-16")) == json.loads(text)
    assert parse_json("[" * 64 + "]" * 64) == json.loads("[" * 64 + "]" * 64)


def test_old_archives_with_such_names_open(tmp_path: Path) -> None:
    """As prepare wrote them before the rule: lone surrogates in class names."""
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("a.png", encode_image(np.zeros((2, 2, 3), np.uint8)))
        described = {"labels": [["a.png", 0]], "class_names": ["caf\udce9"]}
        zipped.writestr("dataset.json", json.dumps(described))
    with ZipDataset.open(path) as archive:
        assert archive.class_names == ("caf\\xe9",)


class AnyPath:
    """A path that is neither text nor a Path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("kind", [str, AnyPath])
def test_readers_and_writers_take_any_kind_of_path(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    model, image, zipped = tmp_path / "m.safetensors", tmp_path / "i.png", tmp_path / "d.zip"
    save_checkpoint(kind(model), Checkpoint(generator()))
    assert load_checkpoint(kind(model)).generator.config == CONFIG
    write_image(kind(image), np.zeros((3, 4, 3), np.uint8), metadata={"polyinr": "1"})
    assert read_metadata(kind(image)) == {"polyinr": "1"}
    prepare([kind(image)], kind(zipped), resolution=2)
    with open_dataset(kind(zipped)) as data:
        assert len(data) == 1
    write_latents(kind(tmp_path / "l.safetensors"), Latents(z=torch.rand(1, 3)))
    assert len(read_latents(kind(tmp_path / "l.safetensors"))) == 1
    shapes = ((2, 4, 1), (2, 1, 4), (2, 4), (3, 4), (3,))
    save_delta(kind(tmp_path / "x.safetensors"), Delta(*map(torch.rand, shapes), model_sha256=""))
    assert load_delta(kind(tmp_path / "x.safetensors")).rank == 1
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(2))
    assert len(open_statistics(kind(tmp_path / "s.npz")).statistics) == 1
    RunFolder(kind(tmp_path / "run")).claim(PRESETS["tiny"], DataFacts("d", "ab", 1, 0))
    RunFolder(kind(tmp_path / "run")).append({"kimg": 1.0})
    assert read_run(kind(tmp_path / "run")).log.kimg == 1.0
