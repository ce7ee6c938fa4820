"""A run folder as training leaves one, made in no time: two stages, a model, sheets, a second start."""

import json
from pathlib import Path

import numpy as np
from conftest import small_checkpoint

from polyinr_core.images.io import write_image
from polyinr_core.training.config import TrainingConfig, parse_stages
from polyinr_core.training.run_dir import DataFacts, RunFolder


def events() -> list[dict]:
    """The log of 4 kimg: 16 px to 2 kimg, then 32 px; at 1.5 a stop lost what was done since 1."""
    found: list[dict] = [{"kimg": 0.0, "fd-lite2": 900.0, "reals": 8, "fakes": 8}, {"kimg": 0.0, "diversity": 0.2}]
    steps = [0.25 * i for i in range(1, 7)] + [1.0] + [0.25 * i for i in range(5, 17)]
    for number, kimg in enumerate(steps):
        if number == 6:
            found.append({"kimg": 1.0, "resumed": True})
            continue
        losses = {"loss_g": 1.0 + kimg, "loss_d": 2.0 - kimg / 4, "d_sign_fake": -0.5, "d_sign_real": 0.5}
        logits = {"d_logit_fake": -kimg, "d_logit_real": kimg, "img_per_sec": 10.0 + number}
        found.append({"kimg": kimg, **losses, **logits, "cpu_mem_mib": 1600.0, "loss_guidance": 0.0})
    found += [{"kimg": 4.0, "fd-lite2": 700.0}, {"kimg": 4.0, "diversity": 0.3}]
    found.append({"kimg": 4.0, "warning": "judging takes <b>long</b>"})
    return [
        {"stage": int(event["kimg"] > 2), "resolution": 32 if event["kimg"] > 2 else 16, **event} for event in found
    ]


def make_run(path: Path, *, data: DataFacts | None = None, classes: int = 0) -> Path:
    """Make the folder: an untrained model of 16 px as the best, two sheets, the reals, the log."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    config = TrainingConfig(stages=parse_stages("16:2,32:8:batch=8"))
    folder.claim(config, data or DataFacts("images.zip", "ab" * 32, 8, 0))
    folder.log.write_text("".join(json.dumps(event) + "\n" for event in events()))
    small_checkpoint(folder.checkpoints / "best.safetensors", classes=classes)
    rng = np.random.default_rng(0)
    for name in ("fakes-000000000", "fakes-000004000", "reals"):
        write_image(folder.sample(name), rng.integers(0, 256, (70, 142, 3), dtype=np.uint8))
    return path


def make_reals(path: Path, count: int = 12, *, side: int = 16) -> Path:
    """Make a folder of so many noisy images."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(count):
        write_image(path / f"{i:02d}.png", rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return path
