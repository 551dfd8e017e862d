"""Sessions of bash, dash and busybox sh: the commands of a user, and their output."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounts import AS_ROOT, UNLIMITED, GroupFiles, eventually

BUSY = os.strerror(16)
INVALID = os.strerror(22)
TOO_LONG = os.strerror(7)
NO_MEMORY = os.strerror(12)
NOT_PERMITTED = os.strerror(1)
PERMISSION_DENIED = os.strerror(13)
OUT_OF_RANGE = os.strerror(34)


@pytest.fixture
def run(shell: list[str], group: GroupFiles) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script in the group's directory."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*shell, "-c", script],
            cwd=group.path,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


Run = Callable[[str], "subprocess.CompletedProcess[str]"]

# Each session and its output; all succeed without output on stderr.
SESSIONS = {
    "a limit": ("echo 512M > memory.limit_in_bytes; cat memory.limit_in_bytes", "536870912\n"),
    "a limit lifted": (
        "echo 5 > memory.limit_in_bytes; echo -1 > memory.limit_in_bytes; cat memory.limit_in_bytes",
        f"{UNLIMITED}\n",
    ),
    "max": ("echo 5 > tokens.limit; echo max > tokens.limit; cat tokens.limit", f"{UNLIMITED}\n"),
    "appending": ("echo 4097 >> memory.limit_in_bytes; cat memory.limit_in_bytes", "4097\n"),
    "hexadecimal": ("printf 0x10K > memory.soft_limit_in_bytes; cat < memory.soft_limit_in_bytes", "16384\n"),
    "charging": (
        "echo 4097 > memory.charge; echo 1K >> memory.charge; cat memory.usage_in_bytes; "
        "echo 5k > memory.uncharge; cat memory.usage_in_bytes; cat memory.max_usage_in_bytes",
        "5121\n1\n5121\n",
    ),
    "resetting the peak": (
        "echo 500 > memory.charge; echo 400 > memory.uncharge; echo > memory.max_usage_in_bytes; "
        "cat memory.max_usage_in_bytes",
        "100\n",
    ),
    "force_empty": ("echo 77 > memory.charge; echo 0 > memory.force_empty; cat memory.usage_in_bytes", "0\n"),
    "truncating only": (
        "echo 77 > memory.limit_in_bytes; : > memory.limit_in_bytes; printf '' > memory.limit_in_bytes; "
        "true >> memory.limit_in_bytes; cat memory.limit_in_bytes",
        "77\n",
    ),
    "several files": ("cat memory.usage_in_bytes memory.failcnt tokens.usage tokens.max_usage", "0\n0\n0\n0\n"),
    "a value in a variable": (
        "echo 1000 > memory.charge; usage=$(cat memory.usage_in_bytes); echo $((usage + 1))",
        "1001\n",
    ),
    "the read builtin": ('echo 4097 > memory.charge; read usage < memory.usage_in_bytes; echo "$usage"', "4097\n"),
    "a loop over stat": (
        "echo 7 > memory.charge; while read key value; do case $key in usage|common|failcnt) "
        "echo $key=$value;; esac; done < memory.stat",
        "usage=7\ncommon=7\nfailcnt=0\n",
    ),
    "grep": ("echo 7 > memory.charge; grep '^usage ' memory.stat", "usage 7\n"),
    "wc and head": ("wc -c < memory.usage_in_bytes; head -n 1 memory.stat", "2\nusage 0\n"),
    "tee": ("echo 123 | tee memory.limit_in_bytes memory.soft_limit_in_bytes", "123\n"),
    "dd": (
        "printf 12345 | dd of=memory.limit_in_bytes 2>/dev/null; dd if=memory.limit_in_bytes bs=2 count=2 2>/dev/null",
        "1234",
    ),
    "groups": (
        "mkdir a a/b 'c d'; echo 5 > a/b/memory.charge; cat memory.usage_in_bytes a/memory.usage_in_bytes; "
        "mv a e; cat e/b/memory.usage_in_bytes; echo 5 > e/b/memory.uncharge; rmdir e/b e 'c d'; echo *.usage",
        "5\n5\n5\ntokens.usage\n",
    ),
    "mkdir -p": ("mkdir -p a/b/c; mkdir -p a/b/c; cat a/b/c/memory.usage_in_bytes; rmdir -p a/b/c", "0\n"),
    "tests on files": (
        "test -f memory.stat && test -r memory.stat && test -d . && test ! -e memory.nothing && "
        "test -s memory.stat && test ! -s memory.charge && echo all",
        "all\n",
    ),
    "chmod": (
        "chmod 600 memory.limit_in_bytes; echo 5 > memory.limit_in_bytes; stat -c '%a %s %h' memory.limit_in_bytes",
        "600 4096 1\n",
    ),
    "copying a value out of a file": (
        "echo 99 > tokens.limit; cat tokens.limit > memory.limit_in_bytes; cat memory.limit_in_bytes",
        "99\n",
    ),
    "a lease": (
        "exec 9<>memory.lease; echo 100 >&9; cat memory.usage_in_bytes; echo +11 >&9; echo -1 >&9; "
        "cat memory.usage_in_bytes; exec 9>&-",
        "100\n110\n",
    ),
    "a lease opened write-only": (
        "exec 9>memory.lease; echo 4k >&9; cat memory.usage_in_bytes; exec 9>&-",
        "4096\n",
    ),
    "two leases": (
        "exec 8<>memory.lease 9<>memory.lease; echo 100 >&8; echo 20 >&9; cat memory.usage_in_bytes; cat memory.lease",
        "120\n0\n",
    ),
    "a lease adjusted by subshells and children": (
        "exec 9<>memory.lease; echo 100 >&9; (echo +20 >&9); /bin/echo +3 >&9; cat memory.usage_in_bytes",
        "123\n",
    ),
    "a lease written and read through one descriptor": (
        "exec 9<>memory.lease; echo 100 >&9; cat <&9; echo +23 >&9; read held <&9; echo $held",
        "100\n123\n",
    ),
    "a lease of all resources through one descriptor": (
        "exec 9<>lease; echo memory=100 tokens=2 >&9; cat <&9; echo tokens=-1 >&9; cat <&9",
        "memory=100 tokens=2\nmemory=100 tokens=1\n",
    ),
    "marks through one descriptor": (
        "exec 9<>memory.threshold; echo above 10 >&9; echo 50 > memory.charge; cat <&9",
        "above 10 1\n",
    ),
    "a lease for one command": ("{ echo 50 >&9; cat memory.usage_in_bytes; } 9<>memory.lease", "50\n"),
}


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_prints_the_expected_output(run: Run, session: str) -> None:
    script, output = SESSIONS[session]
    done = run(script)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


# Refused writes: the text, the file, and the text of the errno.
REFUSED = {
    "no number": ("12abc", "memory.limit_in_bytes", INVALID),
    "another unit": ("4kB", "memory.limit_in_bytes", INVALID),
    "an empty line": ("", "memory.limit_in_bytes", INVALID),
    "octal": ("010000", "memory.soft_limit_in_bytes", INVALID),
    "too large": ("8E", "memory.limit_in_bytes", OUT_OF_RANGE),
    "a limit below the usage": ("99", "memory.limit_in_bytes", BUSY),
    "a charge above the limit": ("901", "memory.charge", NO_MEMORY),
    "uncharging more than is held": ("101", "memory.uncharge", OUT_OF_RANGE),
    "a lease above the limit": ("901", "memory.lease", NO_MEMORY),
    "a lease below 0": ("-1", "memory.lease", OUT_OF_RANGE),
}


@pytest.mark.parametrize(
    ("case", "redirection"),
    [*((case, ">") for case in REFUSED), ("no number", ">>"), ("a charge above the limit", ">>")],
)
def test_a_refused_write_prints_its_errno(group: GroupFiles, run: Run, case: str, redirection: str) -> None:
    text, name, message = REFUSED[case]
    group.set_limit(1000)
    group.charge(100)
    before = group.counters()
    done = run(f"/bin/echo '{text}' {redirection} {name}")
    assert message in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    after = group.counters()
    after["failcnt"] = before["failcnt"]
    assert after == before


@pytest.mark.parametrize("case", REFUSED)
def test_a_builtin_echo_fails_on_a_refused_write(group: GroupFiles, run: Run, shell: list[str], case: str) -> None:
    text, name, message = REFUSED[case]
    group.set_limit(1000)
    group.charge(100)
    done = run(f"echo '{text}' > {name}; echo $?")
    assert done.stdout == "1\n"
    # dash says "I/O error" for any errno.
    assert (message if shell != ["dash"] else "I/O error") in done.stderr


def test_a_refused_line_does_not_end_a_session(group: GroupFiles, run: Run) -> None:
    done = run(
        "echo 100 > memory.limit_in_bytes; echo 101 > memory.charge; echo 100 > memory.charge; cat memory.failcnt"
    )
    assert done.stdout == "1\n"
    assert group.usage == 100


def test_set_e_ends_a_script_at_a_refused_line(group: GroupFiles, run: Run) -> None:
    done = run("set -e; echo 100 > memory.limit_in_bytes; echo 101 > memory.charge; echo 1 > memory.charge")
    assert done.returncode != 0
    assert group.usage == 0


def test_a_charge_works_as_a_condition(run: Run) -> None:
    done = run(
        "echo 10 > memory.limit_in_bytes\n"
        "for n in 4 4 4; do if echo $n > memory.charge; then echo in; else echo full; fi; done 2>/dev/null\n"
        "cat memory.usage_in_bytes"
    )
    assert done.stdout == "in\nin\nfull\n8\n"


@pytest.mark.parametrize("name", ["memory.new", "new"])
def test_redirecting_to_a_new_file_is_not_permitted(group: GroupFiles, run: Run, name: str) -> None:
    done = run(f"echo 1 > {name}")
    assert NOT_PERMITTED in done.stderr
    assert done.returncode != 0
    assert not (group / name).exists()


def test_noclobber_prevents_writes_to_a_file(group: GroupFiles, run: Run) -> None:
    done = run("set -C; echo 5 > memory.limit_in_bytes")
    assert done.returncode != 0
    assert done.stderr
    assert group.limit == UNLIMITED
    assert run("set -C; echo 5 >> memory.limit_in_bytes; echo 6 >| memory.limit_in_bytes").returncode == 0
    assert group.limit == 6


def test_writing_a_read_only_file_fails(run: Run) -> None:
    done = run("/bin/echo 1 > memory.usage_in_bytes")
    assert (INVALID if AS_ROOT else PERMISSION_DENIED) in done.stderr
    assert done.returncode != 0


def test_reading_a_write_only_file_fails(run: Run) -> None:
    done = run("cat memory.charge")
    assert (INVALID if AS_ROOT else PERMISSION_DENIED) in done.stderr
    assert (done.stdout, done.returncode) == ("", 1)


def test_a_text_that_is_too_long_fails(group: GroupFiles, run: Run, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"1" * 5000)
    done = run(f"dd bs=5000 if='{tmp_path}/long' of=memory.limit_in_bytes")
    assert TOO_LONG in done.stderr
    assert group.limit == UNLIMITED


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("rm memory.limit_in_bytes", NOT_PERMITTED),
        ("rm -f memory.limit_in_bytes", NOT_PERMITTED),
        ("rm -rf child", NOT_PERMITTED),
        ("ln memory.limit_in_bytes hard", NOT_PERMITTED),
        ("ln -s memory.limit_in_bytes soft", NOT_PERMITTED),
        ("mkfifo fifo", NOT_PERMITTED),
        ("touch new", NOT_PERMITTED),
        ("mkdir memory.stat", os.strerror(17)),
        ("mkdir child", os.strerror(17)),
        ("mkdir 'a\nb'", INVALID),
        ("rmdir .", INVALID),
        ("rmdir child", BUSY),
        ("mv child other", NOT_PERMITTED),
    ],
)
def test_an_impossible_operation_prints_its_errno(group: GroupFiles, run: Run, command: str, message: str) -> None:
    group.mkdir("child").charge(5)
    group.mkdir("other")
    before = sorted(os.listdir(group.path))
    done = run(command)
    assert message in done.stderr, done
    assert done.returncode != 0
    assert sorted(os.listdir(group.path)) == before
    assert group.usage == 5


def test_touch_of_a_control_file_sets_its_time_and_changes_nothing(group: GroupFiles, run: Run) -> None:
    group.set_limit(5)
    done = run("touch -d '2001-02-03 04:05:06' memory.limit_in_bytes; cat memory.limit_in_bytes")
    assert (done.stdout, done.stderr) == ("5\n", "")
    assert os.stat(group / "memory.limit_in_bytes").st_mtime < 1e9


# ---- leases of shells that die


class Session:
    """A shell that runs a script and then waits; a test reads its output line by line."""

    def __init__(self, shell: list[str], group: GroupFiles, script: str) -> None:
        self.process = subprocess.Popen(
            [*shell, "-c", script], cwd=group.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, text: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def session(shell: list[str], group: GroupFiles) -> Iterator[Callable[[str], Session]]:
    started: list[Session] = []

    def start(script: str) -> Session:
        started.append(Session(shell, group, script))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_killing_the_shell_releases_its_lease(
    group: GroupFiles, session: Callable[[str], Session], number: signal.Signals
) -> None:
    one = session("exec 9<>memory.lease; echo 100 >&9; echo held; read line")
    assert one.line() == "held"
    assert group.usage == 100
    one.process.send_signal(number)
    one.process.wait(60)
    eventually(group.empty)
    assert group.holders() == []


def test_the_exit_of_the_shell_releases_its_lease(group: GroupFiles, session: Callable[[str], Session]) -> None:
    one = session("exec 9<>memory.lease; echo 100 >&9; echo held; read line; exit 3")
    assert one.line() == "held"
    one.say()
    assert one.process.wait(60) == 3
    eventually(group.empty)


def test_a_child_of_the_shell_keeps_an_inherited_lease(group: GroupFiles, session: Callable[[str], Session]) -> None:
    one = session("exec 9<>memory.lease 3<&0; echo 100 >&9; cat <&3 >/dev/null & echo $!")
    child = int(one.line())
    one.process.wait(60)
    assert group.usage == 100
    os.kill(child, signal.SIGKILL)
    eventually(group.empty)


def test_closing_the_descriptor_in_the_shell_leaves_the_lease_to_the_child(
    group: GroupFiles, session: Callable[[str], Session]
) -> None:
    one = session(
        "exec 9<>memory.lease 3<&0; echo 100 >&9; cat <&3 >/dev/null & exec 9>&- 3<&-; echo closed; wait; echo done"
    )
    assert one.line() == "closed"
    assert group.usage == 100
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.line() == "done"
    eventually(group.empty)


def test_a_command_runs_under_a_lease(group: GroupFiles, session: Callable[[str], Session]) -> None:
    group.set_limit(1000)
    script = "exec 9<>memory.lease; echo 600 >&9 || exit 1; echo in; read line; exec 9>&-; echo out; read line"
    first, second = session(script), session("read line; " + script)
    assert first.line() == "in"
    second.say()
    assert second.process.wait(60) == 1
    assert (group.usage, group.failcnt) == (600, 1)
    first.say()
    assert first.line() == "out"
    eventually(group.empty)
    third = session(script)
    assert third.line() == "in"
