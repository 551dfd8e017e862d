"""Hostile mounts, daemons and regions of another user: commands of root harm nothing else and never hang."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from fsmount import Tree
from fsmount.admin import region_path
from fsmount.admin.mount_table import all_mounts, mount_at, parse
from fsmount.shm import process_start_time
from tests.cli.fuse_of_a_user import USER, become_user, fuse_mount
from tests.cli.place import Place, has_ended, refused, run, run_here
from tests.mounts import as_user, eventually

pytestmark = pytest.mark.root

FORGED = "\v1 1 0:1 / /etc rw - fuse.fsmount x rw,user_id=0"
NAMES = [
    b"a\rb",
    b"a\nb",
    b"a\n36 1 0:9 / /etc rw - fuse.fsmount x rw,user_id=0\n",
    FORGED.encode(),
    b"\x1c\x1d\x1e",
    "\x85\u2028\u2029".encode(),
    b"\xff\xfe\r",
    b"a\\040b c\td",
    b" - ",
]


@pytest.fixture
def theirs(place: Place) -> Path:
    """A directory that belongs to the other user."""
    path = place.directory / "theirs"
    path.mkdir()
    os.chown(path, USER.pw_uid, USER.pw_gid)
    return path


def as_them(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=become_user)


@pytest.fixture
def their_mount(place: Place) -> Iterator[Place]:
    """A mount point of the other user, with a mount of that user."""
    os.chown(place.path, USER.pw_uid, USER.pw_gid)
    done = as_them("mount", place.path)
    assert (done.returncode, done.stderr) == (0, ""), done
    place.daemons.add(their_daemon(place))
    yield place
    for region in [region_path.find(str(place.path), USER.pw_uid)]:
        if region is not None:
            os.unlink(region)
    as_user(USER.pw_uid, lambda: region_path.forget(str(place.path)))


def their_daemon(place: Place) -> int:
    return int(as_user(USER.pw_uid, lambda: place.daemon, gid=USER.pw_gid))


def their_region(place: Place) -> Path | None:
    found = region_path.find(str(place.path), USER.pw_uid)
    return None if found is None else Path(found)


# ---- the table of mounts


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_commands_work_beside_a_mount_point_with_any_bytes_in_its_name(
    place: Place, other_place: Place, name: bytes
) -> None:
    path = os.path.normpath(os.path.join(os.fsencode(place.directory), name))
    os.makedirs(path)
    os.chown(path, USER.pw_uid, USER.pw_gid)
    before = all_mounts()
    with fuse_mount(path, "fsname=x", "subtype=fsmount"):
        (new,) = [mount for mount in all_mounts() if mount not in before]
        assert (os.fsencode(new.path), new.type, new.uid) == (path, "fuse.fsmount", USER.pw_uid)
        other_place.mount()
        other_place.root.charge(5)
        for command in (["doctor"], ["umount", "--stale"], ["umount", "--keep"], ["doctor"]):
            done = run_here(*command, other_place.path)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        other_place.mount()
        daemon = other_place.signal(signal.SIGTERM)
        assert has_ended(daemon) and not other_place.mounts and mount_at("/etc") is None


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_mount_point_may_have_any_bytes_in_its_name(place: Place, name: bytes) -> None:
    path = os.path.normpath(os.fsdecode(os.path.join(os.fsencode(place.directory), name)))
    os.makedirs(path)
    for option in ("--keep", "--stale"):
        assert run_here("mount", path).returncode == 0
        mount = mount_at(path)
        assert mount is not None and mount.is_fsmount and mount.path == path
        if option == "--stale":
            assert run_here("doctor", path).returncode == 0
            subprocess.run(["umount", path], check=True)
        else:
            assert run_here("umount", option, path).returncode == 0
        eventually(lambda: mount_at(path) is None)
    eventually(lambda: region_path.find(path) is None)
    region_path.forget(path)


@pytest.mark.parametrize("source", [" - fuse.fsmount x user_id=0", "x\ry", "x\x85\u2028"], ids=repr)
def test_the_source_of_a_mount_cannot_change_the_rest_of_its_line(theirs: Path, source: str) -> None:
    with fuse_mount(theirs, f"fsname={source}", "subtype=fsmount"):
        mount = mount_at(str(theirs))
        assert mount is not None and (mount.type, mount.uid, mount.path) == ("fuse.fsmount", USER.pw_uid, str(theirs))


def test_the_parser_skips_a_malformed_line_of_the_mount_table() -> None:
    good = b"22 1 0:21 / /a\\040b rw shared:5 - fuse.fsmount x rw,user_id=1000,group_id=100"
    for bad in (b"", b"x", b"22 1 0:21 / /a rw", b"22 1 0:21 / /a rw -", good.replace(b"22", b"x", 1), b"\xff" * 50):
        (mount,) = parse(bad + b"\n" + good + b"\n" + bad)
        assert (mount.id, mount.path, mount.peers, mount.uid, mount.gid) == (22, "/a b", "shared:5", 1000, 100)


# ---- processes that a region or a daemon names


@contextlib.contextmanager
def process(*command: object, by_user: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process that lasts for the block: a test that fails inside must not wait for its end."""
    become = become_user if by_user else None
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, preexec_fn=become) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("victim_of", ["root", "the user"])
@pytest.mark.parametrize("options", [[], ["--keep"], ["--stale"]], ids=repr)
def test_umount_signals_no_process_that_only_the_region_names(
    their_mount: Place, victim_of: str, options: list[str]
) -> None:
    with process("sleep", 600, by_user=victim_of == "the user") as victim:
        region = their_region(their_mount)
        assert region is not None
        with Tree.open(region) as tree:
            record = tree.daemon
            assert record is not None
            tree.region.set_daemon(victim.pid, process_start_time(victim.pid), record.mountpoint)
        if options == ["--stale"]:
            os.kill(their_daemon(their_mount), signal.SIGKILL)
        done = run("umount", *options, their_mount.path)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert victim.poll() is None


#: A daemon that reports the pid of another process as its own.
LIAR = """
import os, sys
pid = int(sys.argv.pop(1))
import fsmount.control_files.control_channel, fsmount.shm.tree
os.getpid = lambda: pid
from fsmount.cli import main
main()
"""


def test_umount_signals_no_process_that_only_the_daemon_names(place: Place) -> None:
    """A copy in another mount namespace keeps the daemon alive, so that umount would send a signal."""
    os.chown(place.path, USER.pw_uid, USER.pw_gid)
    with process("sleep", 600) as victim, contextlib.ExitStack() as stack:
        lie = [sys.executable, "-c", LIAR, victim.pid, "mount", "-f", "--watchdog", 0, place.path]
        daemon = stack.enter_context(process(*lie, by_user=True))
        eventually(
            lambda: (
                daemon.poll() is not None
                or as_user(USER.pw_uid, lambda: (place.path / ".fsmount").exists(), gid=USER.pw_gid)
            )
        )
        assert their_daemon(place) == victim.pid
        copy = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 600"]
        keeper = stack.enter_context(process(*copy))
        assert keeper.stdout is not None and keeper.stdout.readline() == b"\n"
        run("umount", place.path)
        assert victim.poll() is None
        daemon.terminate()
        assert daemon.wait(60) == 0


# ---- the region


def replaced_by(region: Path, make: Callable[[Path], object]) -> None:
    """The other user replaces the file of the region."""

    def replace() -> None:
        region.rename(region.with_suffix(".aside"))
        make(region)

    as_user(USER.pw_uid, replace, gid=USER.pw_gid)


@pytest.mark.parametrize("kind", ["link to a file", "link to a device", "fifo", "directory", "hard link", "nonsense"])
@pytest.mark.parametrize("is_stale", [False, True], ids=["served", "stale"])
def test_umount_touches_no_file_that_a_user_puts_in_place_of_a_region(
    their_mount: Place, kind: str, is_stale: bool
) -> None:
    region = their_region(their_mount)
    assert region is not None
    roots = region_path.SHARED_MEMORY + "/fsmount-test-file-of-root"
    Path(roots).write_text("root's")
    try:
        if kind == "hard link":  # users can make one where fs.protected_hardlinks is 0
            region.rename(region.with_suffix(".aside"))
            os.link(roots, region)
        else:
            replaced_by(
                region,
                {
                    "link to a file": lambda path: path.symlink_to(roots),
                    "link to a device": lambda path: path.symlink_to("/dev/watchdog"),
                    "fifo": os.mkfifo,
                    "directory": os.mkdir,
                    "nonsense": lambda path: path.write_bytes(os.urandom(100_000)),
                }[kind],
            )
        if is_stale:
            os.kill(their_daemon(their_mount), signal.SIGKILL)
        begun = time.monotonic()
        done = run("umount", their_mount.path)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert time.monotonic() - begun < 40
        assert not their_mount.mounts and Path(roots).read_text() == "root's"
    finally:
        os.unlink(roots)
        for path in region.parent.glob(f"{region.stem}*"):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        region.parent.rmdir()


# ---- stale mounts


def test_root_unmounts_a_stale_mount_of_another_user(their_mount: Place) -> None:
    region = their_region(their_mount)
    for options in (["--stale"], ["--keep"], []):
        daemon = their_daemon(their_mount)
        os.kill(daemon, signal.SIGKILL)
        eventually(partial(has_ended, daemon))
        done = run("umount", *options, their_mount.path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        assert not their_mount.mounts
        assert (their_region(their_mount) == region) == bool(options)
        assert as_them("mount", their_mount.path).returncode == 0
        their_mount.daemons.add(their_daemon(their_mount))


def test_root_unmounts_a_mount_of_another_user_and_keeps_its_counters(their_mount: Place) -> None:
    daemon = their_daemon(their_mount)
    as_user(USER.pw_uid, lambda: their_mount.root.charge(7), gid=USER.pw_gid)
    assert run_here("umount", "--stale", their_mount.path).returncode == 0
    assert their_mount.mounts, "a mount that is served is not stale"
    their_mount.umount("--keep")
    assert has_ended(daemon) and not their_mount.mounts
    assert as_them("mount", their_mount.path).returncode == 0
    their_mount.daemons.add(their_daemon(their_mount))
    assert as_user(USER.pw_uid, lambda: their_mount.root.usage, gid=USER.pw_gid) == 7


def test_root_checks_and_saves_a_tree_of_another_user(their_mount: Place) -> None:
    done = run_here("doctor", their_mount.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run_here("save", their_mount.path, "-").returncode == 0
    user = pwd.getpwnam("daemon").pw_uid
    error = as_user(user, lambda: run("doctor", their_mount.path).stderr)
    assert "belongs to user" in error and error.count("\n") == 1


# ---- daemons that answer no request


def mounted_at(path: Path) -> bool:
    """Whether a mount is there; asks no daemon, which may be stopped."""
    return mount_at(str(path)) is not None


def errors_in_time(commands: list[list[str]]) -> list[str]:
    """The errors of commands that run at the same time; each must fail within seconds."""
    begun = time.monotonic()
    running = [
        subprocess.Popen([sys.executable, "-m", "fsmount", *words], stderr=subprocess.PIPE, text=True)
        for words in commands
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert time.monotonic() - begun < 50, "expected are a few times five seconds, even on a busy machine"
    assert [process.returncode for process in running] == [1] * len(running), errors
    assert all(text.count("\n") == 1 for text in errors), errors
    return errors


@pytest.mark.parametrize("answers_init", [True, False], ids=["reads", "never reads"])
def test_commands_of_root_fail_in_time_on_a_daemon_that_answers_no_request(theirs: Path, answers_init: bool) -> None:
    with fuse_mount(theirs, "fsname=x", "subtype=fsmount", answers_init=answers_init):
        errors_in_time(
            [
                [*words, str(path), *(["-"] if words == ["save"] else [])]
                for words in (["mount"], ["umount"], ["umount", "--keep"], ["umount", "--stale"], ["doctor"], ["save"])
                for path in (theirs, theirs / "below")
            ]
        )
        assert mount_at(str(theirs)) is not None


def test_commands_name_a_stopped_daemon_in_time(place: Place) -> None:
    """Also if the path only leads through the mount, or the region is in it."""
    place.mount("--watchdog", "0")
    place.root.mkdir("group")
    pid = place.daemon
    os.kill(pid, signal.SIGSTOP)
    try:
        commands = [
            [*words, str(place.path / below)]
            for words in (["mount"], ["umount"], ["umount", "--keep"], ["umount", "--stale"])
            for below in ("", "group/memory.stat", "missing/more")
        ]
        elsewhere = place.directory / "elsewhere"
        elsewhere.mkdir()
        errors = errors_in_time(
            [*commands, ["mount", str(elsewhere), "--region", str(place.path / "missing" / "region")]]
        )
        wanted = f"its daemon (pid {pid}) does not answer: end it with kill -9 and mount again"
        assert all(wanted in text for text in errors), errors
    finally:
        os.kill(pid, signal.SIGCONT)
    place.umount()


# ---- a mount point that changes


def test_root_follows_no_link_of_another_user(place: Place, theirs: Path) -> None:
    place.mount()
    victim = place.directory / "victim"
    victim.mkdir()
    for path in (victim, place.path):
        as_user(USER.pw_uid, partial(os.symlink, path, theirs / path.name))
    for words in (["mount"], ["umount"], ["umount", "--keep"], ["umount", "--stale"]):
        for name in ("victim", "tree"):
            text = refused(run_here(*words, theirs / name), theirs / name)
            assert text.startswith(f"the link {name} belongs to user {USER.pw_uid}, "), text
    assert not os.path.ismount(victim) and place.root.usage == 0
    (place.directory / "ours").symlink_to(place.path)
    assert run_here("umount", place.directory / "ours").returncode == 0
    assert not place.mounts


@pytest.mark.parametrize("call", ["flock", "memfd_create", "mount"])
def test_root_mounts_on_the_checked_directory_or_fails(place: Place, theirs: Path, call: str) -> None:
    """The other user replaces the mount point by a link while the daemon is stopped at a step of the mount."""
    victim, point, aside, log = place.directory / "victim", theirs / "point", theirs / "aside", place.directory / "log"
    victim.mkdir()
    as_user(USER.pw_uid, lambda: os.mkdir(point))
    log.touch()
    strace = ["strace", "-DD", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={call}:signal=STOP"]
    command = [sys.executable, "-m", "fsmount", "mount", "-f", str(point)]
    with subprocess.Popen([*strace, *command], stderr=subprocess.DEVNULL) as daemon:
        eventually(lambda: "stopped by SIGSTOP" in log.read_text())

        def replace() -> None:
            os.rename(point, aside)
            os.symlink(victim, point)

        with contextlib.suppress(OSError):  # EBUSY: the mount may be complete already
            as_user(USER.pw_uid, replace)

        def continues() -> bool:
            os.kill(daemon.pid, signal.SIGCONT)  # the daemon stops at each such call
            return daemon.poll() is not None or mounted_at(aside) or mounted_at(point)

        eventually(continues)
        assert not mounted_at(victim)
        assert call == "flock" or daemon.poll() is None
        daemon.send_signal(signal.SIGTERM)
        daemon.send_signal(signal.SIGCONT)
        eventually(lambda: daemon.poll() is not None)
    assert not [mount for mount in all_mounts() if mount.path.startswith(str(place.directory))]
    for path in (str(point), str(aside)):
        region_path.forget(path)
