"""The stress test under ThreadSanitizer, and under AddressSanitizer with UndefinedBehaviorSanitizer: no report."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.programs import ADDRESSES, THREADS, Build, Flags, run


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Flags, Build]]:
    directory = tmp_path_factory.mktemp("sanitizers")
    builds = {
        flags: Build("stress.c", directory / f"stress-{number}", *flags)
        for number, flags in enumerate([THREADS, ADDRESSES])
    }
    yield builds
    for build in builds.values():
        build.wait()


@pytest.fixture
def options(seed: int, soak: bool) -> list[object]:
    source = random.Random(seed)
    return ["--seed", seed, "--seconds", 120 if soak else 1, "--depth", source.choice([2, 4, 8, 16])]


def stress(program: Path, *options: object) -> None:
    environment = {"TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    result = run(program, *options, environment=environment)
    print(result.stdout)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("ThreadSanitizer cannot run here: addresses are randomized more than it can do with")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(0)
def test_threads_do_not_race(builds: dict[Flags, Build], options: list[object]) -> None:
    stress(builds[THREADS].program, *options, "--threads", 4, "--processes", 0)


@pytest.mark.timeout(0)
def test_threads_and_processes_cause_no_bad_access_and_no_undefined_behaviour(
    builds: dict[Flags, Build], options: list[object]
) -> None:
    stress(builds[ADDRESSES].program, *options, "--threads", 3, "--processes", 4)


@pytest.mark.timeout(0)
def test_without_stock_they_cause_none_either(builds: dict[Flags, Build], options: list[object]) -> None:
    stress(builds[ADDRESSES].program, *options, "--threads", 3, "--processes", 4, "--batch", 0)
