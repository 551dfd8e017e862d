"""The faults that scripts/mutate injects: each of them still fits the code."""

from __future__ import annotations

import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FAULTS = tomllib.loads((PROJECT / "scripts/mutations.toml").read_text())["faults"]
SUFFIXES = {".c", ".h", ".py", ".pyx", ".pxd"}


def test_each_fault_replaces_one_place_and_names_tests_that_exist() -> None:
    sources = [path.read_text() for path in (PROJECT / "fsmount").rglob("*") if path.suffix in SUFFIXES]
    places = {fault["name"]: sum(source.count(fault["text"]) for source in sources) for fault in FAULTS}
    assert {name: count for name, count in places.items() if count != 1} == {}
    assert [test for fault in FAULTS for test in fault["tests"] if not (PROJECT / test).exists()] == []


def test_there_are_thirty_faults_and_each_changes_its_text() -> None:
    assert len({fault["name"] for fault in FAULTS}) == 30
    assert [fault["name"] for fault in FAULTS if fault["text"] == fault["fault"]] == []
