"""Processes die, or are stopped, between any two steps of any operation; see faults.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.programs import ADDRESSES, Build, run


def walk(directory: Path, flags: list[str], *options: object) -> None:
    build = Build(
        ("faults.c", "plays.c"), directory / "faults", "-DFSM_FAULT_POINTS", "-DFSM_REAP_EVERY=30000000000", *flags
    )
    result = run(build.program, *options)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(0)
def test_a_process_that_dies_or_stops_at_a_fault_point_harms_no_other(tmp_path: Path, seed: int, soak: bool) -> None:
    """Each fault point of each operation: all of them in a soak, otherwise some."""
    walk(tmp_path, ["-O2"], "--seed", seed, *(["--all", 1] if soak else ["--part", 20]))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_death_at_a_fault_point_causes_no_bad_access_and_no_undefined_behaviour(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, [*ADDRESSES], "--seed", seed)
