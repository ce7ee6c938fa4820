"""examples/animals_split.py: parts that share no face, from a table and a dataset made here."""

import csv
import importlib.util
import io
import json
import sys
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from polyinr_core.data.zip_dataset import ZipDataset

SCRIPT = Path(__file__).parents[2] / "examples" / "animals_split.py"
spec = importlib.util.spec_from_file_location("animals_split", SCRIPT)
animals_split = importlib.util.module_from_spec(spec)
spec.loader.exec_module(animals_split)
LABELS = ("cat", "dog", "mouse", "pig")
COATS = (*animals_split.GREEN, *animals_split.BLUE, *animals_split.GRAY, "#ffffff")
PARTS = ("withheld", "choose", "report", "train")


def table(of_a_class: int, *, repeats: int = 0) -> list[dict[str, str]]:
    """Rows of all classes and coats; the last `repeats` of a class are made of what its first are."""
    rows = []
    for label in LABELS:
        made = [(COATS[i % len(COATS)], str(i // len(COATS))) for i in range(of_a_class - repeats)]
        for coat, brows in [*made, *made[:repeats]]:
            rows.append({"index": str(len(rows)), "label": label, "coat": coat, "brows": brows})
    return rows


def test_parts_are_apart_balanced_and_withheld() -> None:
    rows = table(800, repeats=5)
    parts = animals_split.split(rows)
    everything = [index for part in PARTS for index in parts[part]]
    assert len(set(everything)) == len(everything) == len(rows) - len(LABELS) * 5
    made_of = [tuple(rows[index][name] for name in ("label", "coat", "brows")) for index in everything]
    assert len(set(made_of)) == len(made_of)
    withheld = [
        index for index in everything if rows[index]["coat"] in animals_split.WITHHELD.get(rows[index]["label"], ())
    ]
    assert sorted(withheld) == parts["withheld"] != []
    assert len(parts["choose"]) == len(parts["report"]) == len(LABELS) * 125 // 2
    for part, count in (("demo", 250), ("choose", 63), ("report", 63)):
        found = Counter(rows[index]["label"] for index in parts[part])
        assert set(found) == set(LABELS)
        assert count - 1 <= min(found.values()) <= max(found.values()) <= count
    assert set(parts["demo"]) < set(parts["train"])


def test_the_datasets_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few images; classes keep their numbers, and the demo dataset its pixels."""
    monkeypatch.setattr(animals_split, "HELD_OUT", 4)
    monkeypatch.setattr(animals_split, "DEMO", 5)
    rows, rng = table(24), np.random.default_rng(0)
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    names = [f"{i:03}.png" for i in range(len(rows))]
    with ZipFile(tmp_path / "a.zip", "w") as dataset:
        for name in names:
            image = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(image, "PNG")
            dataset.writestr(name, image.getvalue())
        labels = [[name, LABELS.index(row["label"])] for name, row in zip(names, rows, strict=True)]
        dataset.writestr("dataset.json", json.dumps({"labels": labels, "class_names": LABELS}))
    out = tmp_path / "out"
    arguments = [str(tmp_path / "a.zip"), str(tmp_path / "a.csv"), "--res", "8", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["animals_split.py", *arguments])
    animals_split.main()
    parts = animals_split.split(rows)
    with ZipDataset.open(tmp_path / "a.zip") as whole:
        for part, indices in parts.items():
            with ZipDataset.open(out / f"{part}-8.zip") as written:
                assert written.class_names == ("cat", "deer", "bear", "goat")
                assert written.labels.tolist() == whole.labels[indices].tolist()
                exact = whole.read(indices[0]).reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
                assert np.abs(written.read(0) - exact).max() <= 1  # rounded once a direction
    with ZipDataset.open(out / "demo-8.zip") as demo:
        assert demo.provenance["sources"][0]["provenance"]["license"] == "MIT"


@pytest.mark.parametrize("colors", [3, 256, 300])
def test_smallest_keeps_the_pixels(colors: int) -> None:
    """With a palette where its colors fit into one."""
    values = np.arange(64 * 64) % colors
    pixels = np.stack([values % 256, values // 256, 0 * values], axis=-1).astype(np.uint8).reshape(64, 64, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    smaller = animals_split.smallest(file.getvalue())
    image = Image.open(io.BytesIO(smaller))
    assert len(smaller) <= len(file.getvalue())
    assert image.mode == {3: "P", 256: image.mode, 300: "RGB"}[colors]  # 256 may not fit exactly
    assert np.array_equal(np.asarray(image.convert("RGB")), pixels)
