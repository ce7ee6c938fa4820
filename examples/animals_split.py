"""Split a dataset of animal faces: what a model learns from, what judges it, and combinations that it never sees.

    python examples/animals_split.py animals-128.zip animals-128.csv --res 64 -o runs/animals

The dataset holds 10 000 faces in eight classes, drawn from the shapes of the npm package animal-avatar-generator 1.2.0
(MIT License, Copyright (c) 2021 Roman Lukashik). The table says what each face is made of: `index` in the dataset,
`label`, `coat` and `ground` (colors), and the numbers of its ears, patch, hair, muzzle, eyes and brows (-1: none).
Classes differ by their ears and horns; most of the table's names do not fit these, so that NAMES gives others.

The split draws no random number: it follows from the order of the dataset, in which every attribute but the class is
random already. A face that repeats an earlier one is in no part. `polyinr prepare` then writes each part:

    withheld-64.zip   every face of WITHHELD, the combinations of a class and coats that no other part has
    choose-64.zip     500 faces, to choose a checkpoint by
    report-64.zip     500 faces, to report its metrics on
    train-64.zip      all others
    demo-64.zip       2000 of train-64.zip, 250 of each class, compressed as far as PNG allows: with --res 64 the
                      dataset that comes with polyinr, polyinr_core/assets/animals-64.zip
"""

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from PIL import Image

from polyinr_core import prepare

GREEN = ("#8fb98f", "#a1ac88", "#c8cf8a")
BLUE = ("#7f8fb3", "#9fb4c7")
GRAY = ("#6f7a86", "#a8a39d")
NAMES = {"deer": "dog", "dog": "deer", "giraffe": "fox", "goat": "puppy", "mouse": "bear", "pig": "goat"}
WITHHELD = {"dog": GREEN, "mouse": BLUE, "pig": GRAY}
HELD_OUT = 125  # of each class, every other one to choose by
DEMO = 250  # of each class
PROVENANCE = {
    "source": "npm animal-avatar-generator 1.2.0, its shapes with other palettes",
    "license": "MIT",
    "attribution": "Copyright (c) 2021 Roman Lukashik, MIT License; its text is in NOTICE.txt beside this file",
}


def split(rows: Sequence[dict[str, str]]) -> dict[str, list[int]]:
    """Return the indices of each part's faces, given the rows of the table, in its order."""
    made_of = [tuple(value for name, value in row.items() if name != "index") for row in rows]
    first = {made: int(row["index"]) for made, row in zip(reversed(made_of), reversed(rows), strict=True)}
    unique = [rows[index] for index in sorted(first.values())]
    withheld, held_out, train, demo = [], [], [], []
    for label in sorted({row["label"] for row in rows}):
        members = [row for row in unique if row["label"] == label]
        known = [int(row["index"]) for row in members if row["coat"] not in WITHHELD.get(label, ())]
        withheld += [int(row["index"]) for row in members if row["coat"] in WITHHELD.get(label, ())]
        chosen = spread(known, HELD_OUT)
        rest = sorted(set(known) - set(chosen))
        held_out += chosen
        train += rest
        demo += spread(rest, DEMO)
    parts = {"withheld": withheld, "choose": held_out[::2], "report": held_out[1::2], "train": train, "demo": demo}
    return {name: sorted(indices) for name, indices in parts.items()}


def spread(members: Sequence[int], count: int) -> list[int]:
    """Return `count` of the members, evenly spaced."""
    return [members[number * len(members) // count] for number in range(count)]


def extract(dataset: ZipFile, indices: Sequence[int], output: Path, **facts: Any) -> None:
    """Write some images of a dataset as a dataset of its own, with a name for each class that fits what it shows."""
    described = json.loads(dataset.read("dataset.json"))
    names = [NAMES.get(name, name) for name in described["class_names"]]
    chosen = [described["labels"][index] for index in indices]
    with ZipFile(output, "w") as part:
        for name, _ in chosen:
            part.writestr(name, dataset.read(name))
        part.writestr("dataset.json", json.dumps({"labels": chosen, "class_names": names, **facts}))


def shrink(path: Path) -> None:
    """Compress the images of a dataset harder; those of at most 256 colors get a palette."""
    with ZipFile(path) as dataset:
        members = [(info, dataset.read(info)) for info in dataset.infolist()]
    with ZipFile(path, "w") as smaller:
        for info, content in members:
            smaller.writestr(info, smallest(content) if info.filename.endswith(".png") else content)


def smallest(png: bytes) -> bytes:
    """Return the smallest PNG file found of the same pixels."""
    image = Image.open(io.BytesIO(png))
    forms = [image]
    if image.getcolors(256) is not None:
        indexed = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
        if indexed.convert("RGB").tobytes() == image.tobytes():
            forms.append(indexed)
    files = []
    for form in forms:
        file = io.BytesIO()
        form.save(file, "PNG", optimize=True)
        files.append(file.getvalue())
    return min(files, key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description="Split a dataset of animal faces.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--res", type=int, default=64, help="width and height of the images written")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/animals"), help="output folder")
    arguments = parser.parse_args()
    with open(arguments.table, newline="") as table:
        parts = split(list(csv.DictReader(table)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    with ZipFile(arguments.dataset) as dataset, tempfile.TemporaryDirectory() as work:
        for name, indices in parts.items():
            source = Path(work) / f"animals-{name}.zip"
            extract(dataset, indices, source, **({"provenance": PROVENANCE} if name == "demo" else {}))
            output = arguments.output / f"{name}-{arguments.res}.zip"
            report = prepare(source, output, resolution=arguments.res, resize="box", strict=True, overwrite=True)
            if name == "demo":
                shrink(output)
            print(f"{output}: {report.kept} images, {report.classes} classes")


if __name__ == "__main__":
    main()
