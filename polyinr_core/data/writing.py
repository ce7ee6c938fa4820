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
    """Write the pictures that were kept, `facts` being theirs, and `dataset.json`. Raises FileError, OSError."""
    kept = sum("skipped" not in line for line in work.lines)
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in range(kept)]
    labels = None
    if facts.labels is not None:
        values: list[Any] = facts.labels.tolist()
        if not facts.class_names and facts.classes > max(values) + 1:  # else nothing would tell of the last ones
            values = [[int(label == number) for number in range(facts.classes)] for label in values]
        labels = [[name, label] for name, label in zip(names, values, strict=True)]
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
