"""The rules of docs/architecture.md on names and sizes, checked on every file."""

import ast
import re
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 450
PACKAGES = ("polyinr_core", "polyinr_cli")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PRIVATE = re.compile(
    r"(?<![a-z<])(?<!</)(?:critic|picture|snapshot|drawer|painter|exhibit|sights?|upkeep|told|colour|neighbour|grey|optimis|quantis|normalis)"
    r"(?:s|ed|es|ing|er|ers)?(?![a-z])",
    re.IGNORECASE,
)
ALLOWED = {("polyinr_core/images/io.py", "greyscale")}  # an argument of pypng
SHARED_NAMES = {"config", "io", "page"}  # modules that each package may have
COMPARISON = re.compile(r"assert_close|assert_rounded|allclose|array_equal|torch\.equal|approx\(|\.norm\(")
MAX_MODULES = 146  # beside the packages' __init__; to fall, but for a new feature


def identifiers(path: Path) -> set[str]:
    with tokenize.open(path) as file:
        return {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}


def words_of(identifier: str) -> str:
    """Return an identifier's words apart: `read_snapshotFile` as `read snapshot File`."""
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", identifier)


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_identifiers_are_the_fields_words(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    odd = {i for i in {*identifiers(path), path.stem} if PRIVATE.search(words_of(i)) and (name, i) not in ALLOWED}
    assert not odd


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_a_topic_of_bounded_size(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text))


def test_no_two_modules_of_one_name_in_sibling_packages() -> None:
    """But for a command, which is named as what it calls."""
    names = Counter(path.stem for path in MODULES if path.stem != "__init__" and "commands" not in path.parts)
    assert {name for name, count in names.items() if count > 1} <= SHARED_NAMES


def test_no_two_classes_of_one_name() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_few_modules() -> None:
    assert sum(path.stem != "__init__" for path in MODULES) <= MAX_MODULES


@pytest.mark.parametrize("pattern", ["*.md", "*.sh", "*.jinja"])
def test_docs_and_pages_are_in_the_fields_words(pattern: str) -> None:
    files = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split():
        if name != "CHANGELOG.md":
            text = re.sub(r"`[^`\n]*`", "", (ROOT / name).read_text())  # code may name keys of old files
            assert not PRIVATE.search(text), name


def test_what_is_marked_no_numbers_compares_none() -> None:
    """`make numeric` leaves these tests out, so what PyTorch computed must not be compared in them."""
    left_out = []
    for path in TESTS:
        body = ast.parse(path.read_text()).body
        whole = any("no_numbers" in ast.unparse(node) for node in body if isinstance(node, ast.Assign))
        for node in body:
            if isinstance(node, ast.FunctionDef) and (
                whole or "no_numbers" in "".join(map(ast.unparse, node.decorator_list))
            ):
                assert not COMPARISON.search(ast.unparse(node)), (path.name, node.name)
                left_out.append(node.name)
    assert len(left_out) > 20
