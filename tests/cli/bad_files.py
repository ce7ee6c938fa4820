"""Files that no command can use, made by their names: cut.zip, folder.png, empty.safetensors, run-other/."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from conftest import REFERENCE, small_checkpoint
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from polyinr_core.checkpoints.checkpoint import read_facts
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.latents.direction_files import write_directions
from polyinr_core.latents.directions import Directions
from polyinr_core.latents.io import write_latents
from polyinr_core.latents.latents import Latents
from polyinr_core.runtime.atomic_io import sha256_of
from polyinr_core.training.config import PRESETS
from polyinr_core.training.run_dir import DataFacts, RunFolder

SOUND = {".safetensors": "model.safetensors", ".zip": "data.zip", ".pkl": "released.pkl", ".png": "photo.png"}


def make(name: str) -> None:
    """Make the file or folder of this name in the current folder, if the name means something here."""
    path = Path(name)
    maker = EXACT.get(name) or BY_STEM.get(path.stem)
    if maker and not os.path.lexists(path):
        maker(path)


def noise(side: int = 16, seed: int = 0, width: int = 0) -> bytes:
    """Return a PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, width or side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def archive(path: Path, *, images: int = 12, classes: int = 3, facts: object = None, **extra: bytes) -> None:
    """Write an archive of noise at 16 px; `facts` in place of its own dataset.json, `extra` as more entries."""
    names = [f"00000/img{i:08d}.png" for i in range(images)]
    if facts is None:
        facts = {"labels": [[name, i % classes] for i, name in enumerate(names)]}
    with zipfile.ZipFile(path, "w") as zipped:
        for index, name in enumerate(names):
            zipped.writestr(name, noise(seed=index))
        for name, data in extra.items():
            zipped.writestr(name, data)
        zipped.writestr("dataset.json", facts if isinstance(facts, str) else json.dumps(facts))


def sound_bytes(path: Path) -> bytes:
    """Return the bytes of a sound file of the kind that the suffix promises."""
    sound = Path(SOUND[path.suffix])
    there = sound.exists()
    make(sound.name)
    data = sound.read_bytes()
    if not there:
        sound.unlink()
    return data


def flipped(path: Path) -> None:
    data = bytearray(sound_bytes(path))
    data[:24] = bytes(value ^ 0xFF for value in data[:24])
    path.write_bytes(data)


def changed_model(path: Path, *, tensors: Callable[[dict], dict] = dict, **facts: object) -> None:
    """Write a model with other tensors, or other facts in its header."""
    small_checkpoint(path)
    held, header = load_file(path), {**read_facts(path), **facts}
    save_file(tensors(held), path, metadata={"polyinr": json.dumps(header)})


def giant_model(path: Path) -> None:
    small_checkpoint(path)
    changed = {**read_facts(path)["generator"], "channels": 65536, "w_dim": 65536}
    save_file(load_file(path), path, metadata={"polyinr": json.dumps({**read_facts(path), "generator": changed})})


def latents_of_format_99(path: Path) -> None:
    write_latents(path, Latents(z=torch.zeros(1, 8)))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["polyinr_latents"])
    save_file(load_file(path), path, metadata={"polyinr_latents": json.dumps({**facts, "format": 99})})


def directions_of_model(path: Path) -> None:
    """Write two directions of model.safetensors."""
    make("model.safetensors")
    made = Directions(
        space="w",
        mean=torch.zeros(3, 12),
        components=torch.ones(2, 3, 12) / 6,
        deviations=torch.ones(2),
        shares=torch.ones(2) / 2,
        samples=20,
        model_sha256=sha256_of(Path("model.safetensors")),
    )
    write_directions(path, made)


def tree(path: Path, **files: bytes) -> None:
    """Make a folder with files in it; `cat_1` lies in `cat`."""
    for name, data in files.items():
        file = path / (name.replace("_", "/") + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def run_folder(path: Path, *, state: dict | None = None, **changes: object) -> None:
    """Make the folder of a run of `train data.zip --preset tiny` with a changed configuration or a bad state."""
    make("data.zip")
    with ZipDataset.open("data.zip") as data:
        facts = DataFacts("data.zip", data.sha256, len(data), data.classes)
    folder = RunFolder(path)
    folder.claim(replace(PRESETS["tiny"], **changes), facts)
    if state is not None:
        folder.state.mkdir()
        (folder.state / "000000000008.json").write_text(json.dumps(state))
        (folder.state / "000000000008.safetensors").write_bytes(b"")


def run_without_state_folder(path: Path) -> None:
    run_folder(path)
    RunFolder(path).state.write_text("no folder")


def run_of_format_99(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"format": 99, "training": asdict(PRESETS["tiny"])}))


BY_STEM: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello there, this is no such file at all\n"),
    "mine": lambda path: path.write_text("mine"),
    "image": lambda path: path.write_bytes(noise()),
    "folder": Path.mkdir,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path),
    "unreadable": lambda path: path.symlink_to("/proc/self/mem"),  # an error on read, for root too
    "fifo": os.mkfifo,
    "cut": lambda path: path.write_bytes((data := sound_bytes(path))[: len(data) // 2]),
    "flipped": flipped,
}
EXACT: dict[str, Callable[[Path], object]] = {
    "model.safetensors": small_checkpoint,
    "classes.safetensors": lambda path: small_checkpoint(path, classes=4),
    "format.safetensors": lambda path: changed_model(path, format=99),
    "short.safetensors": lambda path: changed_model(path, tensors=lambda held: dict(list(held.items())[1:])),
    "nan.safetensors": lambda path: changed_model(
        path, tensors=lambda held: {name: value * float("nan") for name, value in held.items()}
    ),
    "giant.safetensors": giant_model,
    "foreign.safetensors": lambda path: save_file({"q": torch.zeros(1, 8)}, path),
    "endless.safetensors": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
    "header.safetensors": lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}"),
    "stub.safetensors": lambda path: path.write_bytes(sound_bytes(path)[:99]),
    "latents.safetensors": lambda path: write_latents(path, Latents(z=torch.zeros(1, 8))),
    "wide.safetensors": lambda path: write_latents(path, Latents(z=torch.zeros(1, 9))),
    "latents-99.safetensors": latents_of_format_99,
    "directions.safetensors": directions_of_model,
    "released.pkl": lambda path: path.write_bytes((REFERENCE / "official_like_uncond.pkl").read_bytes()),
    "harmless.pkl": lambda path: path.write_bytes(b"\x80\x04}."),
    "harmful.pkl": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\nX\x06\0\0\0touch xR."),
    "photo.png": lambda path: path.write_bytes(noise(24)),
    "zeros.png": lambda path: path.write_bytes(bytes(100)),
    "head.png": lambda path: path.write_bytes(noise()[:11]),
    "head.tif": lambda path: path.write_bytes(b"II*\0" + bytes(3)),
    "photos": lambda path: tree(path, cat_1=noise(24), dog_2=noise(24, 1)),
    "broken": lambda path: tree(path, cat_1=noise(24), dog_2=b"no image"),
    "nothing": Path.mkdir,
    "data.zip": archive,
    "few.zip": lambda path: archive(path, images=4),
    "one-class.zip": lambda path: archive(path, classes=1),
    "unlabeled.zip": lambda path: archive(path, facts={"labels": None}),
    "no-images.zip": lambda path: archive(path, images=0),
    "no-json.zip": lambda path: archive(path, facts="{"),
    "float-labels.zip": lambda path: archive(path, images=1, facts={"labels": [["00000/img00000000.png", 0.5]]}),
    "missing-labels.zip": lambda path: archive(path, facts={"labels": [["00000/img00000000.png", 0]]}),
    "upwards.zip": lambda path: archive(path, **{"../x.png": b""}),
    "oblong.zip": lambda path: archive(path, images=0, facts={}, **{"a.png": noise(8, width=9)}),
    "bad-image.zip": lambda path: archive(path, images=0, facts={}, **{"a.png": b"no image"}),
    "bad.tar": lambda path: path.write_bytes(b"BZh" + bytes(60)),
    "bad.tar.gz": lambda path: path.write_bytes(b"\x1f\x8b" + bytes(60)),
    "full": lambda path: tree(path, a=noise()),
    "run-format": run_of_format_99,
    "run-text": lambda path: (path.mkdir(), (path / "config.json").write_text("hello")),
    "run-other": lambda path: run_folder(path, batch=4, seed=3),
    "run-tuned": lambda path: run_folder(path, init_from="ab" * 32),
    "run-damaged": lambda path: run_folder(path, state={}),
    "run-newer": lambda path: run_folder(path, state={"format": 3}),
    "run-begun": lambda path: run_folder(path, state={"sha256": "", "counters": {"stage": 0, "images": 800}}),
    "run-text-state": run_without_state_folder,
}


def made_for(command: list[str]) -> None:
    """Make what the words of a command name."""
    for word in command:
        make(re.split(r"[=/]", word)[-1] if "=" in word else word.split("/")[0])
