"""The end of a process in every way: its charges are released or kept, and no other charge changes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from tests.attach.scenes import Scene, attach_in, forked
from tests.mounts import GroupFiles, Mount, eventually


@pytest.fixture(params=["memory", "files", "region"])
def scene(
    request: pytest.FixtureRequest, mount: Mount, new_group: Callable[[Mount], GroupFiles], tmp_path: Path
) -> Iterator[Scene]:
    if request.param == "region":
        with Tree.create(tmp_path / "region") as tree:
            tree.root.mkdir("group")
            made = Scene("region", tmp_path / "region", tree)
            yield made
            made.no_holder_is_left()
    else:
        made = Scene(request.param, new_group(mount).path)
        yield made
        made.no_holder_is_left()
        made.empty()
        mount.check()


in_memory = pytest.mark.parametrize("scene", ["memory", "region"], indirect=True)
mounted_alone = pytest.mark.parametrize("scene", ["memory", "files"], indirect=True)

# ---- its own end ------------------------------------------------------------------------------------

ENDS = {
    "exit": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise RuntimeError",
    "os._exit": "os._exit(3)",
    "abort": "os.abort()",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "exit beside a daemon thread": "threading.Thread(target=wait, daemon=True).start()",
    "os._exit beside a thread": "threading.Thread(target=wait).start(); os._exit(0)",
    "os._exit in a thread": "threading.Thread(target=os._exit, args=(0,)).start(); signal.pause()",
    "the end of the first thread before the others": (
        "threading.Thread(target=lambda: (wait(), os._exit(0))).start(); ctypes.CDLL(None).pthread_exit(None)"
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_charges_of_a_process_are_released_or_kept_whatever_its_end(scene: Scene, end: str) -> None:
    with scene.running(
        "group, kept = attach(), attach('keep')\n"
        "group['memory'].charge(100); kept['memory'].charge(20); say('charged'); wait()\n" + end
    ) as program:
        assert program.line() == "charged"
        scene.stays(120)
        program.go(times=2)
        scene.settles(0, 20)


def test_the_exit_of_a_thread_releases_nothing(scene: Scene) -> None:
    with scene.running(
        "group = attach()\n"
        "def work():\n"
        "    group['memory'].charge(100)\n"
        "    sys.exit()\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start(); thread.join(); say('exited'); wait()"
    ) as program:
        assert program.line() == "exited"
        scene.stays(100)
        program.go()
        scene.settles(0)


@pytest.mark.parametrize("on_exit", ["release", "keep"])
@pytest.mark.parametrize("end", ["os._exit(0)", "", "os.kill(os.getpid(), 9)"], ids=["_exit", "exit", "kill -9"])
def test_threads_that_charge_while_their_process_ends_leave_nothing_behind(
    scene: Scene, end: str, on_exit: str
) -> None:
    with scene.running(
        "memory = attach(sys.argv[3])['memory']\n"
        "memory.charge(100)\n"
        "def work():\n"
        "    while True:\n"
        "        with memory.hold(10): pass\n"
        "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n"
        "say('charging'); wait()\n" + end,
        on_exit,
    ) as program:
        assert program.line() == "charging"
        program.go()
        program.process.wait(60)
    kept = [100 + 10 * inside for inside in range(5)] if on_exit == "keep" else [0]
    eventually(lambda: scene.held()[0] == 0 and scene.held()[1] in kept)


@mounted_alone
@pytest.mark.parametrize("where", ["", "thread"])
def test_exec_releases_the_charges_of_the_old_program(scene: Scene, where: str) -> None:
    with scene.running(
        "attach()['memory'].charge(100); attach('keep')['memory'].charge(20); say('charged'); wait()\n"
        "new = lambda: os.execv('/bin/cat', ['cat'])\n"
        "threading.Thread(target=new).start() if sys.argv[3:] == ['thread'] else new()\n"
        "signal.pause()",
        *([where] if where else []),
    ) as program:
        assert program.line() == "charged"
        program.go()
        scene.settles(0, 20)
        assert program.process.poll() is None


@pytest.mark.parametrize("scene", ["region"], indirect=True)
def test_without_a_daemon_charges_from_before_exec_are_released_at_the_end_of_the_new_program(scene: Scene) -> None:
    """The process lives, and no process knows that its memory is new."""
    with scene.running("attach()['memory'].charge(100); say('charged'); os.execv('/bin/cat', ['cat'])") as program:
        assert program.line() == "charged"
        scene.stays(100)
        program.kill()
        scene.settles(0)


@in_memory
def test_a_process_that_closes_all_descriptors_goes_on_holding(scene: Scene) -> None:
    with scene.running(
        "memory = attach()['memory']; memory.charge(100); os.closerange(3, 1000); memory.charge(1)\n"
        "say('closed'); wait(); memory.charge(10); say('charged'); wait()"
    ) as program:
        assert program.line() == "closed"
        scene.stays(101)
        program.go()
        assert program.line() == "charged"
        scene.stays(111)
        program.kill()
        scene.settles(0)


def test_an_attachment_that_keeps_and_one_that_releases_end_independently(scene: Scene) -> None:
    with scene.running(
        "first, kept, again = attach(), attach('keep'), attach()\n"
        "first['memory'].charge(1); kept['memory'].charge(20); again['memory'].charge(300)\n"
        "again.close(); say('charged'); wait()"
    ) as program:
        assert program.line() == "charged"
        # A process with one mapping of a region is one holder. It leaves a group with its last attachment there.
        scene.stays(321 if scene.how == "memory" else 21)
        program.kill()
        scene.settles(0, 20)


def test_the_end_of_a_subinterpreter_releases_nothing(scene: Scene) -> None:
    """The holder is the process.  Only one of its interpreters can charge."""
    pytest.importorskip("_xxsubinterpreters")
    with scene.running(
        "import _xxsubinterpreters as interpreters\n"
        "group = attach(); group['memory'].charge(100)\n"
        "other = interpreters.create()\n"
        "try:\n"
        "    interpreters.run_string(other, 'from fsmount import attach')\n"
        "except interpreters.RunFailedError as error:\n"
        "    say(error)\n"
        "interpreters.destroy(other); say('destroyed'); wait(); group['memory'].charge(1); say('charged'); wait()"
    ) as program:
        assert "ImportError" in (said := program.line()) and "interpreter" in said
        assert program.line() == "destroyed"
        scene.stays(100)
        program.go()
        assert program.line() == "charged"
        scene.stays(101)


# ---- fork without exec ------------------------------------------------------------------------------


@pytest.mark.parametrize("touched", [False, True], ids=["", "that charged"])
@pytest.mark.parametrize("how", ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 9)"], ids=["exit", "_exit", "kill"])
def test_the_end_of_a_forked_child_releases_nothing_of_its_parent(scene: Scene, how: str, touched: bool) -> None:
    with scene.running(
        "group = attach(); group['memory'].charge(100)\n"
        "if os.fork() == 0:\n"
        "    say(group['memory'].held)\n"
        "    if sys.argv[3] == 'True': group['memory'].charge(7)\n"
        f"    say('child'); wait(); {how}\n"
        "os.wait(); say('ended'); wait(); group['memory'].charge(1); say('charged'); wait()",
        touched,
    ) as program:
        assert (program.line(), program.line()) == ("0", "child")
        scene.stays(107 if touched else 100)
        program.go()
        assert program.line() == "ended"
        scene.settles(100)
        program.go()
        assert program.line() == "charged"
        scene.stays(101)


@pytest.mark.parametrize("fork", ["os.fork()", "ctypes.CDLL(None).fork()"], ids=["by Python", "behind its back"])
def test_the_end_of_a_parent_releases_its_charges_although_its_child_lives(scene: Scene, fork: str) -> None:
    """A child that Python did not fork has all descriptors of its parent."""
    with scene.running(
        "attach()['memory'].charge(100); attach('keep')['memory'].charge(20)\n"
        f"if {fork} == 0:\n"
        "    say('child'); wait(); say('still here'); wait(); os._exit(0)\n"
        "signal.pause()"
    ) as program:
        assert program.line() == "child"
        scene.stays(120)
        program.kill()
        if scene.how == "files" and "CDLL" in fork:
            scene.stays(120)  # the child has the last descriptor of the lease
        else:
            scene.settles(0, 20)
        program.go()
        assert program.line() == "still here"
        program.go()
        scene.settles(0, 20)


def test_a_process_that_forked_twice_holds_its_own_charges(scene: Scene) -> None:
    with scene.running(
        "group = attach(); group['memory'].charge(100)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        group['memory'].charge(7); say(os.getpid()); wait(); os._exit(0)\n"
        "    os._exit(0)\n"
        "os.wait(); wait()"
    ) as program:
        assert int(program.line()) != program.pid
        scene.stays(107)
        program.kill()
        scene.settles(7)
        program.go()
        scene.settles(0)


@pytest.mark.parametrize("close_fds", [True, False])
def test_a_started_program_holds_nothing_and_its_end_releases_nothing(scene: Scene, close_fds: bool) -> None:
    with scene.running(
        "group = attach(); group['memory'].charge(100)\n"
        "subprocess.run(['true'], check=True, close_fds=sys.argv[3] == 'True')\n"
        "subprocess.Popen(['cat'], close_fds=sys.argv[3] == 'True')\n"
        "say('started'); signal.pause()",
        close_fds,
    ) as program:
        assert program.line() == "started"
        scene.stays(100)
        program.kill()
        scene.settles(0)  # although cat lives


# ---- multiprocessing --------------------------------------------------------------------------------


def hold_in_child(how: str, where: str, amount: int, ready: Connection, end: str) -> None:
    attach_in(how, where)["memory"].charge(amount)
    ready.send(os.getpid())
    if end == "os._exit":
        os._exit(0)
    while end in ("terminate", "kill"):
        time.sleep(60)


def charge_in_worker(how: str, where: str, amount: int) -> int:
    attach_in(how, where)["memory"].charge(amount)
    return os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_hold_their_own_until_they_end(scene: Scene, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with scene.attach() as group:
        group["memory"].charge(100)
        for end in ("return", "os._exit", "terminate", "kill"):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=hold_in_child, args=(scene.how, str(scene.where), 7, theirs, end))
            child.start()
            assert ours.recv() == child.pid
            if end in ("terminate", "kill"):
                scene.stays(107)
                getattr(child, end)()
            child.join(60)
            scene.settles(100)
            for one in (child, ours, theirs):
                one.close()
        assert group["memory"].held == 100
    scene.settles(0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_workers_of_a_pool_hold_until_it_is_terminated(scene: Scene, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with scene.attach() as group:
        group["memory"].charge(100)
        with context.Pool(2) as pool:
            pool.starmap(charge_in_worker, [(scene.how, str(scene.where), 1)] * 4, 1)
            scene.stays(104)
        pool.join()
        scene.settles(100)


def test_the_workers_of_an_executor_hold_until_it_is_shut_down_or_breaks(scene: Scene) -> None:
    context: Any = multiprocessing.get_context("fork")
    task = (scene.how, str(scene.where), 7)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        executor.submit(charge_in_worker, *task).result(60)
        scene.stays(7)
    scene.settles(0)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        os.kill(executor.submit(charge_in_worker, *task).result(60), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            executor.submit(charge_in_worker, *task).result(60)
        scene.settles(0)


# ---- leases -----------------------------------------------------------------------------------------

LEASE = """
lease = os.open(where + '/memory.lease', os.O_RDWR)
os.write(lease, b'100')
"""
leases = pytest.mark.parametrize("scene", ["files"], indirect=True)


@leases
@pytest.mark.parametrize("end", ["os.close(lease)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_lease_that_a_forked_child_shares_outlives_its_opener(scene: Scene, end: str) -> None:
    with scene.running(
        LEASE
        + "if os.fork() == 0:\n"
        + "    say('child'); wait(); os.write(lease, b'+1'); say('charged'); wait(); os._exit(0)\n"
        + f"say('parent'); {end}\n"
        + "signal.pause()"
    ) as program:
        assert {program.line(), program.line()} == {"child", "parent"}
        if "close" not in end:
            program.process.wait(60)
        scene.stays(100)
        program.go()
        assert program.line() == "charged"
        scene.stays(101)
        program.go()
        scene.settles(0)


@leases
def test_a_program_that_inherits_a_lease_keeps_it_open(scene: Scene) -> None:
    with scene.running(
        LEASE + "os.set_inheritable(lease, True); say('opened'); os.execv('/bin/cat', ['cat'])"
    ) as program:
        assert program.line() == "opened"
        program.go()
        assert program.process.stdout is not None
        assert program.process.stdout.read(1) == b"x"  # cat runs
        scene.stays(100)
        program.kill()
        scene.settles(0)


@leases
def test_a_lease_passed_to_another_process_outlives_its_opener(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiver = os.fork()
        if receiver == 0:
            try:
                ours.close()
                _, [lease], _, _ = socket.recv_fds(theirs, 1, 1)
                os.write(lease, b"+1")
                theirs.send(b"x")
                theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()
        code = (
            "import os, socket, sys\n"
            "lease = os.open(sys.argv[1], os.O_RDWR)\n"
            "os.write(lease, b'100')\n"
            "socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b'x'], [lease])\n"
            "os.kill(os.getpid(), 9)\n"
        )
        command = [sys.executable, "-c", code, str(scene.where / "memory.lease"), str(ours.fileno())]
        assert subprocess.run(command, pass_fds=[ours.fileno()], check=False).returncode == -9
        assert ours.recv(1) == b"x"
        scene.stays(101)
    assert forked(receiver) == 0
    scene.settles(0)


@leases
def test_all_leases_of_a_killed_process_are_released(scene: Scene) -> None:
    with scene.running("for _ in range(200):\n" + LEASE.replace("\n", "\n    ") + "\nsay('opened'); wait()") as program:
        assert program.line() == "opened"
        scene.stays(20_000)
        program.kill()
        scene.settles(0)
