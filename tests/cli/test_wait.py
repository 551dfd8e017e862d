"""fsmount wait, and the option --wait of charge and run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.place import run
from tests.mounts import GroupFiles, eventually

FSMOUNT = [sys.executable, "-m", "fsmount"]


@pytest.fixture
def full(group: GroupFiles) -> GroupFiles:
    """A group with a limit of 10 of memory, all of it charged, and a limit of 2 tokens."""
    group.set_limit(10)
    group.charge(10)
    group.set_limit(2, "tokens")
    return group


def is_waited_for(group: GroupFiles) -> bool:
    """Whether a request waits: a request for 1 unit, for which there is room, queues behind it."""
    with group.lease() as lease, suppress(BlockingIOError):
        lease.write("wait 1")
        return False
    return True


@contextmanager
def room_for_a_waiting_request(group: GroupFiles, amount: int) -> Iterator[None]:
    """Makes that room as soon as a request for more than 1 unit waits."""

    def make_room() -> None:
        eventually(lambda: is_waited_for(group), what="a waiting request")
        group.uncharge(amount - 1)

    group.uncharge(1)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(make_room)
        yield
        done.result()


def test_wait_returns_when_there_is_room_and_charges_nothing(full: GroupFiles) -> None:
    with room_for_a_waiting_request(full, 4):
        done = run("wait", str(full.path), "memory=4", "tokens=2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (full.usage, full.number("usage", "tokens")) == (6, 0)


def test_wait_returns_at_once_if_there_is_room(full: GroupFiles) -> None:
    assert run("wait", str(full.path), "tokens=2").returncode == 0


@pytest.mark.parametrize("command", [["wait", "--timeout", "100ms"], ["charge", "--wait=0.1s"]], ids=lambda c: c[0])
def test_a_wait_beyond_its_timeout_has_status_75(full: GroupFiles, command: list[str]) -> None:
    done = run(*command, str(full.path), "memory=4")
    assert done.returncode == 75
    assert "4 more of memory would pass the limit" in done.stderr
    assert full.usage == 10


def test_charge_waits_and_charges_the_group_itself(full: GroupFiles) -> None:
    with room_for_a_waiting_request(full, 8):
        assert run("charge", "--wait", str(full.path), "memory=4", "tokens=1").returncode == 0
    assert (full.usage, full.number("usage", "tokens")) == (6, 1)
    assert full.stat()["common"] == 6
    full.uncharge(1, "tokens")


def test_run_waits_and_then_starts_the_command(full: GroupFiles) -> None:
    with room_for_a_waiting_request(full, 8):
        done = run(
            "run", "-g", str(full.path), "-r", "memory=4", "-r", "tokens=2", "--wait=60s", "--",
            "cat", str(full.file("usage")), str(full.file("usage", "tokens")),
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "6\n2\n")
    eventually(lambda: (full.usage, full.number("usage", "tokens")) == (2, 0))


def test_words_after_wait_are_the_command(full: GroupFiles) -> None:
    done = run("run", "-g", str(full.path), "-r", "tokens=1", "--wait", "echo", "--wait")
    assert (done.returncode, done.stdout) == (0, "--wait\n")


@pytest.mark.parametrize("time", ["30", "30s", "500ms", "1.5m", "1h", "2d"])
def test_a_time_after_wait_is_its_timeout(full: GroupFiles, time: str) -> None:
    done = run("run", "-g", full.path, "-r", "tokens=1", "--wait", time, "--", "echo", "started")
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert run("charge", "--wait", time, full.path, "tokens=1").returncode == 0
    assert run("charge", full.path, "tokens=1", "--wait", time).returncode == 0
    full.uncharge(2, "tokens")


def test_a_time_after_wait_ends_the_wait(full: GroupFiles) -> None:
    assert run("run", "-g", full.path, "-r", "memory=4", "--wait", "0.1s", "--", "true").returncode == 75
    assert run("run", "--wait", "100ms", "-g", full.path, "-r", "memory=4", "true").returncode == 75
    assert run("charge", "--wait", "100ms", full.path, "memory=4").returncode == 75


@pytest.mark.parametrize("words", [["--wait", "./30s"], ["--wait", "--", "30s"], ["--wait=1h", "30s"]], ids=" ".join)
def test_a_command_may_be_named_like_a_time(full: GroupFiles, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "30s").symlink_to("/bin/echo")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*FSMOUNT, "run", "-g", str(full.path), "-r", "tokens=1", *words, "started"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "started\n")


def test_wait_with_a_time_and_no_command_has_status_2(full: GroupFiles) -> None:
    done = run("run", "-g", full.path, "-r", "tokens=1", "--wait", "30s")
    assert done.returncode == 2 and "Missing argument" in done.stderr


def test_an_option_after_wait_is_an_option(full: GroupFiles) -> None:
    for words in (["-r", "tokens=1", "--wait", "-g", full.path], ["--wait", "-r", "tokens=1", "-g", full.path]):
        assert run("run", *words, "--", "true").returncode == 0


def test_run_does_not_wait_for_a_command_that_cannot_run(full: GroupFiles, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("true\n")
    (tmp_path / "lost").write_text("#!/no/such/interpreter -e\n")
    (tmp_path / "lost").chmod(0o755)
    (tmp_path / "lists").mkdir()
    environment = os.environ | {"PATH": f"{tmp_path}/none:{tmp_path}"}
    for command, status, error in (
        ("no-such-command", 127, "no-such-command: there is no such command\n"),
        ("./no-such-command", 127, "no such command\n"),
        ("plain/below", 127, "no such command\n"),
        ("30sec", 127, "30sec: there is no such command, and it is not a time for --wait, such as 30s\n"),
        ("lost", 127, "names the interpreter /no/such/interpreter, which does not exist\n"),
        ("./lost", 127, "names the interpreter /no/such/interpreter, which does not exist\n"),
        ("", 127, "no such command\n"),
        ("plain", 126, "plain: cannot be run: Permission denied\n"),
        ("./plain", 126, "cannot be run: Permission denied\n"),
        ("lists", 126, "cannot be run: it is a directory\n"),
        (f"{tmp_path}", 126, "cannot be run: it is a directory\n"),
        ("x" * 300, 126, "cannot be run: File name too long\n"),
    ):
        words = [*FSMOUNT, "run", "-g", str(full.path), "-r", "memory=4", "--wait", command]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (status, "") and done.stderr.endswith(error), done
    assert full.number("failcnt") == 0, "a request was made"


def test_run_searches_a_command_like_execvp(full: GroupFiles, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "greet").write_text("cannot be run\n")
    (tmp_path / "greet").symlink_to("/bin/echo")
    for path in (f"/none:{tmp_path}/shadow:{tmp_path}", "/none:", ""):
        words = [*FSMOUNT, "run", "-g", str(full.path), "-r", "tokens=1", "greet", "hello"]
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "hello\n"), (path, done)


def test_a_signal_ends_a_waiting_command_which_has_charged_nothing(full: GroupFiles) -> None:
    words = [*FSMOUNT, "run", "-g", str(full.path), "-r", "memory=4", "--wait", "--", "true"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            eventually(lambda: any(line.pid for line in full.holders()))
            process.send_signal(number)
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert process.returncode == -number
        eventually(lambda: not any(line.pid for line in full.holders()))
    full.uncharge(4)
    assert full.usage == 6


def test_waiting_requests_are_served_in_order(full: GroupFiles) -> None:
    path = str(full.path)
    full.uncharge(1)
    words = [*FSMOUNT, "run", "-g", path, "-r", "memory=6", "--wait", "--", "true"]
    with subprocess.Popen(words) as large:
        eventually(lambda: is_waited_for(full))
        with subprocess.Popen([*FSMOUNT, "charge", "--wait", path, "memory=1"]) as small:
            eventually(lambda: any(line.pid == small.pid for line in full.holders()))
            full.uncharge(4)
            time.sleep(0.1)  # time in which the small request could overtake
            assert (large.poll(), small.poll(), full.usage) == (None, None, 5)
            full.uncharge(1)
            assert large.wait(60) == 0
            assert small.wait(60) == 0
    eventually(lambda: full.usage == 5)
