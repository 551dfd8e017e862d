"""fsmount umount of a served, held, busy, stale or foreign mount."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.place import Place, has_ended, refused, run, run_here
from tests.holder_process import HolderProcess
from tests.mounts import AS_ROOT, GroupFiles, eventually

pytestmark = pytest.mark.any_user


def test_umount_returns_after_the_end_of_mount_daemon_and_region(place: Place) -> None:
    place.mount()
    pid, region = place.daemon, place.region
    assert region is not None and region.exists()
    place.umount()
    assert has_ended(pid)
    assert not place.mounts
    assert not region.exists()


@pytest.mark.parametrize("name", ["tree", "missing", "/proc"])
def test_umount_refuses_a_path_without_an_fsmount_mount(place: Place, name: str) -> None:
    path = place.directory / name
    text = refused(run_here("umount", path), path)
    assert (
        text
        == {
            "tree": "not an fsmount mount: nothing to do",
            "missing": "there is no such directory",
            "/proc": "not an fsmount mount but of type proc: use umount",
        }[name]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["mount", ""],
        ["umount", ""],
        ["umount", "--keep", ""],
        ["umount", "--stale", ""],
        ["doctor", ""],
        ["save", "", "-"],
        ["exporter", ""],
        ["mount", ".", "--region", ""],
        ["mount", ".", "--config", ""],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_not_the_current_directory(place: Place, words: list[str]) -> None:
    done = run_here(*words, cwd=place.path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "empty name" in done.stderr and "Traceback" not in done.stderr
    assert not place.mounts


@pytest.mark.user
def test_a_user_can_unmount_a_mount_whose_mode_excludes_that_user(place: Place) -> None:
    place.mount()
    place.path.chmod(0)
    assert refused(run_here("umount", place.path, "--keep"), place.path).endswith("chmod u+x it first")
    place.umount()
    assert not place.mounts


# ---- live holders


def test_umount_names_live_holders_and_changes_nothing(place: Place) -> None:
    place.mount()
    processes = [HolderProcess(place.path) for _ in range(7)]
    for process in processes:
        process.charge(10)
    text = refused(run_here("umount", place.path), place.path)
    command = Path(f"/proc/{processes[0].pid}/comm").read_text().strip()
    five = ", ".join(f"{command} (pid {pid})" for pid in sorted(process.pid for process in processes)[:5])
    assert text == (
        f"busy: charged by {five} and 2 more; end them, or leave the counters to the next mount with --keep"
    )
    assert place.root.usage == 70
    for process in processes:
        process.charge(1)
        process.end()
    assert place.root.usage == 0
    place.umount()


def test_an_open_lease_is_a_live_holder(place: Place) -> None:
    place.mount()
    with place.root.lease() as lease:
        lease.write("5")
        text = refused(run_here("umount", place.path), place.path)
        assert f"(pid {os.getpid()})" in text and text.startswith("busy: charged by ")
    eventually(lambda: place.root.usage == 0)
    place.umount()


#: Attaches, forks, prints a line and exits. The child charges after a line of input.
PARENT = """
import os, sys
import fsmount
group = fsmount.attach(sys.argv[1], transport="memory")
group["memory"].charge(1)
if os.fork() == 0:
    sys.stdin.readline()
    try:
        group["memory"].charge(1)
    except OSError as error:
        print(error, flush=True)
    os._exit(0)
group.close()
print("up", flush=True)
os._exit(0)
"""


def test_a_forked_child_cannot_charge_in_a_removed_tree(place: Place) -> None:
    """The child becomes a holder with its first charge, so umount does not wait for it."""
    place.mount()
    command = [sys.executable, "-c", PARENT, str(place.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.wait()
        region = place.region
        place.umount()
        parent.stdin.write("\n")
        parent.stdin.flush()
        error = parent.stdout.read()
    assert error == f"[Errno 107] it was unmounted, and its counters were removed: '{region}'\n"


# ---- open files


def test_umount_names_a_command_that_fsmount_run_started(place: Place) -> None:
    place.mount()
    words = ["run", "-g", str(place.path), "-r", "memory=1", "--", "sleep", "60"]
    with subprocess.Popen([sys.executable, "-m", "fsmount", *words]) as wrapper:
        eventually(lambda: any(line.command == "lease:sleep" for line in place.root.holders()))
        (pid,) = [line.pid for line in place.root.holders()]
        assert refused(run_here("umount", place.path), place.path).startswith(f"busy: charged by sleep (pid {pid});")
        wrapper.terminate()
    place.umount()


def test_umount_names_the_processes_that_keep_a_mount_busy(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], cwd=group.path, stdin=subprocess.PIPE)
    try:
        text = refused(run_here("umount", place.path), place.path)
        assert text.startswith("busy: ")
        assert f"(pid {sleeper.pid}) has its current directory there; end them, or have them leave" in text
    finally:
        assert sleeper.stdin is not None
        sleeper.stdin.close()
        sleeper.wait()
    with group.file("stat").open():
        assert f"(pid {os.getpid()}) has a file open there" in refused(run("umount", place.path), place.path)
    place.root.charge(1)
    place.umount()


@pytest.mark.root  # fusermount3 runs as root, and FUSE admits only the user to a mount
def test_umount_names_a_mount_inside_the_tree(place: Place) -> None:
    place.mount()
    inner = place.root.mkdir("inner").path
    done = run_here("mount", inner)
    assert (done.returncode, done.stderr) == (0, "")
    place.daemons.add(json.loads((inner / ".fsmount").read_bytes())["server"])
    assert refused(run_here("umount", place.path), place.path) == f"busy: {inner} is mounted in it; unmount that first"
    done = run_here("umount", inner)
    assert (done.returncode, done.stderr) == (0, "")
    place.umount()


# ---- keep


def test_keep_leaves_charges_groups_and_holders_to_the_next_mount(place: Place) -> None:
    place.mount("--resource", "memory", "--resource", "tokens:count")
    group = place.root.mkdir("group", 0o700)
    group.set_limit(1000)
    group.charge(300)
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(200)
        pid = place.daemon
        place.umount("--keep")
        assert has_ended(pid) and not place.mounts and os.listdir(place.path) == []
        process.charge(100)
        place.mount()
        assert (group.usage, group.limit, group.path.stat().st_mode & 0o777) == (600, 1000, 0o700)
        assert "tokens.usage" in os.listdir(group.path)
        assert process.pid in [line.pid for line in group.holders()]
        process.kill()
        eventually(lambda: group.usage == 300)
    group.uncharge(300)
    place.umount()


def test_keep_succeeds_again_and_again(place: Place) -> None:
    for number in range(8):
        place.mount()
        place.root.charge(1)
        assert place.root.usage == number + 1
        place.umount("--keep")
    place.mount()
    place.umount()


def test_keep_unmounts_in_spite_of_open_files(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    with place.root.file("stat").open():
        place.umount("--keep")
    place.mount()
    assert place.root.usage == 5
    place.umount()


def test_keep_refuses_a_read_only_mount(place: Place) -> None:
    place.mount("-o", "ro")
    assert refused(run_here("umount", place.path, "--keep"), place.path).startswith("mounted read-only")
    place.umount()


# ---- stale mounts and stopped daemons


def test_umount_removes_a_stale_mount_and_its_region(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    place.signal(signal.SIGKILL)
    assert place.mounts and place.region is not None
    place.umount()
    assert not place.mounts and place.region is None


def test_keep_of_a_stale_mount_leaves_the_region(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    place.signal(signal.SIGKILL)
    place.umount("--keep")
    assert not place.mounts
    place.mount()
    assert place.root.usage == 5
    place.umount()


def test_umount_of_a_stale_mount_keeps_a_region_that_another_mount_serves(place: Place, other_place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    place.root.charge(5)
    place.signal(signal.SIGKILL)
    other_place.mount("--region", region)
    place.umount()
    assert not place.mounts and other_place.root.usage == 5
    other_place.umount()
    assert not region.exists()


def test_umount_leaves_a_mount_that_takes_the_region_over_meanwhile(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    place.signal(signal.SIGKILL)
    with stopped_before_it_unmounts(place, "--keep") as resume:
        mounting = subprocess.Popen([sys.executable, "-m", "fsmount", "mount", str(place.path)])
        eventually(
            lambda: mounting.poll() is not None or waits_for_the_lock(place), what="the mount, or its wait for the lock"
        )
        resume()
    assert mounting.wait(20) == 0
    place.daemons.add(place.daemon)
    assert (place.root.usage, len(place.mounts)) == (5, 1)
    place.umount()


@contextlib.contextmanager
def stopped_before_it_unmounts(place: Place, option: str) -> Iterator[Callable[[], None]]:
    """fsmount umount, stopped while it has the region lock; yields a function that resumes it."""
    stopped = stopped_as_root if AS_ROOT else stopped_as_user
    with stopped(place, [sys.executable, "-m", "fsmount", "umount", option, str(place.path)]) as resume:
        yield resume


@contextlib.contextmanager
def stopped_as_root(place: Place, command: list[str]) -> Iterator[Callable[[], None]]:
    log = place.directory / "log"
    log.touch()
    strace = ["strace", "-DD", "-qq", "-o", str(log), "-e", "trace=flock", "-e", "inject=flock:signal=STOP:when=1"]
    with subprocess.Popen([*strace, *command]) as unmounting:
        eventually(lambda: "stopped by SIGSTOP" in log.read_text(), what="umount")
        yield lambda: os.kill(unmounting.pid, signal.SIGCONT)
        assert unmounting.wait(60) == 0


@contextlib.contextmanager
def stopped_as_user(place: Place, command: list[str]) -> Iterator[Callable[[], None]]:
    program = shutil.which("fusermount3")
    assert program is not None
    gate, slow = place.directory / "gate", place.directory / Path(program).name
    os.mkfifo(gate)
    slow.write_text(f'#!/bin/sh\nread -r _ <{gate}\nexec {program} "$@"\n')
    slow.chmod(0o755)
    path = f"{place.directory}:{os.environ['PATH']}"
    with subprocess.Popen(command, env={**os.environ, "PATH": path}) as unmounting:
        opened: list[int] = []

        def is_there() -> bool:
            with contextlib.suppress(OSError):  # no reader yet
                opened.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            return bool(opened)

        eventually(is_there, what="umount")
        yield lambda: os.close(opened[0])
        assert unmounting.wait(20) == 0


@pytest.mark.root
def test_umount_stale_removes_a_stale_mount_over_a_served_one(place: Place, other_place: Place) -> None:
    """This happens if fusermount3 mounts late, for a daemon that was killed."""
    place.mount()
    place.root.charge(5)
    other_place.mount()
    dead = other_place.daemon
    subprocess.run(["mount", "--move", str(other_place.path), str(place.path)], check=True)
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: has_ended(dead))
    place.umount("--stale")
    assert (place.root.usage, len(place.mounts)) == (5, 1)
    place.umount()


def waits_for_the_lock(place: Place) -> bool:
    """Whether a process of the mount point sleeps between two attempts to get the region lock."""
    with contextlib.suppress(OSError):
        return any("nanosleep" in Path(f"/proc/{pid}/wchan").read_text() for pid in place.processes)
    return False


def test_umount_of_a_stale_mount_names_live_holders(place: Place) -> None:
    place.mount()
    with HolderProcess(place.path, transport="memory") as process:
        process.charge(5)
        place.signal(signal.SIGKILL)
        assert f"(pid {process.pid})" in refused(run_here("umount", place.path), place.path)
        assert process.ask("memory", "usage") == 5
    place.umount()
    assert place.region is None


@pytest.mark.slow
def test_mount_and_umount_name_a_stopped_daemon(place: Place) -> None:
    place.mount()
    pid = place.daemon
    os.kill(pid, signal.SIGSTOP)
    try:
        wanted = f"its daemon (pid {pid}) does not answer: end it with kill -9 and mount again"
        assert refused(run_here("umount", place.path), place.path) == wanted
        assert refused(run_here("mount", place.path), place.path) == wanted
    finally:
        os.kill(pid, signal.SIGCONT)
    place.umount()


def test_fusermount3_also_ends_the_daemon_and_removes_the_region(place: Place) -> None:
    place.mount()
    pid = place.daemon
    subprocess.run(["fusermount3", "-u", str(place.path)], check=True)
    eventually(lambda: has_ended(pid))
    assert place.region is None


@pytest.mark.user
def test_umount_of_an_ordinary_user_names_a_missing_fusermount3(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mount()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(place.directory))
        assert shutil.which("fusermount3") is None
        assert refused(run_here("umount", place.path), place.path).startswith("fusermount3 is missing")
    place.umount()


@pytest.mark.root
def test_a_copy_in_another_mount_namespace_does_not_keep_the_daemon(place: Place) -> None:
    place.mount()
    code = "print(flush=True); input()"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as namespace:
        assert namespace.stdin is not None and namespace.stdout is not None
        assert namespace.stdout.readline() == b"\n"
        pid = place.daemon
        place.umount()
        assert has_ended(pid) and place.region is None
        namespace.stdin.write(b"\n")


# ---- signals


@pytest.mark.root
def test_umount_leaves_a_mount_over_the_tree(place: Place) -> None:
    place.mount()
    pid = place.daemon
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place.path)], check=True)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: has_ended(pid))
    assert [fields[2] for fields in place.mounts] == ["fuse.fsmount", "tmpfs"]
    assert refused(run_here("umount", place.path), place.path) == "not an fsmount mount but of type tmpfs: use umount"
    subprocess.run(["umount", str(place.path)], check=True)
    place.umount()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_removes_the_mount_and_the_region(place: Place, number: signal.Signals) -> None:
    place.mount()
    place.root.charge(5)
    place.signal(number)
    assert not place.mounts and place.region is None


def test_many_signals_end_the_daemon_cleanly(place: Place) -> None:
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "-f"]
    daemon = subprocess.Popen(command)
    place.daemons.add(daemon.pid)
    eventually(lambda: (place.path / ".fsmount").exists())
    while daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    assert daemon.returncode == 0
    assert not place.mounts and place.region is None


def test_a_signal_leaves_the_region_to_live_holders(place: Place) -> None:
    place.mount()
    with HolderProcess(place.path, transport="memory") as process:
        process.charge(5)
        place.signal(signal.SIGTERM)
        assert not place.mounts and place.region is not None
        process.charge(5)
        place.mount()
        assert place.root.usage == 10
        process.uncharge(10)
    eventually(lambda: not place.root.holders())
    place.umount()


def test_umount_of_a_group_names_the_mount_point(place: Place) -> None:
    place.mount()
    web = place.root.mkdir("web").path
    assert refused(run_here("umount", web), web) == f"a group of a tree: name the mount point, {place.path}"
    place.umount()


# ---- losses -------------------------------------------------------------------------------------------------


def note(done: subprocess.CompletedProcess[str], place: Place) -> str:
    """The losses that umount names; empty without a message."""
    assert (done.returncode, done.stdout) == (0, "")
    assert not place.mounts
    if not done.stderr:
        return ""
    start = f"fsmount: {place.path}: lost with it: "
    assert done.stderr.startswith(start) and done.stderr.count("\n") == 1, done.stderr
    lost, advice = done.stderr[len(start) :].split("; ")
    assert "umount --keep" in advice and "fsmount save" in advice
    return lost


def furnish(place: Place) -> None:
    place.mount("--resource", "memory", "--resource", "tokens:count")
    web = GroupFiles(place.path, {"memory": "bytes", "tokens": "count"}).mkdir("web")
    web.mkdir("api")
    web.set_limit("1G")
    web.write("soft_limit", 5, "tokens")
    web.write("limit", 7, "tokens")
    web.charge(4096)


@pytest.mark.parametrize("command", ["umount", "unmount"])
def test_umount_names_lost_groups_limits_and_common_charges(place: Place, command: str) -> None:
    furnish(place)
    assert note(run_here(command, place.path), place) == "2 groups, 3 limits and the charges of 1 group"


def test_umount_names_the_losses_of_a_stale_mount(place: Place) -> None:
    furnish(place)
    place.signal(signal.SIGKILL)
    assert note(run_here("umount", place.path), place) == "2 groups, 3 limits and the charges of 1 group"


def test_umount_names_a_single_lost_group_or_limit(place: Place) -> None:
    place.mount()
    place.root.mkdir("web")
    assert note(run_here("umount", place.path), place) == "1 group"
    place.mount()
    place.root.set_limit(5)
    assert note(run_here("umount", place.path), place) == "1 limit"


def test_umount_prints_nothing_without_losses_or_with_quiet(place: Place) -> None:
    place.mount()
    assert note(run_here("umount", place.path), place) == ""
    furnish(place)
    assert note(run_here("umount", place.path, "--quiet"), place) == ""
    furnish(place)
    assert note(run_here("umount", "--keep", place.path), place) == ""
    place.mount()
    place.signal(signal.SIGKILL)
    assert note(run_here("umount", "--stale", place.path), place) == ""
    place.mount()
    assert note(run_here("umount", "-q", place.path), place) == ""


def test_a_refused_umount_names_no_losses(place: Place) -> None:
    furnish(place)
    with open(place.path / "web/memory.stat"):
        assert "has a file open there" in refused(run("umount", "-q", place.path), place.path)
        assert "has a file open there" in refused(run("umount", place.path), place.path)
    place.umount()
