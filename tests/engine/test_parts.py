"""The C files of the engine: each part includes only its own headers and those of the parts below it."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import pytest

from tests.engine.programs import ENGINE

#: The parts from the bottom up. A part may include itself and any part before it in this list.
PARTS = ["region", "counters", "observe", "holders", "charging", "lifecycle", "check"]

SOURCES = sorted(path.relative_to(ENGINE).as_posix() for path in ENGINE.glob("*/*.[ch]"))


def includes(source: str) -> list[str]:
    return re.findall(r'^#include "(.+)"', (ENGINE / source).read_text(), re.M)


def test_every_c_file_is_in_a_part() -> None:
    assert {source.split("/")[0] for source in SOURCES} == set(PARTS)
    assert [path.name for path in ENGINE.glob("*.[ch]")] == ["engine.h"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_includes_only_its_own_part_and_parts_below(source: str) -> None:
    part = source.split("/")[0]
    allowed = {"engine.h", *PARTS[: PARTS.index(part) + 1]}
    assert {header.split("/")[0] for header in includes(source)} <= allowed


def test_headers_form_no_cycle() -> None:
    headers = [source for source in SOURCES if source.endswith(".h")]
    order = list(TopologicalSorter({header: includes(header) for header in headers}).static_order())
    assert set(headers) <= set(order)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.endswith(".c")])
def test_a_file_includes_its_own_header_first(source: str) -> None:
    header = source[:-1] + "h"
    if (ENGINE / header).exists():
        assert includes(source)[0] == header


@pytest.mark.parametrize("source", SOURCES)
def test_no_header_is_included_without_use(source: str) -> None:
    code = re.sub(r"^#include.*$", "", without_comments(source), flags=re.M)
    for header in includes(source):
        if source.endswith(".c") and header != source[:-1] + "h":
            assert set(re.findall(r"\w+", code)) & declared(header), header


def without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/", "", (ENGINE / source).read_text(), flags=re.S)


def declared(header: str) -> set[str]:
    """The functions, types, macros and constants that a header declares."""
    text = without_comments(header)
    patterns = [r"(\w+)\(", r"#define (\w+)", r"(\w+)(?:\[[^\]]*\])?;", r"typedef struct (\w+)", r"\b([A-Z][A-Z_]+)\b"]
    return {name for pattern in patterns for name in re.findall(pattern, text)}
