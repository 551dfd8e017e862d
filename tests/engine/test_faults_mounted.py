"""Workers and daemons of a mounted tree die or are stopped between two steps in the region."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fsmount import Tree
from tests.engine.faults import ANYBODY, FaultOrders, build
from tests.holder_process import HolderProcess, Refused
from tests.mounts import GroupFiles, Mount, eventually, fails_with, mounted
from tests.process_state import state

pytestmark = pytest.mark.timeout(0)  # includes a build

AMOUNT = 10**6  # more than any stock


def lease_something(group: GroupFiles) -> None:
    """In a process of its own: after the death of the daemon, a lease lasts as long as the process that opened it."""
    command = ["sh", "-c", 'exec 3<>"$0" && echo 600 >&3', str(group.file("lease"))]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise ConnectionAbortedError(errno.ECONNABORTED, "the shell failed")


# Operations of a worker that holds 3000 in two resources and may take 500, with a fault point in each.
WORKER = [
    ("charge", AMOUNT, "close_cell/closed"),
    ("charge", AMOUNT, "reserve/level_reserved"),
    ("charge", AMOUNT, "link_open/cap_added"),
    ("charge", AMOUNT, "settle/refilled"),
    ("charge_nofail", AMOUNT, "fsm_charge_nofail/reserved"),
    ("give", 1000, "move_held/journal_written"),
    ("give", 1000, "move_held/journal_committed"),
    ("give", 1000, "move_held/used_set"),
    ("take", 500, "move_held/common_set"),
    ("reset_failcnt", None, "fsm_reset_failcnt/forgotten"),
    ("reset_max_usage", None, "fsm_reset_max_usage/usage_taken"),
    ("set_limit", 10 * AMOUNT, "drain/batch_reset"),
    ("set_limit", 10 * AMOUNT, "fsm_set_limit/limit_set"),
]

# Requests to the daemon, with a fault point in each.
DAEMON: list[tuple[Callable[[GroupFiles], object], str]] = [
    (lambda group: group.mkdir("new"), "make_group/described"),
    (lambda group: group.mkdir("new"), "make_group/made"),
    (lambda group: group.mkdir("new"), "link_group/among_siblings"),
    (lambda group: os.rmdir(group / "child"), "unlink_group/out_of_name_table"),
    (lambda group: os.rmdir(group / "child"), "fsm_rmdir/removed"),
    (lambda group: os.rename(group / "child", group / "renamed"), "fsm_rename/journal_committed"),
    (lambda group: os.rename(group / "child", group / "renamed"), "fsm_rename/name_copied"),
    (lambda group: group.set_limit(10 * AMOUNT), "fsm_set_limit/limit_set"),
    (lambda group: group.set_limit(10 * AMOUNT), "close_cell/unlinked"),
    (lambda group: group.charge(700), "fsm_common_charge_for/charged"),
    (lambda group: group.write("force_empty", 1), "fsm_force_empty/forgotten"),
    (lambda group: os.chmod(group.file("limit"), 0o600), "keep_attributes/cleared"),
    (lambda group: lease_something(group), "make_cell/made"),
    (lambda group: lease_something(group), "fsm_charge_slow/reserved"),
]

# Fault points where the daemon releases the charges of a dead worker, where a process attaches, and where a mount makes
# its region.
ENDING = ["end_holder/ending", "close_cell/unlinked", "free_cell/given_up", "unlink_cell/out_of_counters_cells"]
ATTACHING = ["fsm_holder_create/described", "fsm_holder_create/made", "make_cell/made"]
MAKING = ["fsm_create/file_made", "initialize/root_made", "fsm_set_daemon/no_daemon"]


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultOrders]:
    """Orders to all processes that are started: their engine has fault points."""
    directory = tmp_path_factory.mktemp("faults")
    orders = FaultOrders(directory / "orders", build(directory / "package"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(directory / "package"))
        patch.setenv("PYTHONSAFEPATH", "1")
        patch.setenv("FSMOUNT_FAULT_ORDERS", str(orders.path))
        yield orders
    orders.close()


@pytest.fixture
def mount(orders: FaultOrders) -> Iterator[Mount]:
    with mounted("--resource", "memory", "--resource", "tokens:count") as tree:
        yield tree


class Scene:
    """A worker in `group` that gets the orders, and another one beside it."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.group = mount.root.mkdir("group")
        self.group.mkdir("child")
        self.group.charge(500)
        self.beside = mount.root.mkdir("beside")
        self.worker = HolderProcess(self.group.path, transport="memory")
        self.neighbour = HolderProcess(self.beside.path, transport="memory")
        for process in (self.worker, self.neighbour):
            process.charge(3000)
            process.charge(30, "tokens")

    def tell_worker(self, name: str, amount: int | None) -> None:
        if name == "set_limit":
            self.worker.tell("memory", "set", "limit", amount)
        else:
            self.worker.tell("memory", name, *([] if amount is None else [amount]))

    def worker_is_forgotten(self) -> bool:
        return self.worker.pid not in [line.pid for line in self.group.holders()]

    def expect_all_in_order(self) -> None:
        """The sums are right, the other worker can charge, and the checker finds nothing."""
        held = {"memory": self.neighbour.held, "tokens": self.neighbour.get("held", "tokens")}
        self.neighbour.charge(AMOUNT)
        self.neighbour.uncharge(AMOUNT)
        for resource, mine in held.items():
            stat = self.group.stat(resource)
            holders = self.group.holders(resource)
            assert stat["usage"] == sum(line.held for line in holders)
            assert stat["usage"] <= stat["limit"]
            assert self.beside.number("usage", resource) == mine
            assert self.mount.root.number("usage", resource) == mine + stat["usage"]
        assert self.mount.region is not None
        with Tree.open(self.mount.region) as tree:
            assert tree.check() == []

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.worker, self.neighbour):
            process.kill()
        if self.mount.ended:
            return
        for group in (self.group, self.beside):
            group.remove()


@pytest.fixture
def scene(mount: Mount) -> Iterator[Scene]:
    with Scene(mount) as scene:
        yield scene


def some(cases: list[Any], soak: bool, seed: int) -> list[Any]:
    return cases if soak else random.Random(seed).sample(cases, 2)


def wait_until_stopped(pid: int) -> None:
    eventually(lambda: state(pid) == "T", within=30, what=f"{pid} is stopped")


def test_the_engine_has_every_fault_point_of_these_tests(orders: FaultOrders) -> None:
    places = [place for _, _, place in WORKER] + [place for _, place in DAEMON] + ENDING + ATTACHING + MAKING
    assert [place for place in places if not orders.is_place(place)] == []


def test_a_worker_that_dies_at_a_fault_point_leaves_the_tree_consistent(
    mount: Mount, orders: FaultOrders, seed: int, soak: bool
) -> None:
    for name, amount, place in some(WORKER, soak, seed):
        print(f"{name} {amount}, killed at {place}")
        with Scene(mount) as scene:
            orders.give(scene.worker.pid, signal.SIGKILL, place)
            scene.tell_worker(name, amount)
            assert scene.worker.process.wait(30) == -signal.SIGKILL
            assert orders.carried_out
            eventually(scene.worker_is_forgotten, within=20)
            assert scene.group.usage in ({500, 1500} if name == "give" else {500, 0} if name == "take" else {500})
            scene.expect_all_in_order()


def test_a_worker_that_is_stopped_at_a_fault_point_is_named_in_the_errors_of_others(
    mount: Mount, orders: FaultOrders, seed: int, soak: bool
) -> None:
    for name, amount, place in some(WORKER, soak, seed):
        print(f"{name} {amount}, stopped at {place}")
        with Scene(mount) as scene:
            orders.give(scene.worker.pid, signal.SIGSTOP, place)
            scene.tell_worker(name, amount)
            wait_until_stopped(scene.worker.pid)
            mount.expected_log.append(f"held by process {scene.worker.pid}, which does not run")
            scene.neighbour.tell("memory", "charge", AMOUNT)
            begun = time.monotonic()
            with fails_with(errno.ETIMEDOUT):
                scene.beside.read("usage")
            assert time.monotonic() - begun < 60
            assert f"process {scene.worker.pid}," in mount.log.read_text()
            with pytest.raises(Refused) as refused:
                scene.neighbour.answer()
            assert (refused.value.kind, refused.value.errno) == ("LockTimeout", errno.ETIMEDOUT)
            assert str(scene.worker.pid) in str(refused.value)
            os.kill(scene.worker.pid, signal.SIGCONT)
            scene.worker.answer()
            scene.expect_all_in_order()


def test_another_daemon_takes_over_after_one_dies_at_a_fault_point(
    mount: Mount, orders: FaultOrders, seed: int, soak: bool
) -> None:
    for action, place in some(DAEMON, soak, seed):
        print(f"the daemon is killed at {place}")
        assert mount.daemon is not None
        with Scene(mount) as scene:
            orders.give(mount.daemon.pid, signal.SIGKILL, place)
            with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
                action(scene.group)
            assert mount.daemon.wait(30) == -signal.SIGKILL
            assert orders.carried_out
            scene.worker.charge(AMOUNT)
            scene.worker.uncharge(AMOUNT)
            mount.start()
            scene.worker.charge(7)
            assert scene.worker.held == 3007
            assert scene.group.stat()["common"] in (500, 1200, 0)
            scene.expect_all_in_order()


def test_another_daemon_goes_on_after_one_dies_while_it_reaps_a_worker(
    mount: Mount, orders: FaultOrders, seed: int, soak: bool
) -> None:
    for place in some(ENDING, soak, seed):
        print(f"the daemon is killed at {place}")
        assert mount.daemon is not None
        with Scene(mount) as scene:
            orders.give(mount.daemon.pid, signal.SIGKILL, place)
            scene.worker.kill()
            assert mount.daemon.wait(30) == -signal.SIGKILL
            scene.neighbour.charge(AMOUNT)
            scene.neighbour.uncharge(AMOUNT)
            mount.start()
            assert scene.worker_is_forgotten()
            assert scene.group.usage == 500
            scene.expect_all_in_order()


def test_a_daemon_that_is_stopped_at_a_fault_point_is_named_to_workers_and_goes_on(
    mount: Mount, orders: FaultOrders, scene: Scene
) -> None:
    assert mount.daemon is not None
    orders.give(mount.daemon.pid, signal.SIGSTOP, "link_group/among_siblings")
    maker = threading.Thread(target=scene.group.mkdir, args=["new"])
    maker.start()
    wait_until_stopped(mount.daemon.pid)
    with pytest.raises(Refused) as refused:
        scene.worker.charge(AMOUNT)
    assert refused.value.kind == "LockTimeout"
    assert str(mount.daemon.pid) in str(refused.value)
    os.kill(mount.daemon.pid, signal.SIGCONT)
    maker.join(30)
    assert (scene.group / "new").is_dir()
    scene.worker.charge(AMOUNT)
    scene.expect_all_in_order()


def test_an_attach_that_dies_at_a_fault_point_leaves_no_holder_behind(
    mount: Mount, orders: FaultOrders, scene: Scene, seed: int, soak: bool
) -> None:
    for place in some(ATTACHING, soak, seed):
        print(f"killed at {place}")
        orders.give(ANYBODY, signal.SIGKILL, place)
        code = "import fsmount, sys; fsmount.attach(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, str(scene.group.path)], check=False)
        assert done.returncode == -signal.SIGKILL
        # the worker and the group itself
        eventually(lambda: len(scene.group.holders()) == 2, within=20)
        scene.expect_all_in_order()


@pytest.mark.parametrize("place", MAKING)
def test_a_mount_works_after_one_that_died_while_it_made_the_region(orders: FaultOrders, place: str) -> None:
    mount = Mount()
    with contextlib.closing(_Destroyed(mount)):
        orders.give(ANYBODY, signal.SIGKILL, place)
        subprocess.run(
            [sys.executable, "-m", "fsmount", "mount", str(mount.path), "-f"], capture_output=True, check=False
        )
        assert orders.carried_out
        mount.start()
        group = mount.root.mkdir("group")
        group.charge(5)
        assert mount.root.usage == 5
        group.remove()
        mount.umount()


class _Destroyed:
    def __init__(self, mount: Mount) -> None:
        self.close = mount.destroy
