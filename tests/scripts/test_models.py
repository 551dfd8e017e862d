"""The models that scripts/bench compares with keep their promises, with and without sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.programs import ADDRESSES, SHIPPED, THREADS, Build, Flags, run

pytestmark = pytest.mark.timeout(0)  # a build comes first

MODELS = Path(__file__).parents[2] / "scripts" / "benchmarks" / "models"
NAMES = ["fsmount", "res_counter", "RFC", "page_counter", "limited add", "stock"]

OPTIMIZED = SHIPPED
SLIPPED = ("-DRFC_AS_POSTED",)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Flags, Build]]:
    directory = tmp_path_factory.mktemp("models")
    sources = tuple(str(source) for source in sorted(MODELS.glob("*.c")))
    builds = {
        flags: Build(sources, directory / f"models-{number}", *flags)
        for number, flags in enumerate([OPTIMIZED, SLIPPED, THREADS, ADDRESSES])
    }
    yield builds
    for build in builds.values():
        build.wait()


def found(result: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    return {name: int(value) for name, value in map(str.split, result.stdout.splitlines())}


def test_the_program_lists_all_models(builds: dict[Flags, Build]) -> None:
    listed = run(builds[OPTIMIZED].program, "list").stdout.splitlines()
    assert [line.split("\t")[0] for line in listed] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_keeps_its_promises(builds: dict[Flags, Build], name: str, seed: int, soak: bool) -> None:
    errors = found(run(builds[OPTIMIZED].program, "check", name, seed, 60_000 if soak else 300))
    assert errors["in_turn.refusals"] > 0 and errors["overlapping.refusals"] > 0
    assert errors["in_turn.left"] == errors["overlapping.left"] == 0


def test_fsmount_keeps_every_promise(builds: dict[Flags, Build], seed: int) -> None:
    errors = found(run(builds[OPTIMIZED].program, "check", "fsmount", seed, 300))
    for when in ("in_turn", "overlapping"):
        assert [errors[f"{when}.{what}"] for what in ("overshoot", "false_refusals", "usage")] == [0, 0, 0]


def test_the_checker_finds_what_the_other_models_accept(builds: dict[Flags, Build], seed: int) -> None:
    stock = found(run(builds[OPTIMIZED].program, "check", "stock", seed, 200))
    assert stock["in_turn.false_refusals"] > 0 and stock["in_turn.usage"] > 0 and stock["in_turn.early"] > 0
    for name in ("RFC", "limited add"):
        assert found(run(builds[OPTIMIZED].program, "check", name, seed, 200))["in_turn.late"] > 0


def test_the_error_in_the_posted_rfc_is_found(builds: dict[Flags, Build], seed: int) -> None:
    result = run(builds[SLIPPED].program, "check", "RFC", seed, 100)
    assert result.returncode == 1
    assert "in turn: units above a limit: " in result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_threads_of_a_model_do_not_race(builds: dict[Flags, Build], name: str, seed: int) -> None:
    result = run(
        builds[THREADS].program, "check", name, seed, 200, "threads", environment={"TSAN_OPTIONS": "halt_on_error=1"}
    )
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("ThreadSanitizer cannot run here: the kernel randomizes addresses more than it supports")
    found(result)


@pytest.mark.parametrize("name", NAMES)
def test_processes_of_a_model_reach_no_bad_address_and_no_undefined_behaviour(
    builds: dict[Flags, Build], name: str, seed: int
) -> None:
    lasting = {"ASAN_OPTIONS": "detect_leaks=0"}  # a model's memory lasts as long as the program
    found(run(builds[ADDRESSES].program, "check", name, seed, 200, environment=lasting))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("what", "more"),
    [("pairs", ()), ("pairs", (0,)), ("limit", ()), ("neighbour", (256, "same"))],
    ids=["pairs", "pairs-0", "limit", "neighbour"],
)
def test_a_model_is_timed(builds: dict[Flags, Build], name: str, what: str, more: tuple[object, ...]) -> None:
    depth, processes, milliseconds = 4, 2, 10
    result = run(builds[OPTIMIZED].program, what, name, depth, processes, milliseconds, *more)
    assert (result.returncode, result.stderr) == (0, "")
    figures = {key: float(value) for key, value in map(str.split, result.stdout.splitlines())}
    assert figures["each"] > 0 and figures["all"] > 0
    assert (figures["refused"] > 0) == (what == "limit")
