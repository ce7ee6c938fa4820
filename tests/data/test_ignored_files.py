"""What is no image, or none that can be used: it takes no labels along, it is reported, and --strict refuses it."""

import json
import os
import socket

import pytest
from specimens import encoded, noise, stylegan_names, write_folder, write_tar, write_zip

from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.import_sources import open_source
from polyinr_core.data.prepare import prepare
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError
from polyinr_core.evaluation.image_sources import DatasetImages

A, B, C = (encoded(noise(8, seed)) for seed in range(3))
SMALL, BROKEN = encoded(noise(4)), b"no image"
CLASSES = {"cat/0.png": A, "cat/1.png": B, "dog/0.png": C, "dog/1.png": A}
PHONE = {"cat/a.heic": b"x", "cat/b.HEIF": b"x", "dog/c.jxl": b"x", "dog/f.jpg.1": A, "dog/g": A}
HARMLESS = {"readme.txt": b"x", "LICENSE": b"x", "cat/notes.md": b"x", "dog/.DS_Store": b"x", "__MACOSX/a.heic": b"x"}
CONTAINERS = {
    "folder": lambda path, files: write_folder(path / "set", files),
    "zip": lambda path, files: write_zip(path / "set.zip", files),
    "tar": lambda path, files: write_tar(path / "set.tar", files),
    "tar.gz": lambda path, files: write_tar(path / "set.tar.gz", files, "w:gz"),
}


@pytest.fixture(params=CONTAINERS)
def contained(request, tmp_path):
    """Put files into a folder, a zip, a tar."""
    return lambda files: CONTAINERS[request.param](tmp_path, files)


@pytest.mark.parametrize("stray", [{"cover.png": BROKEN}, {"thumb.png": SMALL}, {"cover.png": b"", "x.png": SMALL}])
def test_a_stray_image_that_is_skipped_takes_no_labels(contained, tmp_path, stray):
    report = prepare([contained(CLASSES | stray)], tmp_path / "a.zip", resolution=8)
    assert (report.kept, report.class_names, report.notes) == (4, ("cat", "dog"), ())
    assert sorted(name for name, _ in report.skipped) == sorted(stray)
    assert sorted(ZipDataset.open(tmp_path / "a.zip").labels.tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("below", ["", "set/"])
def test_a_sound_stray_image_is_named_as_the_reason_for_no_labels(contained, tmp_path, below):
    files = {f"{below}{name}": data for name, data in (CLASSES | {"cover.png": A, "z.png": BROKEN}).items()}
    path = contained(files)
    report = prepare([path], tmp_path / "a.zip", resolution=8)
    assert (report.kept, report.classes) == (5, 0)
    (note,) = report.notes
    assert f"no labels: '{below}cover.png' lies in no class folder, and 4 images do" in note
    with pytest.raises(FileError, match=r"cover.png.*--strict.*--labels none"):
        prepare([path], tmp_path / "b.zip", resolution=8, strict=True)
    files[f"{below}z.png"] = B
    assert prepare([contained(files)], tmp_path / "b.zip", resolution=8, strict=True, labels="none").kept == 6


def test_a_flat_set_and_one_folder_say_nothing(tmp_path):
    for number, files in enumerate(({"a.png": A, "b.png": B}, {"cat/a.png": A, "cat/b.png": B})):
        report = prepare([write_folder(tmp_path / str(number), files)], tmp_path / f"{number}.zip", resolution=8)
        assert (report.classes, report.notes) == (0, ())


def test_a_source_without_labels_is_named(tmp_path):
    bare = write_folder(tmp_path / "bare", {"1.png": A})
    report = prepare([write_folder(tmp_path / "set", CLASSES), bare], tmp_path / "a.zip", resolution=8)
    assert report.notes == (f"no labels: {bare} has none",)
    write_folder(bare, {"1.png": BROKEN})
    report = prepare([tmp_path / "set", bare], tmp_path / "b.zip", resolution=8)
    assert (report.notes, report.class_names) == ((), ("cat", "dog"))


def test_a_class_whose_images_are_all_skipped_is_lost_and_reported(contained, tmp_path):
    files = CLASSES | {"ape/0.png": BROKEN, "ape/1.png": SMALL}
    report = prepare([contained(files)], tmp_path / "a.zip", resolution=8)
    assert report.class_names == ("cat", "dog")
    assert report.notes == ("lost: class 'ape': none of its 2 images can be used",)
    with ZipDataset.open(tmp_path / "a.zip") as dataset:
        assert sorted(dataset.labels.tolist()) == [0, 0, 1, 1]
        assert dataset.class_names == ("cat", "dog")


def labeled(files, labels, **facts):
    return files | {"dataset.json": json.dumps({"labels": labels, **facts}).encode()}


NAMES = stylegan_names(4)


@pytest.mark.parametrize("bad", [0.37, "cat", -1, [0.5, 0.5], [1, 0], None, "missing"])
def test_a_bad_label_of_an_image_that_is_skipped_does_not_matter(contained, tmp_path, bad):
    files = dict(zip(NAMES, [A, B, C, BROKEN], strict=True))
    labels = [[name, number] for number, name in enumerate(NAMES[:3])]
    labels += [] if bad == "missing" else [[NAMES[3], bad]]
    path = contained(labeled(files, labels))
    report = prepare([path], tmp_path / "a.zip", resolution=8)
    assert (report.kept, report.classes) == (3, 3)
    files[NAMES[3]] = A
    path = contained(labeled(files, labels))
    with pytest.raises(DatasetError, match="--labels none"):
        prepare([path], tmp_path / "b.zip", resolution=8)
    assert not list(tmp_path.glob("b.zip*"))


def test_a_numbered_class_without_images_is_reported(contained, tmp_path):
    files = dict(zip(NAMES, [A, BROKEN, B, C], strict=True))
    report = prepare(
        [contained(labeled(files, [[n, i] for i, n in enumerate(NAMES)]))], tmp_path / "a.zip", resolution=8
    )
    assert report.notes == ("lost: class 1: none of its 1 images can be used",)
    assert ZipDataset.open(tmp_path / "a.zip").labels.tolist() == [0, 2, 3]


def test_files_of_other_kinds_are_counted_by_suffix(contained, tmp_path):
    path = contained(CLASSES | PHONE | HARMLESS)
    report = prepare([path], tmp_path / "a.zip", resolution=8)
    assert report.other_files == {".heic": 1, ".heif": 1, ".jxl": 1, ".1": 1, "without a suffix": 1}
    assert report.notes == ("ignored: 5 files of other types (1 .1, 1 .heic, 1 .heif, 1 .jxl, 1 without a suffix)",)
    assert ZipDataset.open(tmp_path / "a.zip").provenance["other_files"] == report.other_files
    with pytest.raises(FileError, match=r"5 files of other types \(1 \.1, .*--strict"):
        prepare([path], tmp_path / "b.zip", resolution=8, strict=True)
    assert not list(tmp_path.glob("b.zip*"))
    if path.suffix != ".gz":
        data = DatasetImages(path).data
        assert data.notes == report.notes


def test_files_that_lie_beside_images_are_none_and_strict_takes_them(contained, tmp_path):
    report = prepare([contained(CLASSES | HARMLESS)], tmp_path / "a.zip", resolution=8, strict=True)
    assert (report.kept, report.other_files, report.notes) == (4, {}, ())


def test_datasets_and_shards_that_train_say_what_they_pass_over(tmp_path):
    files = labeled({"a.png": A, "b.heic": b"x"}, [["a.png", 1]])
    for path in (write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)):
        for _ in range(2):
            assert open_dataset(path, index=tmp_path / "cache").notes == ("ignored: 1 file of other types (1 .heic)",)


def test_linked_folders_are_followed(tmp_path):
    store = write_folder(tmp_path / "store", {"eel/0.png": A, "eel/1.png": B})
    folder = write_folder(tmp_path / "set", CLASSES)
    os.symlink("../store/eel", folder / "eel")
    report = prepare([folder], tmp_path / "a.zip", resolution=8, strict=True)
    assert (report.kept, report.class_names) == (6, ("cat", "dog", "eel"))
    assert len(DatasetImages(folder)) == 6
    os.symlink(folder, tmp_path / "all")
    assert len(open_source(tmp_path / "all").names) == 6
    (tmp_path / "of-links").mkdir()
    for name in CLASSES:
        os.symlink(folder / name, tmp_path / "of-links" / name.replace("/", "-"))
    assert len(open_source(tmp_path / "of-links").names) == 4
    assert store.is_dir()


@pytest.mark.parametrize("target", ["..", ".", "../..", "cat", "/", "../set/dog"])
def test_links_that_lead_in_circles_end_and_are_reported(tmp_path, target):
    folder = write_folder(tmp_path / "set", CLASSES)
    os.symlink(target, folder / "loop")
    if target not in ("cat", "../set/dog"):
        os.symlink(f"../{target}", folder / "cat" / "deep")
    report = prepare([folder], tmp_path / "a.zip", resolution=8)
    assert (report.kept, report.class_names) == (4, ("cat", "dog"))
    name, why = report.skipped[-1]
    assert name == "loop"
    assert "is a folder that is read already" in why
    with pytest.raises(FileError, match=r"is a folder that is read already.*--strict"):
        prepare([folder], tmp_path / "b.zip", resolution=8, strict=True)


def test_links_to_one_another_are_each_read_once(tmp_path):
    for name in "abc":
        write_folder(tmp_path / name, {"0.png": A})
        for other in "abc".replace(name, ""):
            os.symlink(f"../{other}", tmp_path / name / f"to-{other}")
    assert len(open_source(tmp_path / "a").names) == 3


def test_a_folder_is_read_once_whichever_link_comes_first(tmp_path):
    write_folder(tmp_path / "store", {"eel/0.png": A, "elk/0.png": B})
    folder = write_folder(tmp_path / "set", CLASSES)
    os.symlink("../store/eel", folder / "a-eel")
    os.symlink("../store", folder / "b-all")
    source = open_source(folder)
    assert [name for name in source.names if name[1] == "-"] == ["a-eel/0.png", "b-all/elk/0.png"]
    assert [name for name, _ in source.ignored.left_out] == ["b-all/eel"]


def test_links_to_nothing_are_reported(tmp_path):
    folder = write_folder(tmp_path / "set", CLASSES)
    for name in ("gone.png", "gone"):
        os.symlink("nowhere", folder / name)
    os.symlink("self.png", folder / "self.png")
    report = prepare([folder], tmp_path / "a.zip", resolution=8)
    assert [name for name, _ in report.skipped] == ["gone.png", "self.png", "gone"]
    assert all(why.startswith("cannot be read (") for _, why in report.skipped)
    assert report.class_names == ("cat", "dog")


def special_files(folder) -> list[str]:
    """Make a pipe, a socket, a link to a device and a folder, all named as images."""
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # a socket's name may be no longer than some hundred characters
        listener.bind("socket.png")
        os.chdir(here)
    os.symlink("/dev/zero", folder / "zero.png")
    (folder / "folder.png").mkdir()
    return ["pipe.png", "socket.png", "zero.png"]


def test_special_files_are_skipped(tmp_path):
    folder = write_folder(tmp_path / "set", CLASSES)
    names = special_files(folder)
    report = prepare([folder], tmp_path / "a.zip", resolution=8)
    assert (report.found, report.kept, report.class_names) == (7, 4, ("cat", "dog"))
    assert report.skipped == tuple((name, "is not a regular file") for name in names)
    facts = ZipDataset.open(tmp_path / "a.zip").provenance
    assert facts["counts"] == {"found": 7, "kept": 4, "skipped": 3}
    with pytest.raises(FileError, match=r"pipe.png' is not a regular file .*--strict"):
        prepare([folder], tmp_path / "b.zip", resolution=8, strict=True)
    judged = DatasetImages(folder)
    assert len(judged) == 4
    assert judged.data.notes == ("skipped: 'pipe.png' is not a regular file (and 2 more)",)


def test_special_files_alone_are_no_data_set(tmp_path):
    (tmp_path / "set").mkdir()
    special_files(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"holds no images \('pipe.png' is not a regular file\)"):
        open_source(tmp_path / "set")


def test_a_pipe_that_comes_after_the_listing_is_skipped(tmp_path):
    folder = write_folder(tmp_path / "set", CLASSES)

    def swap(done: int, total: int) -> None:
        if done == 0 and (folder / "dog" / "1.png").is_file():
            (folder / "dog" / "1.png").unlink()
            os.mkfifo(folder / "dog" / "1.png")

    report = prepare([folder], tmp_path / "a.zip", resolution=8, progress=swap)
    assert report.skipped == (("dog/1.png", "is not a regular file"),)
