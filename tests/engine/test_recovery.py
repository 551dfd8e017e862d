"""Processes die, or are stopped, while they have the lock of the region."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from fsmount import Tree
from fsmount.errors import LockTimeout
from fsmount.shm import set_patience
from tests.engine.programs import SHIPPED, Build, run
from tests.engine.workers import Progress, Worker
from tests.process_state import state


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Build]]:
    directory = tmp_path_factory.mktemp("recovery")
    builds = {
        # bind every function at the start: lazy binding would be most of the steps
        "crash": Build(("crash.c", "plays.c"), directory / "crash", *SHIPPED, "-Wl,-z,now"),
        "stress": Build("stress.c", directory / "stress", *SHIPPED),
    }
    yield builds
    for build in builds.values():
        build.wait()


@pytest.mark.timeout(0)
def test_every_operation_survives_a_kill_after_any_of_its_stores(
    builds: dict[str, Build], seed: int, soak: bool
) -> None:
    result = run(builds["crash"].program, "--seed", seed, *(["--points", 0] if soak else ["--points", 1, "--part", 5]))
    print(result.stdout)
    if result.returncode == 77:
        pytest.skip("nobody may be traced here")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", ["auto", 0])
def test_other_processes_get_the_lock_when_its_owner_is_killed(
    builds: dict[str, Build], seed: int, soak: bool, batch: int | str
) -> None:
    """Thousands of random kills; some certainly hit the owner of the lock."""
    options: list[object] = ["--seed", seed, "--seconds", 120 if soak else 1, "--threads", 0, "--processes", 3]
    if batch != "auto":
        options += ["--batch", batch]
    for _ in range(60):  # on a slow machine few processes die in that time
        result = run(builds["stress"].program, *options)
        print(result.stdout)
        assert (result.returncode, result.stderr) == (0, "")
        killed = re.search(r"\d+ killed, at least (\d+) of them with the lock", result.stdout)
        assert killed
        if int(killed[1]) > 0:
            return
    pytest.fail("nobody died with the lock")


@pytest.fixture
def impatient() -> Iterator[None]:
    set_patience(0.01)
    yield
    set_patience(3)


def stop_with_the_lock(tree: Tree, pid: int) -> LockTimeout:
    """Stops and continues a process until it is stopped while it has the lock."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        os.kill(pid, signal.SIGSTOP)
        while state(pid) != "T":
            pass
        try:
            for _ in range(3):
                tree.root["memory"].usage  # noqa: B018
        except LockTimeout as error:
            return error
        os.kill(pid, signal.SIGCONT)
    raise AssertionError("it never had the lock")


@pytest.mark.usefixtures("impatient")
def test_a_stopped_owner_of_the_lock_is_named_and_does_no_lasting_harm() -> None:
    with Tree.create(None, batch=0) as tree, Progress() as progress, Worker(tree, progress) as worker:
        group = tree.root.mkdir("group")
        worker.attach(group)
        worker.start_work(1, 1000)
        progress.wait_for([0], 1)
        error = stop_with_the_lock(tree, worker.pid)
        assert error.pid == worker.pid
        with pytest.raises(LockTimeout) as caught:
            group["memory"].charge_common(5)
        assert str(worker.pid) in str(caught.value)
        with pytest.raises(LockTimeout):
            tree.root.mkdir("other")
        os.kill(worker.pid, signal.SIGCONT)
        set_patience(3)
        report = worker.stop_work()
        assert group["memory"].usage == sum(held for _, _, held in report["held"])
        assert [child.name for child in tree.root.children()] == ["group"]
        assert tree.check() == []


@pytest.mark.usefixtures("impatient")
def test_an_owner_that_is_killed_while_stopped_releases_the_lock_and_leaves_a_consistent_region() -> None:
    with Tree.create(None, batch=0) as tree, Progress() as progress, Worker(tree, progress) as worker:
        group = tree.root.mkdir("group")
        group["memory"].charge_common(5)
        worker.attach(group)
        worker.start_work(1, 1000)
        progress.wait_for([0], 1)
        stop_with_the_lock(tree, worker.pid)
        worker.kill()
        worker.bury()
        assert group["memory"].usage >= 5  # no LockTimeout: it recovers
        assert tree.check() == []
        assert tree.reap() == 1
        assert group["memory"].stat()["usage"] == group["memory"].stat()["common"] == 5
