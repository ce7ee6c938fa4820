"""Writing the archive: entries stored, in order, every header the same on every machine and day."""

import zipfile
from typing import Any

from ..errors import FileError
from ..files import written_beside
from ..strict_json import JsonError, format_json
from .facts import Facts
from .work_folder import WorkFolder
from .zips import FACTS_NAME


def write_archive(work: WorkFolder, facts: Facts, provenance: dict[str, Any], *, overwrite: bool) -> None:
    """Write the pictures that were kept, and `dataset.json`. Raises FileError, OSError."""
    kept = [index for index, line in enumerate(work.lines) if "skipped" not in line]
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in range(len(kept))]
    labels = None
    if facts.labels is not None:
        labels = [[name, int(facts.labels[index])] for name, index in zip(names, kept, strict=True)]
    description = {"labels": labels, "class_names": list(facts.class_names), "provenance": provenance}
    try:
        text = format_json(description)
    except JsonError as error:
        raise FileError(work.output, f"its {FACTS_NAME} cannot be written: {error}") from error
    with written_beside(work.output, overwrite=overwrite) as draft, zipfile.ZipFile(draft, "w") as zipped:
        for name, picture in zip(names, work.pictures(), strict=True):
            zipped.writestr(entry(name), picture)
        zipped.writestr(entry(FACTS_NAME), text)


def entry(name: str) -> zipfile.ZipInfo:
    """Return a zip entry whose header is the same on every machine and day."""
    info = zipfile.ZipInfo(name)  # dated 1980
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info
