"""Images and labels in tables as sources of `prepare`: parquet files, NumPy stacks, labels in CSV or JSON lines."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, ImageError, PolyinrError
from polyinr_core.runtime.atomic_io import explain, read_bytes

from .labels import NO_LABEL, LabelInfo, UnresolvedLabels, class_of, known_labels, plain_name
from .listing import Source, fingerprint_of

ARRAY_SUFFIXES = (".npy", ".npz")
PARQUET_SUFFIX = ".parquet"
LABEL_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")  # of a Hugging Face image folder
NAME_COLUMNS = ("file_name", "filename", "file", "image", "path", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "fine_label", "coarse_label")
IMAGE_ARRAYS = ("images", "image", "x", "x_train", "arr_0")  # of an .npz
LABEL_ARRAYS = ("labels", "label", "y", "y_train", "arr_1")
ROWS_AT_ONCE = 64  # of a parquet file, whose images are decoded one by one


def read_arrays(path: Path) -> tuple[NDArray[np.uint8], LabelInfo]:
    """Return the images [N, H, W] or [N, H, W, C] of an .npy or .npz file, and their labels. An .npy is not copied.

    An .npz names them as in IMAGE_ARRAYS and LABEL_ARRAYS; that of guided-diffusion has `arr_0` and `arr_1`.
    Raises DatasetError, FileError.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        members = {"images": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except OSError as error:
        raise explain(path, error) from error
    except Exception as error:  # zipfile and NumPy raise nearly anything for a damaged file
        raise DatasetError(path, "is not a whole .npy or .npz file of plain numbers") from error
    arrays = {name: array for name, array in members.items() if isinstance(array, np.ndarray)}  # others are bytes
    images = next((arrays[name] for name in IMAGE_ARRAYS if name in arrays), None)
    if images is None:
        found = ", ".join(arrays) or "none"
        raise DatasetError(path, f"holds no array of images; name it images (arrays: {found})")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)  # channels first
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        expected = "uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1 or 3 is needed"
        raise DatasetError(path, f"holds {images.dtype} {list(images.shape)}; {expected}")
    labels = next((arrays[name] for name in LABEL_ARRAYS if name in arrays), None)
    if labels is None:
        return images, LabelInfo()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != images.shape[:1] or not is_whole or labels.min(initial=0) < 0:
        raise DatasetError(path, f"needs one integer label, 0 or more, for each of its {len(images)} images")
    return images, LabelInfo(labels.astype(np.int64), int(labels.max(initial=-1)) + 1)


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image [H, W] or [H, W, C] of `read_arrays` as a copy [H, W, 3]."""
    pixels = np.asarray(image).reshape(*image.shape[:2], -1)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def list_arrays(path: Path) -> Source:
    """List the images of an .npy or .npz file. Raises DatasetError, FileError."""
    images, info = read_arrays(path)
    names = tuple(f"{index:08d}" for index in range(len(images)))
    labels = known_labels(info, len(images))
    return Source(path, "arrays", names, fingerprint_of(path), lambda start: map(to_rgb, images[start:]), labels)


def list_parquet(path: Path, files: Sequence[Path]) -> Source:
    """List the images of parquet files as Hugging Face's datasets have them.

    Images are files in a column of bytes, or of `bytes` and `path`; the labels, a column of classes or of text, have
    one of LABEL_COLUMNS as their name. Raises PolyinrError without pyarrow, DatasetError.
    """
    names: list[str] = []
    values: list[Any] = []
    class_names: tuple[str, ...] = ()
    columns: list[str] = []
    for file in files:
        with open_parquet(file) as table:
            schema, count = table.schema_arrow, table.metadata.num_rows
            if not 0 <= count <= file.stat().st_size:
                raise DatasetError(file, f"declares {count} rows, more than it has bytes; refused")
            columns.append(image_column(file, schema))
            label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
            values += [None] * count if label is None else table.read([label])[label].to_pylist()
        class_names = class_names or declared_classes(schema, label)
        prefix = f"{file.name}/" if len(files) > 1 else ""
        names += [f"{prefix}{index:08d}" for index in range(count)]

    def payloads(start: int) -> Iterator[bytes | ImageError]:
        for file, column in zip(files, columns, strict=True):
            with open_parquet(file) as table:
                for group in range(table.num_row_groups):
                    count = table.metadata.row_group(group).num_rows
                    if start >= count:
                        start -= count
                        continue
                    for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                        for row in batch.column(0)[start:].to_pylist():
                            data = row.get("bytes") if isinstance(row, dict) else row
                            yield data if data is not None else ImageError("is missing: the table holds no bytes of it")
                        start = max(0, start - batch.num_rows)

    labels = labels_of_values(path, values, table=f"column {label!r}", class_names=class_names)
    return Source(path, "parquet", tuple(names), fingerprint_of(*files), payloads, labels)


@contextmanager
def open_parquet(file: Path) -> Iterator[Any]:
    """Open a parquet file; raise PolyinrError without pyarrow, DatasetError or FileError for what pyarrow raises."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise PolyinrError(f"{file}: parquet files need pyarrow; run pip install pyarrow") from error
    try:
        with ParquetFile(file) as table:
            yield table
    except (OSError, ArrowException) as error:
        if getattr(error, "errno", None) is not None:
            raise explain(file, error) from error
        raise DatasetError(file, "is not a whole parquet file (truncated, damaged, or of another type)") from error


def image_column(file: Path, schema: Any) -> str:
    """Return the first column of a parquet file that holds the bytes of files. Raises DatasetError."""
    from pyarrow import types

    for field in schema:
        is_nested = types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        dtype = field.type.field("bytes").type if is_nested else field.type
        if types.is_binary(dtype) or types.is_large_binary(dtype):
            return str(field.name)
    columns = ", ".join(schema.names)
    raise DatasetError(file, f"has no column of image files, as bytes or with a field `bytes` (columns: {columns})")


def declared_classes(schema: Any, column: str | None) -> tuple[str, ...]:
    """Return the class names of a ClassLabel column, which the datasets library writes beside the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def read_label_table(path: Path, *, column: str | None = None) -> dict[str, object]:
    """Read the labels of a .csv, .tsv or .jsonl file, by file name; empty if it has no column of labels.

    The columns have one of NAME_COLUMNS and LABEL_COLUMNS as their names; a CSV file of two columns may do without
    names. `column` names that of the labels; the images may then be numbered from 0 in a column `index`. Raises
    DatasetError, FileError.
    """
    name_columns = NAME_COLUMNS if column is None else (*NAME_COLUMNS, "index")
    label_columns = LABEL_COLUMNS if column is None else (column, column.strip().lower())
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if path.suffix == ".jsonl":
            rows: list[dict[str, Any]] = [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
        else:
            lines = list(csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
            header = [name.strip().lower() for name in lines[0]] if lines else []
            if column is None and len(header) == 2 and not set(header) & {*NAME_COLUMNS, *LABEL_COLUMNS}:
                lines.insert(0, header := ["file_name", "label"])
            rows = [dict(zip(header, line, strict=False)) for line in lines[1:] if line]
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())[:80]
        raise DatasetError(path, f"is no table of labels that can be read ({reason})") from error
    name_column = next((name for name in name_columns if any(name in row for row in rows)), None)
    label_column = next((name for name in label_columns if any(name in row for row in rows)), None)
    if column is not None and (name_column is None or label_column is None):
        found = ", ".join(rows[0]) if rows else "none"
        raise DatasetError(path, f"has no column {column!r}, or none of file names or `index` (columns: {found})")
    if name_column is None or label_column is None:
        return {}
    labels: dict[str, object] = {}
    for row in rows:
        name, label = plain_name(str(row.get(name_column, ""))), row.get(label_column)
        if labels.setdefault(name, label) != label:
            raise DatasetError(path, f"labels {name!r} twice, as {labels[name]!r} and {label!r}")
    return labels


def table_labels(path: Path, table: Mapping[str, object], names: Sequence[str]) -> UnresolvedLabels:
    """Return the labels of images that a table at `path` lists.

    The table may name an image in full, without its folder, or without folder and suffix. Raises DatasetError.
    """
    values = []
    for name in map(plain_name, names):
        base = name.rpartition("/")[2]
        key = next((key for key in (name, base, base.rpartition(".")[0]) if key in table), None)
        values.append(None if key is None else table[key])
    if all(value is None for value in values):
        raise DatasetError(path, f"labels none of the images, of which the first is {names[0]!r}")
    return labels_of_values(path, values, table=path.name)


def labels_of_values(
    path: Path, values: Sequence[Any], *, table: str, class_names: tuple[str, ...] = ()
) -> UnresolvedLabels:
    """Return labels: integers are classes; texts, sorted, the names of classes; None or "" is no label.

    Raises DatasetError for what is neither.
    """
    values = [None if value in (None, "") else value for value in values]
    if all(isinstance(value, str) and value.strip().isdecimal() for value in values if value is not None):
        values = [None if value is None else int(value) for value in values]
    if all(isinstance(value, str) for value in values if value is not None):
        class_names = class_names or tuple(sorted({value for value in values if value is not None}))
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.full(len(values), NO_LABEL, np.int64)
    widths = np.zeros(len(values), np.int32)
    for index, value in enumerate(values):
        if value is not None:
            try:
                labels[index], widths[index] = (number[value], 0) if isinstance(value, str) else class_of(value)
            except (KeyError, ValueError) as error:
                problem = f"the label {str(value)[:40]!r} is no class; give integers from 0, or names"
                raise DatasetError(path, problem) from error
    if (labels == NO_LABEL).all():
        return known_labels(LabelInfo(), len(values))
    zeros = np.zeros(len(values), np.int32)
    return UnresolvedLabels(
        labels, widths, zeros, ("",), (False,), class_names=class_names, described=True, table=table
    )


def folder_table(path: Path, tables: Sequence[str]) -> dict[str, object]:
    """Return the labels in the tables of an image folder, by name below `path`. Raises DatasetError, FileError."""
    labels: dict[str, object] = {}
    for name in tables:
        folder = name.rpartition("/")[0]
        for file, label in read_label_table(path / name).items():
            labels[f"{folder}/{file}" if folder else file] = label
    return labels
