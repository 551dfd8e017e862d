"""The daemon watches every holder: unannounced holders, older holders, and more holders than descriptors."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsmount import Tree
from tests.attach.scenes import PRELUDE, Program
from tests.mounts import GroupFiles, Mount, eventually, mounted

OPEN = "tree = Tree.open(where); tree.root['memory'].charge(100); say('charged'); wait()"
#: Many processes that hold 1 each; the output is their pids. A child of each has all its descriptors.
MANY = """
for _ in range(int(sys.argv[3])):
    reader, writer = os.pipe()
    if os.fork() == 0:
        memory = fsmount.attach(where)['memory'] if how == 'memory' else Tree.open(where).root['memory']
        memory.charge(1)
        if ctypes.CDLL(None).fork() == 0:
            os.close(writer)
        else:
            say(os.getpid())
            os.close(writer)
        wait()
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
say('done')
wait()
"""


#: A given number of processes. Each attaches and holds 1 at the same time; all end with the first.
AT_ONCE = """
for _ in range(int(sys.argv[3])):
    if os.fork() == 0:
        Tree.open(where).root['memory'].charge(1)
        say(os.getpid())
        wait()
        os._exit(0)
wait()
"""
#: A given number of processes that hold 1 each through a lease file.
LENT = """
for _ in range(int(sys.argv[3])):
    if os.fork() == 0:
        os.write(os.open(where + "/memory.lease", os.O_RDWR), b"1")
        say(os.getpid())
        wait()
        os._exit(0)
wait()
"""


@contextmanager
def running(program: str, *arguments: object) -> Iterator[Program]:
    process = Program(program, *arguments)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def moved(mount: Mount) -> Iterator[GroupFiles]:
    """In the block, the mount point in the region's header does not lead to the mount."""
    there = mount.directory.with_name(f"{mount.directory.name}-moved")
    mount.directory.rename(there)
    try:
        yield GroupFiles(there / mount.path.name)
    finally:
        there.rename(mount.directory)


def is_at_once(condition: Callable[[], bool]) -> None:
    """
    The condition holds before the daemon's next look at all processes, which comes every five seconds.  A number of
    answers bounds the wait, and not a time, since a busy machine delays the daemon.
    """
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.001)
    pytest.fail("not by an event")


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


# ---- unannounced holders ----------------------------------------------------------------------------


def test_a_holder_that_cannot_reach_the_mount_is_watched_too() -> None:
    with mounted() as mount, moved(mount) as root:
        for _ in range(3):
            with running(OPEN, "region", mount.region) as program:
                assert program.line() == "charged"
                assert root.usage == 100
                program.kill()
                is_at_once(lambda: root.usage == 0)


def test_a_new_daemon_watches_older_holders(tmp_path: Path) -> None:
    path = tmp_path / "region"
    Tree.create(path).close()
    with running(OPEN, "region", path) as before, running(OPEN, "region", path) as dead:
        assert (before.line(), dead.line()) == ("charged", "charged")
        dead.kill()
        with mounted("--region", str(path)) as mount:
            assert mount.root.usage == 100
            with running(OPEN, "region", path) as after:
                assert after.line() == "charged"
                assert mount.root.usage == 200
                after.kill()
                is_at_once(lambda: mount.root.usage == 100)
            before.kill()
            is_at_once(lambda: mount.root.usage == 0)


def test_the_next_daemon_watches_processes_that_attached_under_a_dead_one() -> None:
    program = "fsmount.attach(where)['memory'].charge(100); say('charged')\nif ctypes.CDLL(None).fork(): wait()\nwait()"
    with mounted() as mount, running(program, "memory", mount.path) as process:
        assert process.line() == "charged"
        mount.kill()
        mount.start()
        assert mount.root.usage == 100
        process.kill()
        is_at_once(lambda: mount.root.usage == 0)


def test_a_process_that_outlives_its_holder_is_no_problem() -> None:
    with (
        mounted() as mount,
        running(
            "for _ in range(50):\n"
            "    with fsmount.attach(where) as group: group['memory'].charge(1)\n"
            "say('done'); wait()",
            "memory",
            mount.path,
        ) as program,
    ):
        assert program.line() == "done"
        assert mount.root.usage == 0
        program.kill()


# ---- with few descriptors ----------------------------------------------------------------------------


def let_it_open(mount: Mount, files: int) -> None:
    assert mount.daemon is not None
    resource.prlimit(mount.daemon.pid, resource.RLIMIT_NOFILE, (files, files))


def test_deaths_are_events_also_without_a_descriptor_for_each_holder() -> None:
    """A child of each process has all its descriptors."""
    with mounted() as mount:
        let_it_open(mount, 140)
        with running(MANY, "memory", mount.path, 40) as program:
            pids = [int(program.line()) for _ in range(40)]
            assert program.line() == "done"
            assert mount.root.usage == 40
            kill_all(pids[:20])
            is_at_once(lambda: mount.root.usage == 20)
            kill_all(pids[20:])
            is_at_once(lambda: mount.root.usage == 0)


def test_however_many_attach_at_once_the_descriptors_are_enough() -> None:
    """The daemon learns of all holders before it reads their control channels."""
    with mounted() as mount:
        assert mount.daemon is not None and mount.region is not None
        let_it_open(mount, 140)
        with Tree.open(mount.region) as tree, running(AT_ONCE, "region", mount.region, 40) as program:
            mount.daemon.send_signal(signal.SIGSTOP)
            eventually(lambda: len(tree.holders()) == 40, what="40 holders")
            mount.daemon.send_signal(signal.SIGCONT)
            pids = [int(program.line()) for _ in range(40)]
            assert mount.root.usage == 40
            kill_all(pids)
            is_at_once(lambda: mount.root.usage == 0)


def test_only_holders_without_a_descriptor_and_without_the_mount_are_released_late() -> None:
    with mounted() as mount, moved(mount) as root:
        mount.expected_log.append("too few descriptors")
        let_it_open(mount, 140)
        with running(MANY, "region", mount.region, 20) as program:
            pids = [int(program.line()) for _ in range(20)]
            assert program.line() == "done"
            assert root.usage == 20
            kill_all(pids)
            eventually(lambda: root.usage == 0)
        assert mount.daemon is not None
        assert len(os.listdir(f"/proc/{mount.daemon.pid}/fd")) < 140


def test_older_leases_without_a_descriptor_are_released_late_and_the_log_says_why() -> None:
    with mounted() as mount, running(LENT, "files", mount.path, 30) as program:
        pids = [int(program.line()) for _ in range(30)]
        mount.kill()
        mount.start(under=["prlimit", "--nofile=140:140"])
        kill_all(pids[:13])  # one more than are watched
        eventually(lambda: mount.root.usage == 17)
        mount.expected_log.append("too few descriptors")
        eventually(lambda: "too few descriptors" in mount.log.read_text())


# ---- reused pids ------------------------------------------------------------------------------------

#: In a pid namespace without other processes.
AGAIN = r"""
def start_time(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19])

def fork_as(pid, after):
    "A child with this pid that starts after a time, in clock ticks, and attaches after a byte of input."
    while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") < after + 2:
        pass
    while True:
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        child = os.fork()
        if child == 0:
            if os.getpid() != pid:
                os._exit(0)
            hold()
        if child == pid:
            assert start_time(pid) > after
            return
        os.waitpid(child, 0)

go, start = os.pipe()
charged, told = os.pipe()

def hold():
    os.read(go, 1)
    group = attach()
    group["memory"].charge(100)
    os.write(told, b"x")
    os.read(go, 1)
    os._exit(0)

def charge():
    os.write(start, b"x")
    os.read(charged, 1)

def end(pid):
    os.kill(pid, 9)
    os.waitpid(pid, 0)

def settles(usage):
    deadline = time.monotonic() + 60
    while read() != usage:
        assert time.monotonic() < deadline, (read(), usage)

def fsmount_(*arguments):
    subprocess.run([sys.executable, "-m", "fsmount", *arguments], check=True)

def read():
    if how == "region":
        return looking.root["memory"].usage
    return int(open(where + "/memory.usage_in_bytes").read())

def server():
    import json
    return json.load(open(where + "/.fsmount"))["server"]
"""
ALONE = """
looking = Tree.create(where)
looking.root.mkdir("group")
victim = os.fork() or hold()
charge()
born = start_time(victim)
end(victim)
assert read() == 100
fork_as(victim, born)
assert looking.reap() == 1 and read() == 0
charge()
assert read() == 100 and [holder.pid for holder in looking.holders()] == [victim]
assert looking.reap() == 0
end(victim)
assert looking.reap() == 1 and read() == 0
say("well")
"""
SERVED = """
fsmount_("mount", where)
victim = os.fork() or hold()
charge()
born = start_time(victim)
daemon = server()
os.kill(daemon, signal.SIGSTOP if sys.argv[3] == "stopped" else signal.SIGKILL)
end(victim)
fork_as(victim, born)
if sys.argv[3] == "stopped":
    os.kill(daemon, signal.SIGCONT)
else:
    fsmount_("mount", where)
settles(0)
charge()
settles(100)
end(victim)
settles(0)
fsmount_("umount", where)
say("well")
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("program", "how", "daemon"),
    [(ALONE, "region", ""), (SERVED, "memory", "stopped"), (SERVED, "memory", "killed")],
    ids=["no daemon", "a stopped daemon", "a killed daemon"],
)
def test_a_reused_pid_is_not_the_old_holder(tmp_path: Path, program: str, how: str, daemon: str) -> None:
    where = tmp_path / "tree"
    if how != "region":
        where.mkdir()
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*command, sys.executable, "-c", PRELUDE + AGAIN + program, how, str(where), daemon],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "unshare failed" in done.stderr or "ns_last_pid" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert (done.stdout, done.stderr) == ("well\n", "")
