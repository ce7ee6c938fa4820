"""Count the functions and files between `polyinr sample` and the PNG; the import depth and the start of the commands.

A function is on the path if it is on the stack at one of the command's milestones: the seeds are parsed, z is rendered,
the synthesis network is evaluated, the image is encoded.

Run: python benchmarks/call_path.py
"""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("polyinr_core", "polyinr_cli")
MILESTONES = {"parse_seeds", "draw_z", "CpuBackend.__call__", "write_pixels"}
INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>", "<module>")

Call = tuple[str, str]  # file, function


def call_path(arguments: list[str]) -> list[Call]:
    """Run a command and return the functions of this project that lie on the path, in the order they are met."""
    from polyinr_cli.main import outcome

    path: dict[Call, None] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_qualname in MILESTONES and file_of(frame):
            path.update(dict.fromkeys(reversed(list(stack(frame)))))

    sys.setprofile(profile)
    try:
        code = outcome(arguments)
    finally:
        sys.setprofile(None)
    assert code == 0, arguments
    return list(path)


def stack(frame: FrameType | None) -> Iterator[Call]:
    """Yield the functions of this project on the stack, innermost first."""
    while frame is not None:
        name, file = frame.f_code.co_qualname, file_of(frame)
        if file and not name.endswith(INNER):
            yield file, name
        frame = frame.f_back


def file_of(frame: FrameType) -> str:
    """Return the file of a function below the repository's root, empty for other libraries'."""
    path = Path(frame.f_code.co_filename)
    inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
    return str(path.relative_to(ROOT)) if inside else ""


def import_depth(start: str = "polyinr_cli.main") -> int:
    """Return the length of the longest chain of imports within `polyinr_cli` from a module on.

    `polyinr_cli.main` imports a command when it is called.
    """
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "polyinr_cli").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts)
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = [*parts[: len(parts) - node.level]] if node.level else []
                stem = ".".join([*base, *([node.module] if node.module else [])])
                graph[name] |= {stem, *(f"{stem}.{alias.name}" for alias in node.names)}
    commands = {name for name in graph if name.startswith("polyinr_cli.commands.")}
    graph["polyinr_cli.main"] |= commands - {"polyinr_cli.commands.__init__"}

    def depth(name: str) -> int:
        return max((1 + depth(other) for other in graph[name] & graph.keys() - {name}), default=0)

    return depth(start)


def startup_seconds(*arguments: str, repeats: int = 5) -> float:
    """Return the time of the fastest of several starts of a command that only prints, such as --help."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "polyinr_cli", *arguments], check=True, cwd=ROOT, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Print the path and the counts."""
    with TemporaryDirectory() as folder:
        path = call_path(["sample", "--seeds", "0", "-m", "bundled", "-o", f"{folder}/x.png"])
    for file, name in path:
        print(f"{file:45} {name}")
    print(f"{len(path)} functions in {len({file for file, _ in path})} files; import depth {import_depth()}")
    for arguments in (["--help"], ["sample", "--help"]):
        print(f"polyinr {' '.join(arguments)}: {startup_seconds(*arguments):.2f} s")


if __name__ == "__main__":
    main()
