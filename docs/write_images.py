"""Render the images of README anew, by the commands beside them: python docs/write_images.py"""

import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from polyinr_cli.main import outcome

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| !\[[^\]]+\]\((docs/images/[\w.]+)\) \| `polyinr ([^`]+)` \|$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    """Return the images of README and the commands beside them, without the leading `polyinr`."""
    return ROW.findall((ROOT / "README.md").read_text())


def main() -> None:
    os.environ.pop("POLYINR_MODEL", None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # no run lies below it, so the bundled model is used
        Path("docs").symlink_to(ROOT / "docs")
        for image, command in rows():
            exact = [] if command.startswith("invert") else ["--precision", "float32"]
            if code := outcome([*shlex.split(command), *exact]):
                raise SystemExit(code)
            shutil.copy(Path(image).name, ROOT / image)


if __name__ == "__main__":
    main()
