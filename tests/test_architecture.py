"""The laws of docs/architecture.md, checked on the import graph."""

import ast
from pathlib import Path

import pytest

from polyinr_cli import main

ROOT = Path(__file__).parent.parent
GROUND = {"errors", "seeds", "files", "pickles", "ranks", "strict_json", "tensor_files"}
STOREYS = [
    {"errors"},
    {"seeds", "files", "pickles", "ranks", "strict_json"},
    {"tensor_files"},
    {"model", "pictures", "data", "weights", "results"},
    {"snapshots", "latents", "critic", "metrics"},
    {"training", "inversion", "gallery", "viewer"},
    {"evaluation"},
    {"report"},
]
COMMANDS = {name.split()[-1] for name in main.COMMANDS}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names of all that a file imports, relative ones made absolute, at any depth."""
    package = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else ()
            if path.name == "__init__.py" and node.level:
                base = package[: len(package) - node.level]
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return found


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "polyinr_core" and len(parts) > 1 else None


def storey(name: str) -> int:
    return next(i for i, rooms in enumerate(STOREYS) if name in rooms)


def test_every_room_has_its_storey() -> None:
    rooms = {
        path.relative_to(ROOT / "polyinr_core").parts[0].removesuffix(".py") for path in modules("polyinr_core")
    }
    assert rooms - {"__init__", "assets"} == set().union(*STOREYS)


@pytest.mark.parametrize("path", modules("polyinr_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_looks_down_only(path: Path) -> None:
    parts = path.relative_to(ROOT / "polyinr_core").parts
    own = parts[0].removesuffix(".py")
    for name in imports(path):
        assert not name.startswith(("polyinr_cli", "typer", "rich", "click")), name
        other = room(name)
        if other is None or other == own or own == "__init__" or not any(other in rooms for rooms in STOREYS):
            continue
        assert storey(other) < storey(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", modules("polyinr_core/model"), ids=lambda p: p.name)
def test_the_model_knows_torch_and_the_ground_only(path: Path) -> None:
    for name in imports(path):
        other = room(name)
        assert other is None or other in GROUND | {"model"}, name
        assert not name.startswith(("timm", "torchvision", "numpy", "PIL", "safetensors", "scipy")), name


@pytest.mark.parametrize("path", modules("polyinr_cli"), ids=lambda p: p.name)
def test_a_command_never_imports_another(path: Path) -> None:
    for name in imports(path):
        other = name.removeprefix("polyinr_cli.").split(".")[0]
        if name.startswith("polyinr_cli.") and other in COMMANDS:
            assert path.stem in (other, "main"), name
        assert other != "main" or path.stem in ("main", "__main__"), name


@pytest.mark.parametrize("path", modules("polyinr_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_neither_prints_nor_exits_nor_reads_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "id", None) if isinstance(node, ast.Name) else None
        assert name not in ("print", "exit", "quit"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv"), ("sys", "exit")}
