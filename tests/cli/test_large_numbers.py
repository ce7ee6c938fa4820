"""Every whole number that an option takes, far too large: one line, exit code 2 or 1, nothing left behind."""

import importlib
import shlex
import typing
from pathlib import Path

import pytest
from bad_files import made_for
from conftest import Run

from polyinr_cli.main import COMMANDS

LINES = {  # complete but for the option
    "prepare": "photos -o out.zip --res 16",
    "train": "data.zip --preset tiny --stages 16:0.001 --run-dir run --cond --dry-run",
    "sample": "-m model.safetensors --seeds 0 -o x.png",
    "extrapolate": "-m model.safetensors --seeds 0 -o x.png",
    "interpolate": "-m model.safetensors --seeds 0-1 -o x.gif",
    "mix": "-m model.safetensors --sources 0 --targets 1 -o x.png",
    "directions": "-m model.safetensors -o d.safetensors",
    "invert": "photo.png -m model.safetensors --tune --delta d.safetensors -o x.safetensors",
    "encoder": "model.safetensors -o e.safetensors",
    "heatmap": "-m model.safetensors --seed 0 -o x.png",
    "evaluate": "--real data.zip -m model.safetensors --metrics fd-lite2",
    "gallery": "-m model.safetensors -o site --res 16",
    "report": "run-other -o x.html",
    "view": "-m empty.safetensors --no-open",  # a view that works would not end
}


def whole_numbers() -> list[tuple[str, str]]:
    """Return the options of all commands that take a whole number, as (command, name)."""
    found = []
    for name in COMMANDS:
        function = getattr(importlib.import_module(f"polyinr_cli.commands.{name}"), name)
        for option, hint in typing.get_type_hints(function).items():
            if hint in (int, int | None):
                found.append((name, option))
    return found


@pytest.mark.parametrize("number", [2**32, 2**63, 10**30])
@pytest.mark.parametrize(("name", "option"), whole_numbers())
def test_a_number_far_too_large(polyinr: Run, tmp_path: Path, name: str, option: str, number: int) -> None:
    line = shlex.split(LINES[name])
    flag = f"--{option.replace('_', '-')}"
    if flag in line:
        at = line.index(flag)
        del line[at : at + 2]
    made_for(line)
    before = sorted(tmp_path.rglob("*"))
    ran = polyinr(*name.split(), *line, f"{flag}={number}")
    assert ran.code in (1, 2), ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert "should not happen" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before
