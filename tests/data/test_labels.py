"""One reading of labels: whatever holds a data set, and whichever command reads it."""

import json
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from specimens import encoded, labels_of, noise, write_dataset, write_folder, write_tar, write_zip

from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.import_sources import open_source
from polyinr_core.data.prepare import prepare
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError
from polyinr_core.evaluation.image_sources import DatasetImages

IMAGES = [encoded(noise(8, seed)) for seed in range(4)]
NUMBERS = [0, 1, 0, 1]
STYLEGAN = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png", "00001/img00000003.png"]
LABELS = [[name, label] for name, label in zip(STYLEGAN, NUMBERS, strict=True)]


def samples(*suffixes: str, **fields: object) -> dict[str, bytes]:
    """Samples as the webdataset library lays them out, and what lies beside each image."""
    files = {}
    for index, image in enumerate(IMAGES):
        for suffix in suffixes or (".png",):
            files[f"{index:04d}{suffix}"] = image if suffix in (".png", ".image.png") else encoded(noise(8, 9))
        for field, write in fields.items():
            files[f"{index:04d}.{field}"] = write(NUMBERS[index])
    return files


def stylegan(**facts: object) -> dict[str, bytes]:
    """A data set as StyleGAN's tools lay it out."""
    return dict(zip(STYLEGAN, IMAGES, strict=True)) | {"dataset.json": json.dumps(facts).encode()}


def text(label: int) -> bytes:
    return str(label).encode()


# layout: its files, and the labels and class names that are right
LAYOUTS = {
    "dataset.json": (stylegan(labels=LABELS), NUMBERS, ()),
    "named": (stylegan(labels=LABELS, class_names=["cat", "dog"]), NUMBERS, ("cat", "dog")),
    "one-hot": (stylegan(labels=[[name, [1 - n, n, 0]] for name, n in LABELS]), NUMBERS, ()),
    "null": (stylegan(labels=None), None, ()),
    "shard folders alone": (dict(zip(STYLEGAN, IMAGES, strict=True)), None, ()),
    "class folders": (
        {f"{['cat', 'dog'][n]}/{i}.png": IMAGES[i] for i, n in enumerate(NUMBERS)},
        NUMBERS,
        ("cat", "dog"),
    ),
    "flat": ({f"{i}.png": image for i, image in enumerate(IMAGES)}, None, ()),
    "cls": (samples(cls=text), NUMBERS, ()),
    "json label": (samples(json=lambda n: json.dumps({"label": n, "caption": "none"}).encode()), NUMBERS, ()),
    "json cls": (samples(json=lambda n: json.dumps({"cls": n}).encode()), NUMBERS, ()),
    "json without label": (samples(json=lambda n: b'{"caption": "none"}'), None, ()),
    "masks": (samples(".mask.png", ".png", cls=text), NUMBERS, ()),
    "masks without labels of images called so": (samples(".mask.png", ".image.png", cls=text), NUMBERS, ()),
    "names beside": (samples(cls=text) | {"dataset.json": b'{"class_names": ["cat", "dog"]}'}, NUMBERS, ("cat", "dog")),
}


def moved(files: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {f"{folder}{name}": data for name, data in files.items()}


CONTAINERS = {
    "folder": lambda path, files: write_folder(path / "set", files),
    "folder in folder": lambda path, files: write_folder(path / "outer", moved(files, "set/")),
    "zip": lambda path, files: write_zip(path / "set.zip", files),
    "zip of folder": lambda path, files: write_zip(path / "set.zip", moved(files, "set/")),
    "./ zip": lambda path, files: write_zip(path / "set.zip", moved(files, "./")),
    "tar": lambda path, files: write_tar(path / "set.tar", files),
    "tar backwards": lambda path, files: write_tar(path / "set.tar", dict(reversed(files.items()))),
    "tar of folder": lambda path, files: write_tar(path / "set.tar", moved(files, "set/")),
    "./ tar": lambda path, files: write_tar(path / "set.tar", moved(files, "./")),
    "tar.gz": lambda path, files: write_tar(path / "set.tar.gz", files, "w:gz"),
    "folder of tars": lambda path, files: write_tar(path / "shards" / "0.tar", files).parent,
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_command_reads_the_same_images_labels_and_names(tmp_path, layout, container):
    """`prepare`'s dataset is the same as what `train` and `info` open, and what `evaluate` does."""
    files, numbers, names = LAYOUTS[layout]
    (tmp_path / "shards").mkdir()
    path = CONTAINERS[container](tmp_path, files)
    classes = 0 if numbers is None else 3 if layout == "one-hot" else 2
    wanted = [(noise(8, i).tobytes(), None if numbers is None else numbers[i]) for i in range(4)]

    def found(data) -> list:
        labels = [None] * len(data) if data.labels is None else data.labels.tolist()
        return sorted(zip((data.read(i).tobytes() for i in range(len(data))), labels, strict=True))

    source = open_source(path)
    report = prepare([path], tmp_path / "a.zip", resolution=8, strict=True)
    assert (report.kept, report.classes, report.class_names) == (4, classes, names)
    sets = [ZipDataset.open(tmp_path / "a.zip")]
    if container != "tar.gz":
        sets += [DatasetImages(path).data]
        sets += [] if "folder" in container and path.is_dir() and "tars" not in container else [open_dataset(path)]
    for data in sets:
        assert found(data) == sorted(wanted)
        assert (data.classes, data.class_names) == (classes, names)
    assert [noise(8, NUMBERS_OF[data]).tobytes() for data in payloads(source)] == [
        sets[0].read(i).tobytes() for i in range(4)
    ]


NUMBERS_OF = {image: index for index, image in enumerate(IMAGES)}


def payloads(source) -> list[bytes]:
    return [data.read_bytes() if isinstance(data, Path) else data for data in source.payloads(0)]


def test_full_names_and_names_from_inside(tmp_path):
    """A dataset.json one folder down may name images from the root; or the container was made inside it."""
    down = stylegan(labels=[[f"set/{name}", label] for name, label in LABELS])
    assert labels_of(open_source(write_zip(tmp_path / "a.zip", moved(down, "set/")))).labels.tolist() == NUMBERS
    assert labels_of(open_source(write_zip(tmp_path / "b.zip", down))).labels.tolist() == NUMBERS


def test_several_data_sets_in_one_folder(tmp_path):
    one, two = (
        stylegan(labels=LABELS, class_names=["cat", "dog"]),
        stylegan(labels=LABELS, class_names=["dog", "eel"]),
    )
    facts = labels_of(open_source(write_folder(tmp_path / "all", moved(one, "one/") | moved(two, "two/"))))
    assert facts.class_names == ("cat", "dog", "eel")
    assert facts.labels.tolist() == [0, 1, 0, 1, 1, 2, 1, 2]
    part = write_folder(tmp_path / "part", moved(one, "one/") | moved(stylegan(labels=None), "two/"))
    with pytest.raises(DatasetError, match="no label for 4 of 8 images"):
        _ = labels_of(open_source(part))
    mixed = write_folder(tmp_path / "mixed", moved(one, "one/") | moved(stylegan(labels=LABELS), "two/"))
    with pytest.raises(DatasetError, match=r"some name their classes and others number them .*--labels none"):
        _ = labels_of(open_source(mixed))


def test_ffhq_folders_are_no_classes_and_counted_class_folders_are(tmp_path):
    ffhq = {f"images/{n // 1000 * 1000:05d}/{n:05d}.png": IMAGES[0] for n in (0, 999, 1000, 69999)}
    report = prepare([write_folder(tmp_path / "ffhq", ffhq)], tmp_path / "a.zip", resolution=8)
    assert report.classes == 0
    signs = {f"{label:05d}/{label:05d}_{n:05d}.png": IMAGES[n] for label in range(2) for n in range(2)}
    assert labels_of(open_source(write_folder(tmp_path / "signs", signs))).class_names == ("00000", "00001")


def test_labels_of_shards_in_any_order_and_over_several_tars(tmp_path):
    files = samples(cls=text)
    (tmp_path / "s").mkdir()
    for number in range(2):
        part = {name: data for name, data in files.items() if int(name[:4]) // 2 == number}
        write_tar(tmp_path / "s" / f"{number}.tar", part)
    assert (
        open_dataset(tmp_path / "s").labels.tolist()
        == labels_of(open_source(tmp_path / "s")).labels.tolist()
        == NUMBERS
    )
    (tmp_path / "s" / "dataset.json").write_text(json.dumps({"class_names": ["cat", "dog"]}))
    assert (
        open_dataset(tmp_path / "s").class_names == labels_of(open_source(tmp_path / "s")).class_names == ("cat", "dog")
    )
    pattern = tmp_path / "s" / "*.tar"
    assert labels_of(open_source(pattern)).labels.tolist() == NUMBERS
    (tmp_path / "c").mkdir()
    for number, folder in enumerate(["set/cat/deep", "set/dog"]):
        write_tar(tmp_path / "c" / f"{number}.tar", {f"{folder}/1.png": IMAGES[number]})
    assert (
        open_dataset(tmp_path / "c").labels.tolist() == labels_of(open_source(tmp_path / "c")).labels.tolist() == [0, 1]
    )
    assert open_dataset(tmp_path / "c").class_names == ("cat", "dog")


def test_labels_beside_shards_by_the_names_inside(tmp_path):
    (tmp_path / "s").mkdir()
    write_tar(tmp_path / "s" / "0.tar", {"a.png": IMAGES[0], "b.png": IMAGES[1]})
    write_tar(tmp_path / "s" / "1.tar", {"c.png": IMAGES[2]})
    beside = tmp_path / "s" / "dataset.json"
    beside.write_text(json.dumps({"labels": [["c.png", 2], ["b.png", 0], ["a.png", 1]]}))
    cache = tmp_path / "cache"
    for _ in range(2):
        assert open_dataset(tmp_path / "s", index=cache).labels.tolist() == [1, 0, 2]
    assert labels_of(open_source(tmp_path / "s")).labels.tolist() == [1, 0, 2]
    beside.write_text(json.dumps({"labels": [["elsewhere.png", 2]], "class_names": ["x"]}))
    assert open_dataset(tmp_path / "s", index=cache).labels is None  # it is about other files
    write_tar(tmp_path / "s" / "1.tar", {"cat/c.png": IMAGES[2], "dog/c.png": IMAGES[2]})
    assert open_dataset(tmp_path / "s" / "1.tar").class_names == ("cat", "dog")


def test_a_dataset_json_that_is_about_no_image_here(tmp_path):
    files = dict(LAYOUTS["class folders"][0])
    path = write_folder(tmp_path / "set", files | {"meta/dataset.json": b'{"labels": null}'})
    assert labels_of(open_source(path)).class_names == ("cat", "dog")
    path = write_folder(tmp_path / "set", files | {"meta/dataset.json": b'{"labels": [["x.png", 0]]}'})
    with pytest.raises(DatasetError, match=r"labels 1 images that are not there \(first 'x.png'\)"):
        _ = labels_of(open_source(path))


UNUSABLE = {
    "float": stylegan(labels=[[name, 0.37] for name in STYLEGAN]),
    "negative": stylegan(labels=[[name, -1] for name in STYLEGAN]),
    "text": stylegan(labels=[[name, "cat"] for name in STYLEGAN]),
    "vector": stylegan(labels=[[name, [0.1, 0.9, 1.0]] for name in STYLEGAN]),
    "lengths": stylegan(labels=[[name, [1, 0, 0][: 2 + i % 2]] for i, name in enumerate(STYLEGAN)]),
    "partial": stylegan(labels=LABELS[:2]),
    "empty": stylegan(labels=[]),
    "null entry": stylegan(labels=[[name, None] for name in STYLEGAN]),
    "extra": stylegan(labels=[*LABELS, ["x.png", 0]]),
    "twice": stylegan(labels=[*LABELS, LABELS[0]]),
    "no list": stylegan(labels={}),
    "few names": stylegan(labels=LABELS, class_names=["cat"]),
    "no json": stylegan() | {"dataset.json": b"{"},
    "no names": stylegan(labels=LABELS, class_names=[1]),
    "cls text": samples(cls=lambda n: b"cat"),
    "cls empty": samples(cls=lambda n: b""),
    "cls negative": samples(cls=lambda n: b"-1"),
    "cls float": samples(cls=lambda n: b"0.37"),
    "cls missing": {name: data for name, data in samples(cls=text).items() if name != "0003.cls"},
    "json broken": samples(json=lambda n: b"{"),
    "json text": samples(json=lambda n: b'{"label": "cat"}'),
}


@pytest.mark.parametrize("container", ["zip", "zip of folder", "tar", "folder", "tar.gz"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_labels_are_refused_with_the_way_out_and_do_not_matter_otherwise(tmp_path, case, container):
    path = CONTAINERS[container](tmp_path, UNUSABLE[case])
    with pytest.raises(DatasetError, match=r"`prepare --labels none` and `train --no-cond`") as refusal:
        prepare([path], tmp_path / "a.zip", resolution=8)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("a.zip*"))
    report = prepare([path], tmp_path / "a.zip", resolution=8, labels="none", strict=True)
    assert (report.kept, report.classes) == (4, 0)
    if container != "tar.gz":
        judged = DatasetImages(path)
        assert (len(judged), judged.data.labels, judged.data.classes) == (4, None, 0)
    if container in ("zip", "tar"):
        with pytest.raises(DatasetError, match="--no-cond"):
            open_dataset(path)
        for use in ("none", "usable"):
            assert (len(data := open_dataset(path, labels=use)), data.labels) == (4, None)


def test_labels_that_can_be_used_are_there_when_asked_for_so(tmp_path):
    path = write_dataset(tmp_path / "a.zip")
    assert open_dataset(path, labels="usable").labels.tolist() == [0, 1, 2] * 2
    none = open_dataset(path, labels="none")
    assert (none.labels, none.classes, none.sha256) == (None, 0, open_dataset(path).sha256)


def test_a_sample_with_two_images_that_cannot_be_distinguished_is_refused(tmp_path):
    for files in (samples(".left.png", ".right.png", cls=text), samples(".png", ".jpg")):
        path = write_tar(tmp_path / "0.tar", files)
        for read in (open_source, open_dataset):
            with pytest.raises(DatasetError, match="the sample '0000' holds 2 images; keep one of them"):
                read(path)


def test_dotted_names_without_labels_are_images_each(tmp_path):
    files = {f"IMG.2020.01.0{i}.png": image for i, image in enumerate(IMAGES)}
    for path in (write_tar(tmp_path / "0.tar", files), write_folder(tmp_path / "set", files)):
        assert len(open_source(path).names) == 4
    assert len(open_dataset(tmp_path / "0.tar")) == 4


def test_one_name_twice_is_refused(tmp_path):
    for name, write in (("a.tar", write_tar), ("a.zip", write_zip)):
        path = write(tmp_path / name, {"a.png": IMAGES[0], "./a.png": IMAGES[1]})
        for read in (open_source, open_dataset):
            with pytest.raises(DatasetError, match="holds one name twice"):
                read(path)


def test_links_inside_a_tar_are_reported(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        file = write_folder(tmp_path / "set", {"a.png": IMAGES[0]}) / "a.png"
        tar.add(file, "a.png")
        for name in ("b.png", "eel", "LICENSE"):
            os.symlink("a.png", tmp_path / name)
            tar.add(tmp_path / name, name)
    assert open_source(tmp_path / "0.tar").ignored.left_out == [(n, "is not a regular file") for n in ("b.png", "eel")]
    notes = ("skipped: 'b.png' is not a regular file (and 1 more)",)
    assert open_dataset(tmp_path / "0.tar").notes == notes


def test_a_folder_with_images_and_tars_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set", {"cat/a.png": IMAGES[0]})
    write_tar(folder / "0.tar", {"b.png": IMAGES[1]})
    with pytest.raises(FileError, match=r"holds \.tar files and images \('cat/a.png'\)"):
        open_source(folder)
    assert open_dataset(folder).notes == ("ignored: images beside the .tar files ('cat/a.png')",)
    assert len(open_source(folder / "*.tar").names) == len(open_source(folder / "cat").names) == 1


def test_labels_take_no_more_memory_than_two_numbers_an_image(tmp_path):
    labels = open_source(write_tar(tmp_path / "0.tar", samples(cls=text))).labels
    assert (labels.values.dtype, labels.folder.dtype) == (np.int64, np.int32)
    assert labels.reasons == {}


PARTS = ["cat", "dog", "00000", ".", "set", "é", "x.y", "__MACOSX", ".h", ""]
BASES = [*("a.png", "b.PNG", "a.mask.png", "a.image.png", "img00000000.png", "00001.png", "..png", "a..png", ".png")]
BASES += [*("a.cls", "b.cls", "a.json", "b.JSON", "dataset.json", "dataset.JSON", "x.heic", "README", "n", "a.jpg.1")]
VALUES = [0, 1, -1, 1.0, 0.5, "x", None, True, [1, 0], [0, 1], [], [[1]], {}, 1e400, float("nan"), 10**30]
TEXTS = [b"0", b"1", b"", b"-1", b"x", b"\xff", b"9" * 5000, b"[0,1]", b"1\n", b"null", b"[[", b"NaN", "²".encode()]


def random_set(rng: random.Random) -> dict[str, bytes]:
    """Some files with names and labels of all sorts."""
    files: dict[str, bytes] = {}
    for _ in range(rng.randint(1, 8)):
        name = "/".join([*rng.choices(PARTS, k=rng.randint(0, 2)), rng.choice(BASES)]).lstrip("/")
        kind = name.lower().rpartition(".")[2]
        data = rng.choice(IMAGES) if kind == "png" else rng.choice(TEXTS)
        if kind == "json":
            pairs = [[rng.choice([*files, "a.png"]), rng.choice(VALUES)] for _ in range(rng.randint(0, 3))]
            names = rng.choice([None, [], ["a"], ["b", "a"], [1], "x"])
            said = [{"labels": rng.choice([None, {}, pairs]), "class_names": names}, {}, []]
            said += [{"label": rng.choice(VALUES)}, {"cls": rng.choice(VALUES)}]
            data = rng.choice([json.dumps(rng.choice(said)).encode(), b"{", b"\xff\xfe", b"[" * 5000])
        files[name] = data
    return files


def outcome(read, path: Path) -> list:
    """What is read, or that it is refused."""
    try:
        return read(path)
    except DatasetError:
        return ["refused"]


def by_prepare(path: Path) -> list:
    source = open_source(path)
    facts, _ = source.labels.resolve_for("auto", path, source.name_of)
    labels = None if facts.labels is None else facts.labels.tolist()
    return [payloads(source), labels, facts.classes, facts.class_names]


def by_train(path: Path) -> list:
    data = open_dataset(path)
    images = [IMAGES[PIXELS.index(data.read(index).tobytes())] for index in range(len(data))]
    labels = None if data.labels is None else data.labels.tolist()
    return [images, labels, data.classes, data.class_names]


def test_random_sets_are_read_the_same(tmp_path):
    """By `prepare` and by `train`, from a zip and a tar; from a folder as from the zip. No other error comes."""
    rng = random.Random(1)
    read = 0
    for number in range(150):
        files = random_set(rng)
        paths = write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)
        for path in paths:
            assert outcome(by_prepare, path) == outcome(by_train, path), files
        found = outcome(by_prepare, paths[0])
        if found != ["refused"]:
            read += 1
            assert outcome(by_prepare, write_folder(tmp_path / str(number), files))[1:] == found[1:], files
    assert 40 < read < 130


PIXELS = [noise(8, seed).tobytes() for seed in range(4)]
