"""The import rules of docs/architecture.md, checked on the import graph."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [  # a package imports packages of its own layer or of lower ones
    {"errors"},
    {"runtime"},
    {"models", "images", "data"},
    {"discriminator", "latents", "checkpoints"},
    {"rendering", "metrics"},
    {"evaluation", "training", "inversion"},
    {"gallery", "viewer", "report"},
]
ENVIRONMENT = {("os", "environ"), ("os", "getenv"), ("sys", "exit")}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Return the dotted names of all that a file imports, relative ones made absolute; `lazy` within functions too."""
    tree = ast.parse(path.read_text())
    parents = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return found


def package_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "polyinr_core" and len(parts) > 1 else None


def layer_of(name: str) -> int | None:
    return next((i for i, packages in enumerate(LAYERS) if name in packages), None)


def test_every_package_has_its_layer() -> None:
    names = {path.relative_to(ROOT / "polyinr_core").parts[0].removesuffix(".py") for path in modules("polyinr_core")}
    assert names - {"__init__", "assets"} == set().union(*LAYERS)


@pytest.mark.parametrize("path", modules("polyinr_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_imports_downward(path: Path) -> None:
    own = layer_of(path.relative_to(ROOT / "polyinr_core").parts[0].removesuffix(".py"))
    for name in imports(path):
        assert not name.startswith(("polyinr_cli", "typer", "rich", "click")), name
        other = layer_of(package_of(name) or "")
        assert own is None or other is None or other <= own, name


def test_no_import_circle() -> None:
    """Of what is imported when a module is loaded."""
    paths = {dotted_name(path): path for name in ("polyinr_core", "polyinr_cli") for path in modules(name)}
    graph = {name: imports(path, lazy=False) & paths.keys() - {name} for name, path in paths.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                if not name.startswith(f"{other}."):  # a package is loaded before its modules
                    visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules("polyinr_core/models"), ids=lambda p: p.name)
def test_the_networks_import_torch_alone(path: Path) -> None:
    for name in imports(path):
        other = package_of(name)
        assert other is None or other in {"errors", "runtime", "models"}, name
        assert not name.startswith(("timm", "torchvision", "numpy", "PIL", "safetensors", "scipy")), name


def test_timm_and_torchvision_are_imported_with_the_first_network() -> None:
    """They take longer to load than PyTorch, and most commands need no network of theirs."""
    for path in modules("polyinr_core") + modules("polyinr_cli"):
        assert not [name for name in imports(path, lazy=False) if name.split(".")[0] in ("timm", "torchvision")], path


@pytest.mark.parametrize("path", modules("polyinr_cli"), ids=lambda p: p.name)
def test_a_command_imports_no_other_command(path: Path) -> None:
    for name in imports(path):
        if name.startswith("polyinr_cli.commands."):
            assert path.stem == name.split(".")[2], name
        assert not name.startswith("polyinr_cli.main") or path.stem in ("main", "__main__"), name


@pytest.mark.parametrize("path", modules("polyinr_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits_nor_reads_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "id", None) if isinstance(node, ast.Name) else None
        assert name not in ("print", "exit", "quit"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in ENVIRONMENT, f"line {node.lineno}"
