"""The watchdog ends a daemon that does not answer: waiting requests fail, and the next mount has the counters."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

import fsmount
from fsmount.daemon import watchdog
from tests.cli.place import Place, has_ended, run_here
from tests.cli.test_logs import Receiver
from tests.companions import companion
from tests.mounts import Mount, eventually, mounted

LIMIT = 1
CUT_OFF = (errno.ENOTCONN, errno.ECONNABORTED)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def watchdog_of(pid: int) -> int:
    """The pid of the daemon's watchdog, once it has executed its program."""

    def command(child: int) -> list[bytes]:
        return Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")

    (child,) = children(pid)
    eventually(lambda: os.fsencode(watchdog.__file__) in command(child), what="a watchdog")
    return child


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A mount with a short limit and a log that the test reads."""
    with mounted("--watchdog", str(LIMIT)) as tree:
        yield tree


def daemon_of(mount: Mount) -> subprocess.Popen[bytes]:
    assert mount.daemon is not None
    return mount.daemon


def in_thread(call: Callable[[], object]) -> Future[object]:
    """The future result of the call, in a daemon thread."""
    future: Future[object] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


@contextlib.contextmanager
def cut_off(path: Path) -> Iterator[None]:
    """After the block, reads of open and of other files fail, since the daemon is gone."""
    descriptor = os.open(path / "memory.usage_in_bytes", os.O_RDONLY)
    try:
        assert os.pread(descriptor, 100, 0)
        yield
        calls = [
            in_thread(lambda: os.pread(descriptor, 100, 0)),
            in_thread((path / ".fsmount").read_bytes),
            in_thread((path / "not there").stat),
        ]
        for call in calls:
            error = call.exception(timeout=60)
            assert isinstance(error, OSError) and error.errno in CUT_OFF, error
    finally:
        os.close(descriptor)


def ended_log(mount: Mount, watchdog: int) -> str:
    """The log after the end of the watchdog; the test expects any line of it."""
    eventually(lambda: has_ended(watchdog), what="the end of the watchdog")
    mount.expected_log.append("")
    return mount.log.read_text()


def not_answered(mount: Mount, pid: int, state: str) -> str:
    message = f"did not answer for {LIMIT} s, in state {state}: mount again, the counters are kept in {mount.region}"
    return f"fsmount: {mount.path}: the daemon (pid {pid}) {message}\n"


def use_for(seconds: float, mount: Mount) -> int:
    """Uses the files for that time; returns how often."""
    times = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        mount.root.charge(1)
        mount.root.uncharge(1)
        times += 1
        time.sleep(0.01)
    return times


# ---- daemons that the watchdog ends


def test_the_watchdog_ends_a_stopped_daemon_and_the_next_mount_has_the_charges(mount: Mount) -> None:
    daemon = daemon_of(mount)
    watching = watchdog_of(daemon.pid)
    group = mount.root.mkdir("group")
    group.charge(4096)
    with cut_off(mount.path):
        daemon.send_signal(signal.SIGSTOP)
    assert daemon.wait(60) == -signal.SIGABRT
    log = ended_log(mount, watching)
    assert log.startswith(not_answered(mount, daemon.pid, "T (stopped)"))
    assert "Fatal Python error: Aborted" in log and "trio" in log
    mount.start()
    assert group.usage == 4096
    group.uncharge(4096)


def test_the_watchdog_ends_a_stopped_daemon_in_the_background(place: Place) -> None:
    place.mount("--watchdog", LIMIT)
    place.root.charge(4096)
    pid = place.daemon
    watching = watchdog_of(pid)
    with cut_off(place.path):
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: has_ended(pid) and has_ended(watching))
    place.mount()
    assert place.root.usage == 4096
    place.umount()


def test_attach_to_a_stopped_daemon_fails_when_the_watchdog_ends_it(mount: Mount) -> None:
    daemon = daemon_of(mount)
    watching = watchdog_of(daemon.pid)
    daemon.send_signal(signal.SIGSTOP)
    with pytest.raises(fsmount.TreeGone, match="lost its daemon"):
        fsmount.attach(mount.path)
    daemon.wait(60)
    ended_log(mount, watching)
    mount.start()


WEDGES = {
    "in Python": "while True: pass",
    "in C with the interpreter's lock": "ctypes.PyDLL(None).sleep(1000)",
    "and deaf": "while True: time.sleep(1)",
}


@pytest.mark.parametrize("kind", WEDGES)
def test_the_watchdog_ends_a_stuck_daemon_which_logs_its_traceback(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SIGUSR1 the daemon's main thread runs the code in sitecustomize.py."""
    lines = ["import ctypes, signal, sys, time", "def wedge(number, frame):", f"    {WEDGES[kind]}"]
    lines.append("signal.signal(signal.SIGUSR1, wedge)")
    if kind == "and deaf":
        lines.append("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])")
    tmp_path.joinpath("sitecustomize.py").write_text("\n".join(lines))
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{before}" if before else str(tmp_path))
    with mounted("--watchdog", str(LIMIT)) as mount:
        daemon = daemon_of(mount)
        watching = watchdog_of(daemon.pid)
        with cut_off(mount.path):
            daemon.send_signal(signal.SIGUSR1)
        status = daemon.wait(60)
        log = ended_log(mount, watching)
        assert f"the daemon (pid {daemon.pid}) did not answer for {LIMIT} s" in log
        if kind == "and deaf":
            assert status == -signal.SIGKILL and log.count("\n") == 1
        else:
            assert status == -signal.SIGABRT
            assert re.search(r'sitecustomize.py", line 3 in wedge\n', log), log
        mount.start()


def test_a_crash_leaves_its_traceback(mount: Mount) -> None:
    daemon = daemon_of(mount)
    watching = watchdog_of(daemon.pid)
    daemon.send_signal(signal.SIGSEGV)
    assert daemon.wait(60) == -signal.SIGSEGV
    log = ended_log(mount, watching)
    message = f"the daemon (pid {daemon.pid}) crashed: mount again, the counters are kept in {mount.region}"
    assert log.startswith(f"fsmount: {mount.path}: {message}\nFatal Python error: Segmentation fault\n")
    mount.start()


def test_the_watchdog_writes_the_same_message_to_the_system_log(tmp_path: Path) -> None:
    pipe, beats = os.pipe()
    receiver = Receiver(tmp_path / "log")
    with receiver.socket, subprocess.Popen(["sleep", "1000"]) as sleeper:
        process = os.pidfd_open(sleeper.pid)
        arguments = (process, sleeper.pid, LIMIT, tmp_path / "log", "/mnt/naja \udcff", "/region")
        command = [sys.executable, "-I", "-S", watchdog.__file__, *map(str, arguments)]
        with subprocess.Popen(command, stdin=pipe, pass_fds=[process]) as watching:
            receiver.socket.settimeout(60)
            message = f"the daemon (pid {sleeper.pid}) did not answer for {LIMIT} s, in state S (sleeping): mount again"
            assert receiver.line() == (
                f"<28>fsmount[{sleeper.pid}]: /mnt/naja \\udcff: {message}, the counters are kept in /region"
            )
            assert watching.wait(60) == 0
        assert sleeper.wait(60) == -signal.SIGABRT
    for descriptor in (pipe, beats, process):
        os.close(descriptor)


# ---- daemons that the watchdog leaves alone


def test_the_watchdog_leaves_a_busy_daemon_alone(mount: Mount) -> None:
    with contextlib.ExitStack() as stack:
        busy = "import sys\nwhile True: open(sys.argv[1]).read()"
        for name in ("a", "b"):
            command = companion(sys.executable, "-c", busy, mount.root.mkdir(name).file("limit"))
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
        assert use_for(1.5 * LIMIT, mount) > 0
    mount.check()


def test_the_limit_does_not_include_time_in_which_the_watchdog_did_not_run(mount: Mount) -> None:
    """As in a frozen cgroup, or on an overloaded machine."""
    daemon = daemon_of(mount)
    watching = watchdog_of(daemon.pid)
    os.kill(watching, signal.SIGSTOP)
    assert use_for(1.5 * LIMIT, mount) > 0
    os.kill(watching, signal.SIGCONT)
    assert use_for(0.5 * LIMIT, mount) > 0
    for pid in (daemon.pid, watching):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * LIMIT)  # nothing must happen
    os.kill(watching, signal.SIGCONT)
    daemon.send_signal(signal.SIGCONT)
    assert use_for(1.5 * LIMIT, mount) > 0
    mount.check()


TRACER = """
import ctypes, os, subprocess, sys
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
daemon = subprocess.Popen(sys.argv[1:])
print(daemon.pid, flush=True)
input()
for request in SEIZE, INTERRUPT:
    if ptrace(request, daemon.pid, None, None): sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(daemon.pid, 0)
print("stopped", flush=True)
input()
ptrace(DETACH, daemon.pid, None, None)
daemon.wait()
"""


def test_the_watchdog_leaves_a_daemon_under_a_debugger_alone(place: Place) -> None:
    command = [sys.executable, "-c", TRACER, sys.executable, "-m", "fsmount", "mount", str(place.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "-f", "--watchdog", str(LIMIT)], text=True, bufsize=1, **pipes) as tracer:  # type: ignore[call-overload]
        pid = int(tracer.stdout.readline())
        place.daemons.add(pid)
        eventually((place.path / ".fsmount").exists, what="mounted")
        print(file=tracer.stdin)
        assert tracer.stdout.readline() == "stopped\n"
        # once, although the watchdog finds the daemon silent again and again
        message = f"the daemon (pid {pid}) does not answer, but process {tracer.pid} debugs it: no signal is sent\n"
        assert tracer.stderr.readline() == f"fsmount: {place.path}: {message}"
        time.sleep(2 * LIMIT)  # nothing must happen
        print(file=tracer.stdin)
        assert place.root.usage == 0
        place.umount()
        assert tracer.communicate(timeout=60) == ("", "")


# ---- the watchdog itself


def test_the_watchdog_keeps_no_file_of_the_daemon(mount: Mount) -> None:
    watching = watchdog_of(daemon_of(mount).pid)
    process = Path(f"/proc/{watching}")
    files = process / "fd"
    eventually(lambda: len(os.listdir(files)) == 4, what="nothing but what it needs")
    pipe, null, log, daemon = (os.readlink(files / name) for name in sorted(os.listdir(files), key=int))
    assert pipe.startswith("pipe:") and (null, log) == ("/dev/null", str(mount.log)) and "pidfd" in daemon
    assert os.readlink(process / "cwd") == "/"
    assert os.getsid(watching) == watching
    assert str(mount.region) not in (process / "maps").read_text()


def test_the_watchdog_ignores_signals_and_ends_with_the_daemon(mount: Mount) -> None:
    """A supervisor sends a signal to all processes at once."""
    watching = watchdog_of(daemon_of(mount).pid)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    status = Path(f"/proc/{watching}/status")

    def ignores_them() -> bool:
        ignored = int(re.findall(r"SigIgn:\s(\w+)", status.read_text())[0], 16)
        return all(ignored & 1 << number - 1 for number in numbers)

    eventually(ignores_them)
    for number in numbers:
        os.kill(watching, number)
    assert use_for(0.5 * LIMIT, mount) > 0  # the daemon would log the end of its watchdog
    assert not has_ended(watching)
    mount.umount()
    assert has_ended(watching)


def test_the_watchdog_has_ended_when_umount_returns(place: Place) -> None:
    place.mount()
    watching = watchdog_of(place.daemon)
    place.umount()
    assert not Path(f"/proc/{watching}").exists()


def test_the_watchdog_ends_when_the_daemon_is_killed(mount: Mount) -> None:
    watching = watchdog_of(daemon_of(mount).pid)
    mount.kill()
    eventually(lambda: has_ended(watching), what="the end of the watchdog")
    assert not mount.unexpected_log()
    mount.start()


def test_the_daemon_replaces_a_killed_watchdog(mount: Mount) -> None:
    daemon = daemon_of(mount)
    watching = watchdog_of(daemon.pid)
    use_for(LIMIT, mount)
    os.kill(watching, signal.SIGKILL)
    mount.expected_log.append("the watchdog was killed: another one starts")
    eventually(lambda: children(daemon.pid) not in ([], [watching]), what="another watchdog")
    another = watchdog_of(daemon.pid)
    with cut_off(mount.path):
        daemon.send_signal(signal.SIGSTOP)
    assert daemon.wait(60) == -signal.SIGABRT
    assert not_answered(mount, daemon.pid, "T (stopped)") in ended_log(mount, another)
    mount.start()


def test_the_daemon_serves_without_a_watchdog_that_dies_at_once(mount: Mount) -> None:
    daemon = daemon_of(mount)
    given_up = "there is no watchdog any more: it ended just after its start"
    mount.expected_log += [given_up, "the watchdog was killed"]

    def kill_it() -> bool:
        for child in children(daemon.pid):
            with contextlib.suppress(ProcessLookupError):  # the daemon has reaped it already
                os.kill(child, signal.SIGKILL)
        return given_up in mount.log.read_text()

    eventually(kill_it)
    assert not children(daemon.pid)
    assert use_for(2 * LIMIT, mount) > 0
    mount.check()


def test_the_daemon_serves_without_a_watchdog_that_cannot_start(mount: Mount) -> None:
    daemon = daemon_of(mount)
    use_for(LIMIT, mount)
    (watching,) = children(daemon.pid)
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.kill(watching, signal.SIGKILL)
    mount.expected_log += ["another one starts", "cannot be started .*Too many open files"]
    eventually(lambda: "cannot be started" in mount.log.read_text())
    assert not children(daemon.pid)
    assert use_for(0.5 * LIMIT, mount) > 0
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    mount.check()


def test_a_limit_of_zero_starts_no_watchdog(place: Place) -> None:
    place.mount("--watchdog", 0)
    assert not children(place.daemon)
    place.umount()


@pytest.mark.parametrize("value", ["-1", "0.5", "nan", "inf", "86401", "never"])
def test_an_unreasonable_limit_is_refused(place: Place, value: str) -> None:
    done = run_here("mount", place.path, "--watchdog", value)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("Error: Invalid value for '--watchdog': ")
    assert not place.mounts
