"""One data set, four commands: `prepare`, `info`, `train` and `evaluate` report the same of it."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from torch import Tensor

from polyinr_core.data.dataset import ImageDataset
from polyinr_core.evaluation import protocols
from polyinr_core.training import dry_run
from polyinr_core.training.config import TrainingConfig

Files = dict[str, bytes]


class Eyes(torch.nn.Module):
    """A judge of 5 features."""

    dim, name, sha256, side = 5, "lite2", "cd" * 32, 8

    def forward(self, pixels: Tensor) -> Tensor:
        matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0))
        return (torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 4).flatten(1) / 255) @ matrix


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(seed) for seed in range(8)]
NAMES = [f"0000{i % 2}/img{i:08d}.png" for i in range(8)]
STYLEGAN = dict(zip(NAMES, IMAGES, strict=True))
LABELS = json.dumps({"labels": [[name, i % 4 // 2] for i, name in enumerate(NAMES)], "class_names": ["a", "b"]})
LAYOUTS: dict[str, tuple[Files, dict[str, int]]] = {
    "dataset.json": (STYLEGAN | {"dataset.json": LABELS.encode()}, {"a": 4, "b": 4}),
    "no labels": (STYLEGAN | {"dataset.json": b'{"labels": null}'}, {}),
    "class folders": ({f"{'ab'[i % 2]}/{i}.png": IMAGES[i] for i in range(8)}, {"a": 4, "b": 4}),
    "samples with masks": (
        {f"{i}{field}": data for i in range(8) for field, data in
         ((".png", IMAGES[i]), (".mask.png", IMAGES[0]), (".json", json.dumps({"label": i % 2}).encode()))},
        {"0": 4, "1": 4},
    ),
}  # fmt: skip


def tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def folder(path: Path, files: Files) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def below(start: str, files: Files) -> Files:
    return {start + name: data for name, data in files.items()}


CONTAINERS: dict[str, Callable[[Files], Path]] = {
    "folder": lambda files: folder(Path("set"), files),
    "folder in folder": lambda files: folder(Path("outer"), below("set/", files)),
    "zip": lambda files: zipped(Path("set.zip"), files),
    "zip of folder": lambda files: zipped(Path("set.zip"), below("set/", files)),
    "./ tar": lambda files: tar(Path("set.tar"), below("./", files)),
    "tar of folder": lambda files: tar(Path("set.tar"), below("set/", files)),
}


def data_facts(data: ImageDataset) -> tuple[int, int]:
    return len(data), data.classes


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_commands_report_the_same(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, layout: str, container: str
) -> None:
    monkeypatch.setattr(protocols, "load_extractor", lambda name, **options: Eyes())
    read: list[tuple[int, int]] = []  # by train

    def plan(config: TrainingConfig, data: ImageDataset, *_: object, **options: object) -> SimpleNamespace:
        read.append(data_facts(data))
        return SimpleNamespace(to_dicts=list)

    monkeypatch.setattr(dry_run, "plan_run", plan)
    files, counts = LAYOUTS[layout]
    path = CONTAINERS[container](files)
    made = polyinr("prepare", path, "-o", "made.zip", "--res", "16", "--json", "--strict")
    assert made.code == 0, made.stderr
    assert (made.lines[0]["kept"], made.lines[0]["classes"]) == (8, len(counts))
    for each in (path, "made.zip"):
        (facts,) = polyinr("info", each, "--json").lines
        assert (facts["count"], facts["classes"], facts["images_of_class"]) == (8, len(counts), counts)
        assert facts["class_names"] == made.lines[0]["class_names"]
        if not Path(each).is_dir():  # which train does not take
            common = ("--preset", "tiny", "--stages", "8:0.008", "--batch", "4", "--dry-run", "--json")
            assert polyinr("train", each, *common).code == 0
            assert read.pop() == (8, len(counts))
    judged = polyinr("evaluate", "--real", path, "--fake", "made.zip", "--metrics", "fd-lite2", "--json")
    assert judged.code == 0, judged.stderr
    card = judged.lines[0]["card"]
    assert (card["reals"]["count"], card["fakes"]["count"]) == (8, 8)
    assert abs(judged.lines[0]["metrics"]["fd-lite2"]["value"]) < 1e-3  # the same images: their distance is 0
