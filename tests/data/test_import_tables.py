"""Tables as sources: parquet files, NumPy stacks, Hugging Face image folders, and labels in a file of their own."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from specimens import encoded, labels_of, noise, write_folder

from polyinr_core.data.import_sources import open_source
from polyinr_core.data.import_tables import read_label_table
from polyinr_core.data.prepare import prepare
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError, ImageError, PolyinrError, RequestError

IMAGES = [encoded(noise(8, seed)) for seed in range(6)]
STACK = np.stack([noise(8, seed) for seed in range(6)])
LABELS = [2, 0, 1, 2, 0, 1]
ANIMALS = ["elk", "ant", "cat", "elk", "ant", "cat"]  # as LABELS, by the order of the names: 2, 0, 1


def write_parquet(path: Path, columns: dict, *, classes: list[str] | None = None, row_group_size: int = 2) -> Path:
    """A parquet file; with `classes`, the label's class names as the datasets library writes them."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(columns)
    if classes is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(table, path, row_group_size=row_group_size)
    return path


def as_files(images: list[bytes]) -> list[dict]:
    """Images as the datasets library stores them."""
    return [{"bytes": data, "path": f"{index}.png"} for index, data in enumerate(images)]


@pytest.mark.parametrize("images", [IMAGES, as_files(IMAGES)])
def test_parquet_files_of_the_datasets_library(tmp_path: Path, images: list) -> None:
    columns = {"id": list(range(6)), "image": images, "label": LABELS}
    path = write_parquet(tmp_path / "a.parquet", columns, classes=["ant", "cat", "elk", "owl"])
    source = open_source(path)
    assert (source.kind, len(source.names)) == ("parquet", 6)
    for start in range(7):  # in the midst of row groups and at their edges
        assert list(source.payloads(start)) == IMAGES[start:]
    info = labels_of(source)
    assert (info.labels.tolist(), info.classes, info.class_names) == (LABELS, 4, ("ant", "cat", "elk", "owl"))


def test_a_folder_and_a_pattern_of_parquet_files(tmp_path: Path) -> None:
    for part in range(2):
        rows = slice(3 * part, 3 * part + 3)
        write_parquet(tmp_path / f"set/train-{part}.parquet", {"img": as_files(IMAGES[rows]), "class": ANIMALS[rows]})
    for path in (tmp_path / "set", tmp_path / "set/train-*.parquet"):
        source = open_source(path)
        assert source.names[3] == "train-1.parquet/00000000"
        assert list(source.payloads(2)) == IMAGES[2:]
        assert labels_of(source).labels.tolist() == LABELS
    report = prepare(tmp_path / "set", tmp_path / "a.zip", resolution=8)
    assert (report.kept, report.class_names) == (6, ("ant", "cat", "elk"))
    with ZipDataset.open(tmp_path / "a.zip") as dataset:
        assert np.array_equal(dataset.read(4), STACK[4])


def test_parquet_without_an_image_of_a_row(tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a.parquet", {"image": [IMAGES[0], None]}))
    first, missing = source.payloads(0)
    assert first == IMAGES[0]
    assert isinstance(missing, ImageError)
    assert labels_of(source).labels is None


def test_parquet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(DatasetError, match=r"has no column of image files.*columns: text, label"):
        open_source(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DatasetError, match="is not a whole parquet file"):
        open_source(path)
    original = builtins.__import__

    def without_pyarrow(name: str, *rest: object, **others: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(PolyinrError, match=r"a\.parquet: parquet files need pyarrow; run pip install pyarrow$"):
        open_source(path)


@pytest.mark.parametrize("layout", ["[N, H, W, C]", "[N, C, H, W]", "[N, H, W]"])
def test_a_stack_of_images(tmp_path: Path, layout: str) -> None:
    stack = {"[N, H, W, C]": STACK, "[N, C, H, W]": STACK.transpose(0, 3, 1, 2), "[N, H, W]": STACK[..., 0]}[layout]
    expected = STACK if stack.ndim == 4 else np.repeat(STACK[..., :1], 3, 3)
    np.save(tmp_path / "a.npy", stack)
    source = open_source(tmp_path / "a.npy")
    assert np.array_equal(np.stack(list(source.payloads(2))), expected[2:])
    assert labels_of(source).labels is None
    np.savez(tmp_path / "a.npz", images=stack, labels=np.array(LABELS))
    source = open_source(tmp_path / "a.npz")
    assert np.array_equal(np.stack(list(source.payloads(0))), expected)
    assert labels_of(source).labels.tolist() == LABELS
    assert prepare(tmp_path / "a.npz", tmp_path / "a.zip", resolution=8).classes == 3


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"noise": STACK}, r"holds no array of images; name it images \(arrays: noise\)"),
        ({"images": STACK.astype(np.float32)}, r"holds float32 \[6, 8, 8, 3\]; uint8"),
        ({"images": STACK[0, 0]}, r"holds uint8 \[8, 3\]"),
        ({"images": STACK, "labels": np.array(LABELS[:5])}, "needs one integer label"),
        ({"images": STACK, "labels": np.array(LABELS) / 2}, "needs one integer label"),
        ({"images": np.array([{}])}, "is not a whole .npy or .npz file of plain numbers"),
    ],
)
def test_stacks_that_are_no_images(tmp_path: Path, arrays: dict, words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=words):
        open_source(tmp_path / "a.npz")


def test_damaged_stacks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:500])
    (tmp_path / "b.npz").write_bytes(b"PK\3\4 and nothing")
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DatasetError, match="is not a whole"):
            open_source(tmp_path / name)
    np.savez(tmp_path / "none.npz", images=STACK[:0])
    with pytest.raises(DatasetError, match="holds no images"):
        open_source(tmp_path / "none.npz")


def image_folder(path: Path, tables: dict[str, str]) -> Path:
    """Six images in two folders, with tables beside them."""
    files = {f"{'train' if index < 3 else 'test'}/{index}.png": data for index, data in enumerate(IMAGES)}
    return write_folder(path, files | {name: text.encode() for name, text in tables.items()})


def json_lines(rows: list[dict]) -> str:
    return "\n".join(map(json.dumps, rows))


def test_an_image_folder_with_metadata(tmp_path: Path) -> None:
    """The names in it are relative to its own folder."""
    rows = [{"file_name": f"{index}.png", "label": ANIMALS[index], "text": "x"} for index in range(6)]
    tables = {"train/metadata.jsonl": json_lines(rows[:3]), "test/metadata.jsonl": json_lines(rows[3:])}
    info = labels_of(open_source(image_folder(tmp_path / "a", tables)))
    assert info.class_names == ("ant", "cat", "elk")
    assert info.labels.tolist() == [2, 0, 1, 2, 0, 1]  # test before train
    csv = "file_name,label\n" + "\n".join(f"{row['file_name']},{LABELS[i]}" for i, row in enumerate(rows[:3]))
    only_train = {"train/metadata.csv": csv}
    with pytest.raises(DatasetError, match=r"its metadata\.csv has no label for 3 of 6 images \(first 'test/3\.png'\)"):
        labels_of(open_source(image_folder(tmp_path / "b", only_train)))
    captions = {"metadata.jsonl": json_lines([{"file_name": "train/0.png", "text": "an elk"}])}
    assert labels_of(open_source(image_folder(tmp_path / "c", captions))).class_names == ("test", "train")


TABLES = {
    "a.csv": "file_name,label\n" + "".join(f"{index}.png,{name}\n" for index, name in enumerate(ANIMALS)),
    "bare.csv": "".join(f"train/{index}.png,{name}\ntest/{index}.png,{name}\n" for index, name in enumerate(ANIMALS)),
    "kaggle.csv": "\ufeffid,class,count\r\n" + "".join(f"{index},{name},1\r\n" for index, name in enumerate(ANIMALS)),
    "a.tsv": "label\tpath\n" + "".join(f"{name}\t{index}.png\n" for index, name in enumerate(ANIMALS)),
    "a.jsonl": json_lines([{"file": f"./{index}.png", "label": name} for index, name in enumerate(ANIMALS)]),
}


@pytest.mark.parametrize("name", TABLES)
def test_labels_in_a_file_of_their_own(tmp_path: Path, name: str) -> None:
    """They count more than class folders do."""
    folder = image_folder(tmp_path / "set", {})
    (tmp_path / name).write_text(TABLES[name])
    report = prepare(folder, tmp_path / "a.zip", resolution=8, labels=tmp_path / name)
    assert report.class_names == ("ant", "cat", "elk")
    with ZipDataset.open(tmp_path / "a.zip") as dataset:
        assert dataset.labels.tolist() == [2, 0, 1, 2, 0, 1]
        assert dataset.provenance["labels"] == name


def test_integers_in_a_table_are_classes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{index}.png,{label}\n" for index, label in enumerate(LABELS)))
    report = prepare(
        image_folder(tmp_path / "set", {}), tmp_path / "a.zip", resolution=8, labels=str(tmp_path / "a.csv")
    )
    assert (report.classes, report.class_names) == (3, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x.png,1\n", r"labels none of the images, of which the first is 'test/3\.png'"),
        ("0.png,1\n", r"its labels\.csv has no label for 5 of 6 images"),
        ("0.png,1\n0.png,2\n", r"labels '0\.png' twice, as '1' and '2'"),
        ("file_name,count,sort\n0.png,1,2\n", "has no columns of file names and labels"),
        ("", "has no columns of file names and labels"),
    ],
)
def test_tables_that_give_no_labels(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=words):
        prepare(image_folder(tmp_path / "set", {}), tmp_path / "a.zip", resolution=8, labels=tmp_path / "labels.csv")
    assert not (tmp_path / "a.zip").exists()


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a.jsonl").write_text('{"file_name": "0.png"')
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(DatasetError, match="is no table of labels that can be read"):
            read_label_table(tmp_path / name)
    folder = image_folder(tmp_path / "set", {})
    with pytest.raises(FileError, match="no such file"):
        prepare(folder, tmp_path / "a.zip", resolution=8, labels=tmp_path / "none.csv")
    with pytest.raises(RequestError, match="is not auto, none or a"):
        prepare(folder, tmp_path / "a.zip", resolution=8, labels="animals")
