"""Processes that die, or are stopped, between any two steps of any operation: faults.c walks through them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.programs import ADDRESSES, Build, run


def walk(directory: Path, flags: list[str], *options: object) -> None:
    build = Build(("faults.c", "plays.c"), directory / "faults", "-DFSM_FAULT_POINTS", *flags)
    result = run(build.program, *options)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(0)
def test_whoever_dies_or_stops_at_a_fault_point_of_an_operation_harms_nobody(
    tmp_path: Path, seed: int, soak: bool
) -> None:
    """Each point of each operation is one to die and to stop at: all of them in a soak, else some."""
    walk(tmp_path, ["-O2"], "--seed", seed, *(["--all", 1] if soak else ["--part", 20]))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_nor_does_it_reach_a_bad_address_or_undefined_behaviour(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, [*ADDRESSES], "--seed", seed)
