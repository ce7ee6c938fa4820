"""The pictures that come with the package: 1562 emoji of 64 px in eight classes (assets/NOTICE.txt)."""

from importlib.resources import files
from pathlib import Path


def bundled_pictures() -> Path:
    """Return the path of the bundled archive."""
    return Path(str(files("polyinr_core").joinpath("assets", "emoji-64.zip")))
