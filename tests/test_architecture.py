"""The laws of docs/decisions/0001-architecture.md: who may import whom, how big things get.

It reads the sources as text and runs none of them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ouzel"
EVERYTHING = "*"

# Room -> the rooms that it may import. A room that is not here is an error: add it on purpose.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "config": set(),
    "loop": {"core"},
    "engines": {"core"},
    "store": {"core"},
    "limits": {"core"},
    "sandbox": {"core"},
    "tools": {"core", "sandbox"},
    "answer": {"core", "loop"},
    "api": {"core", "answer"},
    "build": {EVERYTHING},
    "cli": {"config", "build", "api", "evals"},
}
NO_THIRD_PARTY = {"core", "config"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

SOURCES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_by(path: Path, source: str | None = None) -> Iterator[str]:
    """Modules that a file imports, absolute, those inside functions and type checks included."""
    package = ["ouzel", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            # `from ouzel import core` imports a room, too.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _arrows(path: Path, source: str | None = None) -> set[str]:
    """Rooms that a file imports from, its own left out."""
    modules = [module.split(".") for module in _imported_by(path, source)]
    found = {parts[1] for parts in modules if parts[0] == "ouzel" and len(parts) > 1}
    return {room for room in found if not room.startswith("__")} - {_room(path)}


def _wrong_arrows(path: Path, source: str | None = None) -> set[str]:
    allowed = ROOMS.get(_room(path), set())
    return set() if EVERYTHING in allowed else _arrows(path, source) - allowed


def test_every_room_is_known() -> None:
    rooms = {_room(path) for path in SOURCES} - {"__init__"}
    assert rooms <= set(ROOMS), "a new room: say in the table above what it may import"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert _wrong_arrows(path) == set()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_core_and_config_use_the_standard_library_only(path: Path) -> None:
    if _room(path) in NO_THIRD_PARTY:
        tops = {module.partition(".")[0] for module in _imported_by(path)}
        assert tops - {"ouzel"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    if path.name == "__init__.py" and not path.read_text().strip():
        pytest.fail("an empty __init__.py says nothing of its room")
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert len(docstring) > 20


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = {
        node.name: length
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_the_whole_package_was_read() -> None:
    assert len(SOURCES) > 20
    assert {"core", "api", "loop", "engines"} <= {_room(path) for path in SOURCES}


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("core/x.py", "import ouzel.api", {"api"}),
        ("core/x.py", "from ouzel import loop", {"loop"}),
        ("core/x.py", "from ..store import codec", {"store"}),
        ("core/x.py", "def f():\n    from ouzel.engines.wire import x", {"engines"}),
        ("core/x.py", "from ouzel.core.errors import OuzelError", set()),
        ("core/x.py", "from . import errors\nfrom ouzel import __version__", set()),
        ("cli/x.py", "from ouzel.core.errors import OuzelError", {"core"}),
        ("build/x.py", "from ouzel.engines import scripted", set()),
        ("newroom/x.py", "from ouzel.core import items", {"core"}),
    ],
)
def test_the_reader_of_imports_sees_each_way_of_importing(
    path: str, source: str, wrong: set[str]
) -> None:
    assert _wrong_arrows(PACKAGE / path, source) == wrong


def test_nothing_names_a_machine_or_a_registry() -> None:
    """What is committed works elsewhere: no paths of a developer's machine, no registry's host."""
    forbidden = (
        "/work/" + "main",
        "/work/" + "shared",
        "pythonhosted" + ".org",
        "--index" + "-url h",
    )
    kept = [ROOT / "Makefile", ROOT / "requirements.lock", ROOT / "pyproject.toml", *SOURCES]
    for path in kept:
        text = path.read_text()
        assert not [word for word in forbidden if word in text], path
