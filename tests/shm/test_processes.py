"""Counters in several threads and processes: forked, spawned, ended and killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import fsmount
from fsmount import OnExit, Tree
from fsmount.shm import Counter, Group, set_patience
from tests.companions import companion
from tests.shm.conftest import in_fork, run_python

HOLD = """if True:
    import sys, fsmount
    tree = fsmount.Tree.open(sys.argv[1])
    group = tree.root.child("web").attach(on_exit=sys.argv[2])
    group["memory"].charge(100)
    print("charged", flush=True)
    sys.stdin.read()
"""


@contextmanager
def python(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python that runs a program. The block begins after its first line of output."""
    command = companion(sys.executable, "-c", program, *arguments)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 30)[0]
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


# ---- fork -----------------------------------------------------------------------------------------


def test_a_forked_child_holds_nothing_and_the_parent_what_it_held(tree: Tree, memory: Counter) -> None:
    memory.charge(100)

    def child() -> tuple[int, int, int, int]:
        before = memory.held
        memory.charge(7)
        return before, memory.held, memory.usage, len(tree.holders())

    assert in_fork(child) == (0, 7, 107, 2)
    assert tree.reap() == 1
    assert (memory.held, memory.usage) == (100, 100)
    memory.uncharge(100)


def test_a_forked_child_uncharges_nothing_of_its_parent(memory: Counter) -> None:
    memory.charge(100)
    with pytest.raises(fsmount.NotHeld) as caught:
        in_fork(lambda: memory.uncharge(1))
    assert caught.value.held == 0
    assert memory.held == 100


def test_an_attachment_attaches_again_in_a_forked_child(tree: Tree, group: Group) -> None:
    with group.attach(on_exit="keep") as attached:
        attached["memory"].charge(100)

        def child() -> tuple[int, int]:
            with attached:
                attached["memory"].charge(7)
                return attached["memory"].held, attached["memory"].usage

        assert in_fork(child) == (7, 107)
        assert (attached["memory"].held, attached["memory"].usage) == (100, 107)
        assert attached["memory"].stat()["common"] == 7


def test_a_child_that_is_forked_inside_a_hold_leaves_it_to_its_parent(memory: Counter) -> None:
    def child() -> tuple[int, int]:
        hold.__exit__(None, None, None)
        return memory.held, memory.usage

    hold = memory.hold(100)
    with hold:
        assert in_fork(child) == (0, 100)
        assert memory.held == 100
    assert memory.usage == 0


def test_a_grandchild_holds_nothing_of_its_ancestors(tree: Tree, memory: Counter) -> None:
    memory.charge(1)

    def child() -> list[int]:
        memory.charge(10)
        return [memory.held, *in_fork(grandchild)]

    def grandchild() -> list[int]:
        before = memory.held
        memory.charge(100)
        return [before, memory.held, memory.usage]

    assert in_fork(child) == [10, 0, 100, 111]
    assert tree.reap() == 2
    assert memory.usage == 1


def test_a_child_that_closes_the_tree_releases_nothing_of_its_parent(tree: Tree, memory: Counter) -> None:
    memory.charge(5)

    def child() -> None:
        memory.charge(6)
        tree.close()

    in_fork(child)
    assert (memory.held, memory.usage) == (5, 5)


def test_a_fork_while_threads_charge_harms_neither_side(tree: Tree, memory: Counter) -> None:
    memory.limit = 50  # near: many of the charges wait for the lock
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            if memory.try_charge(10):
                memory.uncharge(10)

    def child() -> int:
        memory.charge_nofail(3)
        memory.group.close()
        return 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [in_fork(child) for _ in range(30)] == [1] * 30
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (memory.held, memory.usage) == (0, 0)


# ---- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_exit", "left"), [("release", 0), ("keep", 100)])
def test_a_process_that_ends_is_no_holder_any_more(tree: Tree, group: Group, on_exit: OnExit, left: int) -> None:
    with python(HOLD, tree.path, on_exit) as process:
        assert group.parent is not None
        memory = group.parent["memory"]
        assert (memory.usage, len(tree.holders())) == (100, 1)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert (memory.usage, memory.stat()["common"], tree.holders()) == (left, left, [])


@pytest.mark.parametrize(("on_exit", "left"), [("release", 0), ("keep", 100)])
def test_another_process_releases_the_charges_of_a_killed_one(
    tree: Tree, group: Group, on_exit: OnExit, left: int
) -> None:
    with python(HOLD, tree.path, on_exit) as process:
        process.kill()
        process.wait()
        assert tree.reap() == 1
        assert group.parent is not None
        memory = group.parent["memory"]
        assert (memory.usage, memory.stat()["common"], tree.holders()) == (left, left, [])


def test_charges_of_a_killed_process_refuse_no_charge(tree: Tree, group: Group) -> None:
    tree.root["memory"].limit = 100
    with python(HOLD, tree.path, "release") as process:
        assert not group["memory"].try_charge(1)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while not group["memory"].try_charge(100):
            assert time.monotonic() < deadline


def test_a_group_of_a_killed_process_can_be_removed(tree: Tree, group: Group) -> None:
    with python(HOLD, tree.path, "release") as process:
        group.remove()
        process.kill()
        process.wait()
        tree.root.rmdir("web")


def charge_in_child(path: str, amount: int) -> None:
    tree = Tree.open(path)
    tree.root["memory"].charge(amount)
    tree.root.attach(on_exit="keep")["tokens"].charge(1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_ends_cleanly(tree: Tree, method: str) -> None:
    tree.root["memory"].charge(1)
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=charge_in_child, args=(tree.path, 10)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tree.root["memory"].usage, tree.root["tokens"].usage) == (1, 2)
    assert [holder.pid for holder in tree.holders()] == [os.getpid()]


def test_an_inherited_tree_ends_cleanly_in_a_child_of_multiprocessing(tree: Tree, memory: Counter) -> None:
    process = multiprocessing.get_context("fork").Process(target=memory.charge, args=(10,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (memory.usage, tree.holders()) == (0, [])


def test_limit_exceeded_reaches_the_parent_of_a_pool(tree: Tree) -> None:
    tree.root["memory"].limit = 5
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(fsmount.LimitExceeded) as caught:
            pool.apply(charge_in_child, (tree.path, 6))
        pool.close()
        pool.join()
    assert (caught.value.group, caught.value.requested, caught.value.limit) == ("/", 6, 5)


# ---- at once ----------------------------------------------------------------------------------------


def test_threads_charge_through_one_counter(tree: Tree, memory: Counter, seed: int) -> None:
    tree.root["memory"].limit = 5000

    def work(number: int) -> int:
        chance = random.Random(seed + number)
        held = 0
        for _ in range(3000):
            amount = chance.randrange(1000)
            if chance.random() < 0.5:
                held += amount if memory.try_charge(amount) else 0
            elif held >= amount:
                memory.uncharge(amount)
                held -= amount
        return held

    with ThreadPoolExecutor(4) as threads:
        held = sum(threads.map(work, range(4)))
    assert memory.held == memory.usage == tree.root["memory"].usage == held <= 5000


def test_a_group_may_be_closed_while_threads_charge_it(tree: Tree, group: Group) -> None:
    group["memory"].limit = 100
    charged = [0, 0, 0]
    finished = threading.Event()
    current = [group.attach()]

    def work(number: int) -> None:
        while not finished.is_set():
            attached = current[0]
            counter = attached["memory"]
            try:
                for _ in range(100):
                    if counter.try_charge(30):
                        charged[number] += 1
                        counter.uncharge(30)
            except ValueError:
                assert attached.closed
            except fsmount.NotHeld:  # closed, and attached again, between charge and uncharge
                pass

    with ThreadPoolExecutor(3) as threads:
        workers = [threads.submit(work, number) for number in range(3)]
        try:
            for n in itertools.count():
                old = current[0]
                if n % 10 == 0:  # ends the holder, which still has the charges of closed attachments
                    old.close()
                current[0] = group.attach()
                old.close()
                if (n > 100 and all(charged)) or any(worker.done() for worker in workers):
                    break
        finally:
            finished.set()
            current[0].close()
        for worker in workers:
            worker.result(60)
    assert all(charged)
    assert group["memory"].usage == 0
    assert tree.holders() == []


def test_a_tree_may_be_closed_while_threads_charge_it(tree: Tree) -> None:
    for n in range(20):
        other = Tree.open(tree.path)
        memory = other.root.mkdir(f"web-{n}")["memory"]
        memory.limit = 100
        started = threading.Barrier(4)

        def work(memory: Counter = memory, started: threading.Barrier = started) -> None:
            started.wait()
            try:
                while True:
                    if memory.try_charge(60):
                        memory.uncharge(60)
            except fsmount.TreeGone:
                pass

        with ThreadPoolExecutor(3) as threads:
            workers = [threads.submit(work) for _ in range(3)]
            started.wait()
            other.close()
            for worker in workers:
                worker.result(60)
        assert (tree.root["memory"].usage, tree.holders()) == (0, [])


WORK = """if True:
    import random, sys, fsmount
    chance = random.Random(int(sys.argv[2]))
    with fsmount.Tree.open(sys.argv[1]) as tree, tree.root.child("web").attach(on_exit="keep") as group:
        memory = group["memory"]
        for _ in range(3000):
            amount = chance.randrange(1, 500)
            if chance.random() < 0.6:
                memory.try_charge(amount)
            elif memory.held >= amount:
                memory.uncharge(amount)
            assert memory.usage <= 10000
        print(memory.held)
"""


def test_processes_charge_one_group_within_its_limit(tree: Tree, group: Group, seed: int) -> None:
    assert group.parent is not None
    web = group.parent["memory"]
    web.limit = 10000
    workers = [
        subprocess.Popen([sys.executable, "-c", WORK, tree.path, str(seed + n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    held = []
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        held.append(int(output))
    assert web.usage == web.stat()["common"] == sum(held)


# ---- the lock ---------------------------------------------------------------------------------------

REPAIR = """if True:
    import sys, fsmount
    tree = fsmount.Tree.open(sys.argv[1])
    print("repairing", flush=True)
    while True:
        tree.region.repair()  # has the lock nearly all the time
"""


def test_a_stopped_process_that_has_the_lock_is_named(tree: Tree) -> None:
    for n in range(500):
        tree.root.mkdir(f"{n}")
    set_patience(0.05)
    try:
        with python(REPAIR, tree.path) as process:
            deadline = time.monotonic() + 30
            while True:
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                try:
                    tree.root["memory"].usage  # noqa: B018
                except fsmount.LockTimeout as error:
                    caught = error
                    break
                assert time.monotonic() < deadline
                process.send_signal(signal.SIGCONT)
            assert isinstance(caught, TimeoutError)
            assert (caught.pid, caught.region) == (process.pid, tree.path)
            assert str(process.pid) in str(caught)
            with pytest.raises(fsmount.LockTimeout):
                tree.root.mkdir("web")
            with pytest.raises(fsmount.LockTimeout):
                tree.root["memory"].charge(1)
            process.kill()
            process.wait()
            assert tree.root["memory"].usage == 0  # the lock of a dead process is everybody's
    finally:
        set_patience(3)


def test_a_process_that_holds_ends_without_a_message(tree: Tree) -> None:
    program = """if True:
        import sys, threading, fsmount
        tree = fsmount.Tree.open(sys.argv[1])
        tree.root["memory"].charge(5)
        group = tree.root.attach(on_exit="keep")
        group["memory"].charge(6)
        unnamed = fsmount.Tree.create()
        unnamed.root["memory"].charge(7)
    """
    assert run_python(program, tree.path) == ""
    assert (tree.root["memory"].usage, tree.holders()) == (6, [])
