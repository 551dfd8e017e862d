"""fsmount run: what is held lasts as long as the command, whoever is killed."""

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

# Each says when it is there, and goes on with a line of its input.
WAITS = ["sh", "-c", "echo $$; read line; exit 7"]
CLOSES_ALL = [sys.executable, "-c", "import os; os.closerange(3, 100); print(os.getpid(), flush=True); input()"]
LEAVES_A_CHILD = ["sh", "-c", "sleep 60 >/dev/null & echo $!; read line"]
TELLS_OF_TERM = ["sh", "-c", "trap 'echo told; exit 3' TERM; echo $$; while :; do read line; done"]

TELLS_FIRST_SIGNAL = """
import os, signal
os.setpgid(0, 0)
signals = [signal.SIGINT, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("there", flush=True)
print(signal.sigwait(signals).name, flush=True)
"""
IGNORES_CHILDREN = "import os, signal, sys; signal.signal(17, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


class Running:
    """fsmount run with a command that has said its pid, or another that matters."""

    def __init__(self, group: GroupFiles, command: list[str], *more: str) -> None:
        wanted = [word for amount in ("memory=4096", *more) for word in ("-r", amount)]
        words = [sys.executable, "-m", "fsmount", "run", "-g", str(group.path), *wanted, "--"]
        # in a process group of its own: nobody can be stopped by SIGTSTP in one whose parents are all gone
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


def refunded(group: GroupFiles) -> None:
    eventually(lambda: group.usage == 0, what="what was held is given back")


def test_it_holds_while_the_command_runs_and_ends_as_it_does(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        assert [(line.pid, line.held) for line in group.holders()] == [(it.pid, 4096)]
        it.tell()
        assert it.process.wait(60) == 7
        assert group.usage == 0  # at once: the next line of a script finds the room


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
def test_the_exit_status_is_as_of_env(group: GroupFiles, command: list[str], status: int) -> None:
    done = run("run", "--group", group.path, "-r", "memory=1", "-r", "tokens=1", *command)
    assert done.returncode == status
    assert done.stdout == "" and done.stderr.count("\n") == (status in (126, 127)), done
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)


def test_options_behind_the_command_are_the_commands(group: GroupFiles) -> None:
    done = run("run", "-g", group.path, "-r", "memory=1", "echo", "-g", "--help", "--")
    assert (done.returncode, done.stdout) == (0, "-g --help --\n")


def test_a_command_whose_resources_are_refused_is_not_started(group: GroupFiles) -> None:
    group.set_limit(10, "tokens")
    done = run("run", "-g", group.path, "-r", "memory=4096", "-r", "tokens=11", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith(f"fsmount: {group.path}: 11 more of tokens would pass the limit of {group.path}: ")
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)
    assert group.number("max_usage") == 0, "nobody ever saw a part of it"


def test_an_impossible_charge_has_status_125(group: GroupFiles) -> None:
    for path, word in ((group.path / "none", "memory=1"), (Path("/"), "memory=1"), (group.path, "beans=1")):
        done = run("run", "-g", path, "-r", word, "echo", "started")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"fsmount: {path}: ") and done.stderr.count("\n") == 1


def test_a_signal_is_passed_on(group: GroupFiles) -> None:
    with running(group, TELLS_OF_TERM) as it:
        it.process.terminate()
        assert it.line() == "told\n"
        assert it.process.wait(60) == 3
        assert group.usage == 0


def test_a_command_that_dies_of_a_signal_gives_back(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        os.kill(it.pid, signal.SIGKILL)
        assert it.process.wait(60) == 128 + signal.SIGKILL
        assert group.usage == 0


def test_a_command_whose_wrapper_is_killed_goes_on_and_holds_until_it_ends(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.kill()
        it.process.wait()
        assert not has_ended(it.pid)
        assert group.usage == 4096
        it.tell()
        refunded(group)


def test_several_resources_are_one_lease_that_is_inherited_too(group: GroupFiles) -> None:
    with running(group, WAITS, "tokens=3") as it:
        assert [(line.pid, line.held) for line in group.holders("tokens")] == [(it.pid, 3)]
        it.process.kill()
        it.process.wait()
        assert (group.usage, group.number("usage", "tokens")) == (4096, 3)
        it.tell()
        refunded(group)
        assert group.number("usage", "tokens") == 0


@pytest.mark.parametrize("more", [(), ("tokens=3",)], ids=["one-resource", "whole-group"])
def test_the_holder_is_the_command_and_stays_it_when_its_wrapper_is_killed(
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
        refunded(group)


def test_the_holder_has_the_name_of_what_the_command_becomes(group: GroupFiles) -> None:
    with running(group, ["sh", "-c", "echo $$; read line; exec cat"]) as it:
        it.tell()
        eventually(lambda: [(line.pid, line.command) for line in group.holders()] == [(it.pid, "lease:cat")])


def test_a_refusal_names_the_command_and_the_one_that_holds_the_most(group: GroupFiles) -> None:
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


def test_a_signal_that_ends_the_process_before_it_is_the_command_ends_the_wait(group: GroupFiles) -> None:
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


def test_a_script_without_an_interpreter_is_run_by_the_shell(group: GroupFiles, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $0 $*\n")
    script.chmod(0o755)
    done = run("run", "-g", group.path, "-r", "memory=1", script, "a", "b")
    assert (done.returncode, done.stdout) == (0, f"{script} a b\n")


def test_both_killed_at_once_give_back(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.kill()
        os.kill(it.pid, signal.SIGKILL)
        refunded(group)


def test_a_command_that_closes_all_descriptors_still_holds(group: GroupFiles) -> None:
    with running(group, CLOSES_ALL) as it:
        assert group.usage == 4096
        it.tell()
        assert it.process.wait(60) == 0
        assert group.usage == 0


def test_processes_that_the_command_leaves_behind_hold_nothing(group: GroupFiles) -> None:
    with running(group, LEAVES_A_CHILD) as it:
        it.tell()
        assert it.process.wait(60) == 0
        assert not has_ended(it.pid)
        assert group.usage == 0


def test_a_stop_stops_both_and_both_go_on(group: GroupFiles) -> None:
    with running(group, WAITS) as it:
        it.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(it.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and state(it.pid) == "T"
        assert group.usage == 4096
        it.process.send_signal(signal.SIGCONT)
        it.tell()
        assert it.process.wait(60) == 7


def test_a_signal_from_the_terminal_is_not_passed_on_again(group: GroupFiles) -> None:
    """Told by a command that has left the foreground group: it gets only what is passed on."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = ["fsmount", "run", "-g", str(group.path), "-r", "memory=1", sys.executable, "-c", TELLS_FIRST_SIGNAL]
        os.execv(sys.executable, [sys.executable, "-m", *words])
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        assert screen.readline() == b"there\r\n"
        screen.write(b"\x03")
        assert screen.read(1) + screen.read(1) == b"^C"  # it has been sent
        os.kill(pid, signal.SIGUSR1)
        assert screen.readline() == b"SIGUSR1\r\n"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert group.usage == 0


def test_a_caller_that_ignores_the_end_of_children_loses_no_status(group: GroupFiles) -> None:
    words = [sys.executable, "-m", "fsmount", "run", "-g", str(group.path), "-r", "memory=1", "sh", "-c", "exit 7"]
    assert subprocess.run([sys.executable, "-c", IGNORES_CHILDREN, *words], timeout=60, check=False).returncode == 7


@pytest.mark.root
def test_it_holds_in_a_tree_of_somebody_else() -> None:
    from fsmount.cli import main
    from fsmount.cli.commands import run  # noqa: F401  before the other user, who may not see the sources

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
        with os.fdopen(reader) as said:
            assert said.read() == "4096\n"
        assert theirs.usage == 0
