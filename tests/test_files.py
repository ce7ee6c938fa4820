"""Files that are whole or absent: drafts of dead processes, names that are too long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyinr_core.errors import FileError
from polyinr_core.runtime import atomic_io as files
from polyinr_core.runtime.atomic_io import check_place, draft_folder, remove_drafts, remove_stale_drafts, written_beside

LONGEST = 255  # bytes of a name, on every file system that people use
DIE = """
import os, sys
from pathlib import Path
from polyinr_core.runtime.atomic_io import written_beside
with written_beside(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os._exit(1)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_the_draft_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "x.txt")], check=False)
    assert len(hidden(tmp_path)) == 1
    with written_beside(tmp_path / "y.txt") as draft:
        draft.write_text("whole")
    assert hidden(tmp_path) == []
    assert (tmp_path / "y.txt").read_text() == "whole"


def test_a_draft_that_may_be_somebodys_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that runs, of another machine, of another program."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = files._host()
    names = {
        f".x.png.{host}.{dead.pid}.0123abcd.part": False,
        f".x.png.{host}.{os.getpid()}.0123abcd.part": True,
        f".x.png.{host}.{os.getppid()}.0123abcd.part": True,
        f".x.png.{host}.1.0123abcd.part": True,
        f".x.png.{host}.{10**30}.0123abcd.part": True,
        f".x.png.ffffffff.{dead.pid}.0123abcd.part": True,
        ".x.png.abcdef.part": True,
        f"x.png.{host}.{dead.pid}.0123abcd.part": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("half")
    remove_stale_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


def test_a_draft_that_an_interruption_left_is_removed(tmp_path: Path) -> None:
    unfinished = draft_folder(tmp_path, "x.png")
    beside = unfinished.__enter__()
    assert beside.is_dir()
    remove_drafts()
    assert not beside.exists()
    unfinished.__exit__(None, None, None)


@pytest.mark.parametrize("character", ["n", "é", "猫", "😀"])
def test_the_longest_name_can_be_written(tmp_path: Path, character: str) -> None:
    size = len(character.encode())
    name = character * ((LONGEST - 4) // size) + ".txt"
    with written_beside(tmp_path / name) as draft:
        draft.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"
    longer = character * (LONGEST // size + 1)
    for path in (tmp_path / longer, tmp_path / "new" / longer, tmp_path / longer / "x.txt"):
        with pytest.raises(FileError, match="the name is too long"):
            check_place(path)
        with pytest.raises(FileError, match="the name is too long"), written_beside(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_longest_path(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["n" * 200] * 25, "x.txt")
    with pytest.raises(FileError, match="the name is too long"), written_beside(path):
        pass
    assert list(tmp_path.iterdir()) == []
