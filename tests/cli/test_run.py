"""fsmount run: the charge lasts exactly as long as the command, also if the wrapper or the command is killed."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.place import has_ended, run
from tests.mounts import GroupFiles, as_user, eventually, mounted
from tests.process_state import state

pytestmark = pytest.mark.any_user

NOBODY = 65534

# Each prints a pid when it runs, and continues after a line of input.
WAITS = ["sh", "-c", "echo $$; read line; exit 7"]
CLOSES_ALL = [sys.executable, "-c", "import os; os.closerange(3, 100); print(os.getpid(), flush=True); input()"]
LEAVES_A_CHILD = ["sh", "-c", "sleep 60 >/dev/null & echo $!; read line"]
REPORTS_TERM = ["sh", "-c", "trap 'echo TERM; exit 3' TERM; echo $$; while :; do read line; done"]

PRINTS_FIRST_SIGNAL = """
import os, signal
os.setpgid(0, 0)
signals = [signal.SIGINT, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("there", flush=True)
print(signal.sigwait(signals).name, flush=True)
"""
IGNORES_CHILDREN = "import os, signal, sys; signal.signal(17, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


class Running:
    """fsmount run with a command that has printed its pid, or the pid of its child."""

    def __init__(self, group: GroupFiles, command: list[str], *more: str) -> None:
        wanted = [word for amount in ("memory=4096", *more) for word in ("-r", amount)]
        words = [sys.executable, "-m", "fsmount", "run", "-g", str(group.path), *wanted, "--"]
        # in its own process group: SIGTSTP stops no process in an orphaned group
        self.process = subprocess.Popen(
            [*words, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, process_group=0
        )
        self.pid = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def destroy(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(group: GroupFiles, command: list[str], *more: str) -> Iterator[Running]:
    it = Running(group, command, *more)
    try:
        yield it
    finally:
        it.destroy()


def charge_is_released(group: GroupFiles) -> None:
    eventually(lambda: group.usage == 0, what="the release of the charge")


def test_run_holds_while_the_command_runs_and_returns_its_status(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        assert [(line.pid, line.held) for line in group.holders()] == [(it.pid, 4096)]
        it.tell()
        assert it.process.wait(60) == 7
        assert group.usage == 0  # at once, so that the next line of a script finds the room


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 75"], 75),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["sh", "-c", "kill -PIPE $$"], 128 + signal.SIGPIPE),
        (["./no-such-command"], 127),
        ([""], 127),
        (["/etc"], 126),
        (["/etc/passwd"], 126),
    ],
    ids=lambda value: " ".join(value) or "empty" if isinstance(value, list) else str(value),
)
def test_the_exit_status_is_like_that_of_env(group: GroupFiles, command: list[str], status: int) -> None:
    done = run("run", "--group", group.path, "-r", "memory=1", "-r", "tokens=1", *command)
    assert done.returncode == status
    assert done.stdout == "" and done.stderr.count("\n") == (status in (126, 127)), done
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)


def test_options_after_the_command_belong_to_the_command(group: GroupFiles) -> None:
    done = run("run", "-g", group.path, "-r", "memory=1", "echo", "-g", "--help", "--")
    assert (done.returncode, done.stdout) == (0, "-g --help --\n")


def test_run_starts_no_command_if_the_charge_is_refused(group: GroupFiles) -> None:
    group.set_limit(10, "tokens")
    done = run("run", "-g", group.path, "-r", "memory=4096", "-r", "tokens=11", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith(f"fsmount: {group.path}: 11 more of tokens would pass the limit of {group.path}: ")
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)
    assert group.number("max_usage") == 0, "a part of the request was charged for a moment"


def test_an_impossible_charge_has_status_125(group: GroupFiles) -> None:
    for path, word in ((group.path / "none", "memory=1"), (Path("/"), "memory=1"), (group.path, "beans=1")):
        done = run("run", "-g", path, "-r", word, "echo", "started")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"fsmount: {path}: ") and done.stderr.count("\n") == 1


def test_run_passes_a_signal_on_to_the_command(group: GroupFiles) -> None:
    with running(group, REPORTS_TERM) as it:
        it.process.terminate()
        assert it.line() == "TERM\n"
        assert it.process.wait(60) == 3
        assert group.usage == 0


def test_the_death_of_the_command_by_a_signal_releases_the_charge(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        os.kill(it.pid, signal.SIGKILL)
        assert it.process.wait(60) == 128 + signal.SIGKILL
        assert group.usage == 0


def test_a_command_whose_wrapper_is_killed_continues_and_holds_until_its_end(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.kill()
        it.process.wait()
        assert not has_ended(it.pid)
        assert group.usage == 4096
        it.tell()
        charge_is_released(group)


def test_a_command_whose_wrapper_is_killed_holds_several_resources(group: GroupFiles) -> None:
    with running(group, WAITS, "tokens=3") as it:
        assert [(line.pid, line.held) for line in group.holders("tokens")] == [(it.pid, 3)]
        it.process.kill()
        it.process.wait()
        assert (group.usage, group.number("usage", "tokens")) == (4096, 3)
        it.tell()
        charge_is_released(group)
        assert group.number("usage", "tokens") == 0


@pytest.mark.parametrize("more", [(), ("tokens=3",)], ids=["one resource", "several resources"])
def test_the_holder_is_the_command_before_and_after_a_kill_of_its_wrapper(
    group: GroupFiles, more: tuple[str, ...]
) -> None:
    def holders() -> list[tuple[int, str]]:
        return [(line.pid, line.command) for line in group.holders()]

    with running(group, WAITS, *more) as it:
        assert holders() == [(it.pid, "lease:sh")]
        it.process.kill()
        it.process.wait()
        assert holders() == [(it.pid, "lease:sh")]
        it.tell()
        charge_is_released(group)


def test_the_holder_has_the_name_of_the_program_that_the_command_executes(group: GroupFiles) -> None:
    with running(group, ["sh", "-c", "echo $$; read line; exec cat"]) as it:
        it.tell()
        eventually(lambda: [(line.pid, line.command) for line in group.holders()] == [(it.pid, "lease:cat")])


def test_a_refusal_names_the_refused_command_and_the_largest_holder(group: GroupFiles) -> None:
    group.set_limit(5000)
    with running(group, WAITS) as it:
        assert run("run", "-g", group.path, "-r", "memory=1000", "--", "date").returncode == 75
        (refusal,) = group.file("why").read_text().splitlines()
        assert " by=lease command=date " in refusal
        assert f" largest1=4096,{it.pid},lease," in refusal and refusal.endswith(",sh"), refusal


def test_a_refused_command_leaves_no_holder(group: GroupFiles) -> None:
    group.set_limit(10)
    below = group.mkdir("below")
    assert run("run", "-g", below.path, "-r", "memory=11", "--", "true").returncode == 75
    below.path.rmdir()


def test_a_signal_to_the_waiting_process_ends_the_wait(group: GroupFiles) -> None:
    group.set_limit(10)
    group.charge(10)
    words = ["run", "-g", str(group.path), "-r", "memory=4", "--wait", "--", "true"]
    with subprocess.Popen([sys.executable, "-m", "fsmount", *words]) as process:
        eventually(lambda: [line.command for line in group.holders() if line.pid] == ["lease:true"])
        (waiting,) = [line.pid for line in group.holders() if line.pid]
        assert waiting != process.pid
        os.kill(waiting, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    eventually(lambda: not any(line.pid for line in group.holders()))


def test_run_executes_a_script_without_an_interpreter_line_in_the_shell(group: GroupFiles, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $0 $*\n")
    script.chmod(0o755)
    done = run("run", "-g", group.path, "-r", "memory=1", script, "a", "b")
    assert (done.returncode, done.stdout) == (0, f"{script} a b\n")


def test_killing_wrapper_and_command_releases_the_charge(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.kill()
        os.kill(it.pid, signal.SIGKILL)
        charge_is_released(group)


def test_a_command_that_closes_all_descriptors_still_holds(group: GroupFiles) -> None:
    with running(group, CLOSES_ALL) as it:
        assert group.usage == 4096
        it.tell()
        assert it.process.wait(60) == 0
        assert group.usage == 0


def test_processes_that_outlive_the_command_hold_nothing(group: GroupFiles) -> None:
    with running(group, LEAVES_A_CHILD) as it:
        it.tell()
        assert it.process.wait(60) == 0
        assert not has_ended(it.pid)
        assert group.usage == 0


def test_a_stop_signal_stops_wrapper_and_command_and_both_continue(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(it.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and state(it.pid) == "T"
        assert group.usage == 4096
        it.process.send_signal(signal.SIGCONT)
        it.tell()
        assert it.process.wait(60) == 7


def test_run_does_not_pass_on_a_signal_of_the_terminal(group: GroupFiles) -> None:
    """The command has left the foreground process group, so that it gets only signals that run passes on."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = ["fsmount", "run", "-g", str(group.path), "-r", "memory=1", sys.executable, "-c", PRINTS_FIRST_SIGNAL]
        os.execv(sys.executable, [sys.executable, "-m", *words])
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        assert screen.readline() == b"there\r\n"
        screen.write(b"\x03")
        assert screen.read(1) + screen.read(1) == b"^C"  # the terminal has sent SIGINT
        os.kill(pid, signal.SIGUSR1)
        assert screen.readline() == b"SIGUSR1\r\n"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert group.usage == 0


def test_run_returns_the_status_under_a_caller_that_ignores_sigchld(group: GroupFiles) -> None:
    words = [sys.executable, "-m", "fsmount", "run", "-g", str(group.path), "-r", "memory=1", "sh", "-c", "exit 7"]
    assert subprocess.run([sys.executable, "-c", IGNORES_CHILDREN, *words], timeout=60, check=False).returncode == 7


@pytest.mark.root
def test_run_holds_in_a_tree_of_another_user() -> None:
    from fsmount.cli import main
    from fsmount.cli.commands import run  # noqa: F401  here: the other user cannot read the sources

    def hold() -> object:
        try:
            main(["run", "-g", str(theirs.path), "-r", "memory=4096", "cat", str(theirs.file("usage"))])
        except SystemExit as end:
            return end.code
        return None

    with mounted("-o", "allow_other") as tree:
        theirs = tree.root.mkdir("theirs")
        theirs.file("lease").chmod(0o666)
        reader, writer = os.pipe()
        saved = os.dup(1)
        os.dup2(writer, 1)
        try:
            assert as_user(NOBODY, hold) == 0
        finally:
            os.dup2(saved, 1)
            for descriptor in (saved, writer):
                os.close(descriptor)
        with os.fdopen(reader) as output:
            assert output.read() == "4096\n"
        assert theirs.usage == 0
