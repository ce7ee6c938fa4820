"""README's images are what the commands beside them draw, with the model that comes with the package."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("write_images", ROOT / "docs" / "write_images.py")
write_images = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write_images)
ROWS = write_images.rows()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def test_each_image_has_its_command() -> None:
    shown = re.findall(r"!\[[^\]]*\]\((docs/images/[\w.]+)\)", (ROOT / "README.md").read_text())
    assert sorted(shown) == sorted(image for image, _ in ROWS)
    assert len(ROWS) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(("image", "line"), ROWS)
def test_the_command_draws_the_image(image: str, line: str, polyinr: Run, tmp_path: Path) -> None:
    """In float32, within a step of 255 nearly everywhere, as CPUs round differently. An inversion only comes near."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    ran = polyinr(*shlex.split(line), *([] if line.startswith("invert") else ["--precision", "float32"]))
    assert ran.code == 0, ran.stderr
    assert "the bundled one" in ran.stderr
    off = np.abs(pixels(tmp_path / Path(image).name) - pixels(ROOT / image))
    if line.startswith("invert"):
        assert off.mean() < 4
    else:
        assert (off <= 1).mean() > 0.999
