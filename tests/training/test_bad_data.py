"""Images that do not fit: what cannot be trained on is refused when it is met, the rest is trained on."""

import io
import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image
from processes import TINY, drafts, states

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.runtime import pretrained

pytestmark = pytest.mark.no_numbers
SHORT = [*TINY, "--stages", "8:0.008"]
once = cache(pretrained.load_pretrained)


@pytest.fixture(autouse=True)
def networks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "load_pretrained", once)


def write_images(path: Path, *, gray: tuple[int, ...] = (), odd: tuple[int, ...] = (), labeled: bool = True) -> None:
    """Write twelve images of 16 px in three classes, some of them gray, some of 20 px."""
    rng = np.random.default_rng(0)
    names = [f"00000/img{i:08d}.png" for i in range(12)]
    with zipfile.ZipFile(path, "w") as archive:
        for index, name in enumerate(names):
            side = 20 if index in odd else 16
            shape = (side, side) if index in gray else (side, side, 3)
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, "png")
            archive.writestr(name, file.getvalue())
        labels = [[name, i % 3] for i, name in enumerate(names)] if labeled else None
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


@pytest.mark.parametrize("labeled", [True, False])
def test_a_image_of_another_size_is_named(polyinr: Run, tmp_path: Path, labeled: bool) -> None:
    write_images(tmp_path / "data.zip", odd=(7,), labeled=labeled)
    ran = polyinr(*SHORT)
    refused(ran, "data.zip: the image '00000/img00000007.png' is 20x20, not 16x16 as the first", code=1)
    assert "polyinr prepare" in ran.stderr
    assert not drafts(tmp_path)
    assert not (tmp_path / "run/run.lock").exists()


@pytest.mark.parametrize("gray", [(0,), tuple(range(12))], ids=["one", "all"])
def test_gray_images_are_trained_on(polyinr: Run, tmp_path: Path, gray: tuple[int, ...]) -> None:
    write_images(tmp_path / "data.zip", gray=gray)
    assert polyinr(*SHORT).code == 0
    assert states(tmp_path) == [8]


def test_without_labels_the_model_has_no_classes(polyinr: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "data.zip", labeled=False)
    assert polyinr(*SHORT).code == 0
    assert load_checkpoint(tmp_path / "run/checkpoints/000000008.safetensors").generator.config.classes == 0
