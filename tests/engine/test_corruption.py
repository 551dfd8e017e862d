"""A region is overwritten while threads and processes use it: any errno, but no crash, no hang, no sanitizer report."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.companions import companion
from tests.engine.programs import ADDRESSES, SHIPPED, Build, run
from tests.mounts import eventually

ALONE = "-Wl,--wrap=mmap,--wrap=munmap"  # inaccessible memory beside each mapping


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Build]]:
    directory = tmp_path_factory.mktemp("corruption")
    builds = {
        "sanitized": Build("corrupt.c", directory / "sanitized", "-fwrapv", "-DFSM_FAULT_POINTS", ALONE, *ADDRESSES),
        "as it is shipped": Build("corrupt.c", directory / "shipped", ALONE, *SHIPPED),
    }
    yield builds
    for build in builds.values():
        build.wait()


def corrupt(program: Path, *options: object) -> None:
    environment = {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "handle_abort=1"}
    result = run(program, *options, environment=environment)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("build", ["sanitized", "as it is shipped"])
def test_no_process_crashes_or_hangs_when_a_region_in_use_is_overwritten(
    builds: dict[str, Build], seed: int, soak: bool, build: str
) -> None:
    corrupt(builds[build].program, "--seed", seed, "--corruptions", 100_000 if soak else 200)


@pytest.mark.timeout(0)
def test_no_operation_crashes_or_hangs_when_the_region_is_overwritten_before_or_within_it(
    builds: dict[str, Build], seed: int, soak: bool
) -> None:
    corrupt(builds["sanitized"].program, "--seed", seed, "--corruptions", 100_000 if soak else 100, "--sequential", 1)


def test_the_processes_end_with_their_parent(builds: dict[str, Build]) -> None:
    """Each process would work for ever."""
    command = companion(builds["as it is shipped"].program, "--corruptions", 1_000_000)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(children.read_text, within=60, what="the first burst")
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""  # returns when the last process has ended
