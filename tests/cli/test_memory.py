"""How much memory an image takes."""

import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
import resource, sys
from polyinr_cli.main import outcome
assert outcome(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(model: Path, output: Path, size: int) -> int:
    arguments = ["sample", "--seeds", "1", "-m", str(model), "--res", str(size), "-o", str(output), "--overwrite"]
    ran = subprocess.run([sys.executable, "-c", DRAW, *arguments], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> int:
    """The peak of drawing a small image."""
    return peak(tiny_checkpoint, tmp_path_factory.mktemp("small") / "x.png", 256)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "bytes_a_pixel"), [(".png", 7), (".tif", 0), (".dzi", 0), (".npy", 0)])
def test_memory_is_the_image_itself(tmp_path: Path, tiny_checkpoint: Path, small: int, suffix: str, bytes_a_pixel: int):
    """Oracle: 3 bytes a pixel, and 4 of Pillow's own copy; none where it is written as it is drawn.

    24 MiB for what allocators keep.
    """
    output = tmp_path / f"x{suffix}"
    grown = peak(tiny_checkpoint, output, 3072) - small
    assert grown < bytes_a_pixel * 3072**2 + 24 * 2**20
