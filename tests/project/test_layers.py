"""The layers of fsmount: the rooms that each room may import, and no cycles.

Every import in the source counts: at the top of a module, in a function, for type checkers alone, and by
import_module() with an f-string.  fsmount/__init__.py names for type checkers whatever it imports on first use.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from fnmatch import filter as filter_names
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

# The rooms from the bottom up, with the rooms that each imports.  A room is a folder of fsmount/, or a module beside
# the folders; "fsmount" is fsmount/__init__.py.
ROOMS = {
    "version": "",
    "errors": "",
    "quantities": "",
    "paths": "",
    "protocol": "quantities",
    "interface": "errors protocol quantities",
    "engine": "protocol",
    "installation": "engine",
    "control_files": "errors interface protocol quantities version",
    "shm": "control_files engine errors interface protocol",
    "files": "control_files errors interface protocol",
    "config": "control_files errors paths protocol quantities shm",
    "filesystem": "control_files errors protocol shm",
    "admin": "errors installation paths protocol quantities shm",
    "exporter": "admin errors protocol",
    "daemon": "admin config errors filesystem protocol shm",
    "attachment": "files installation interface protocol shm",
    "fsmount": "attachment errors installation interface protocol quantities shm version",
    "cli": (
        "admin attachment config control_files daemon errors exporter files installation paths protocol quantities shm "
        "version"
    ),
    "__main__": "cli",
}

# These rooms run in a client, which has neither the engine nor FUSE.  No import there leads to one of these modules.
OF_A_CLIENT = ("interface", "protocol", "control_files", "files")
NOT_IN_A_CLIENT = ("fsmount.engine", "fsmount.shm", "fsmount.filesystem", "pyfuse3")


def _sources() -> dict[str, Path]:
    """The source of each module of fsmount by its dotted name; a stub stands for a compiled module."""
    found = {}
    for pattern in ("*.pyi", "*.py"):
        for path in CHECKOUT.glob(f"fsmount/**/{pattern}"):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = _sources()


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module imports; of the modules of others, the topmost package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in SOURCES else node.module for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.update(_matching(node.args[0]))
    ours = {name for name in found if name in SOURCES}
    return frozenset(ours | set(_packages_of(ours, module)) | {name.split(".")[0] for name in found - ours})


def _matching(name: ast.expr) -> list[str]:
    """The modules that an f-string can name."""
    parts = name.values if isinstance(name, ast.JoinedStr) else []
    return filter_names(SOURCES, "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts))


def _packages_of(modules: Iterable[str], importer: str) -> Iterator[str]:
    """The packages that Python imports before these modules, except those that the importer is in."""
    for module in modules:
        parts = module.split(".")
        for package in (".".join(parts[:end]) for end in range(1, len(parts))):
            if not importer.startswith(f"{package}.") and importer != package:
                yield package


def reached_from(module: str) -> frozenset[str]:
    """The modules that one imports, and all that these import in turn."""
    found: set[str] = set()
    unseen = [module]
    while unseen:
        more = imports(unseen.pop()) - found
        found |= more
        unseen += more & SOURCES.keys()
    return frozenset(found)


def room_of(module: str) -> str:
    return module.removeprefix("fsmount.").split(".")[0]


def edges() -> Iterator[tuple[str, str]]:
    return ((importer, name) for importer in SOURCES for name in imports(importer) if name in SOURCES)


def as_lines(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{importer} -> {name}" for importer, name in sorted(pairs))


def test_no_module_imports_itself_through_others() -> None:
    reached = {module: reached_from(module) for module in SOURCES}
    of_cycles = [(importer, name) for importer, name in edges() if importer in reached[name]]
    assert not of_cycles, f"imports that close a cycle:\n{as_lines(of_cycles)}"


def test_the_rooms_stand_in_order() -> None:
    unlisted = ROOMS.keys() ^ set(map(room_of, SOURCES))
    assert not unlisted, f"in the list or in fsmount/, but not in both: {', '.join(sorted(unlisted))}"
    below: set[str] = set()
    for room, imported in ROOMS.items():
        assert below.issuperset(imported.split()), f"{room} imports a room that does not stand below it"
        below.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_exactly_the_rooms_in_its_list(room: str) -> None:
    found = [(importer, name) for importer, name in edges() if room_of(importer) == room != room_of(name)]
    allowed = set(ROOMS[room].split())
    forbidden = [(importer, name) for importer, name in found if room_of(name) not in allowed]
    assert not forbidden, f"{room} may not import these:\n{as_lines(forbidden)}"
    unused = allowed - {room_of(name) for _, name in found}
    assert not unused, f"{room} imports nothing of {', '.join(sorted(unused))} any more: shorten its list"


@pytest.mark.parametrize("room", OF_A_CLIENT)
def test_a_client_reaches_neither_the_engine_nor_fuse(room: str) -> None:
    own = {module for module in SOURCES if room_of(module) == room}
    reached = own.union(*map(reached_from, own))
    wrong = [
        (importer, name)
        for importer in reached & SOURCES.keys()
        for name in imports(importer)
        if name.startswith(NOT_IN_A_CLIENT) and not importer.startswith(NOT_IN_A_CLIENT)
    ]
    assert not wrong, f"imports that {room} leads to, but no client may have:\n{as_lines(wrong)}"
