"""The daemon's log: its destination and its format."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.daemon.logs import SystemLog
from tests.cli.place import Place, run


class Receiver:
    """A socket in place of the log daemon's."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(60)

    def line(self) -> str:
        return self.socket.recv(65536).decode()


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[logging.Logger]:
    logger = logging.Logger("test")
    handler = SystemLog(str(tmp_path / "log"))
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_a_record_carries_its_severity_and_the_pid(logger: logging.Logger, tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "log")
    with receiver.socket:
        logger.warning("something is %s", "off")
        assert receiver.line() == f"<28>fsmount[{os.getpid()}]: something is off"
        logger.error("worse")
        assert receiver.line().startswith("<27>")
        logger.info("naja \udcff")
        assert receiver.line() == f"<30>fsmount[{os.getpid()}]: naja \\udcff"


def test_the_log_finds_a_restarted_log_daemon(logger: logging.Logger, tmp_path: Path) -> None:
    with Receiver(tmp_path / "log").socket:
        logger.info("one")
    logger.info("lost")
    receiver = Receiver(tmp_path / "log")
    with receiver.socket:
        logger.info("two")
        assert receiver.line().endswith(": two")


def test_a_log_daemon_that_does_not_read_blocks_no_caller(logger: logging.Logger, tmp_path: Path) -> None:
    with Receiver(tmp_path / "log").socket:
        for number in range(10_000):
            logger.info("%d", number)


@pytest.mark.parametrize("options", [["-f"], ["-f", "--debug"], ["--debug"]], ids=" ".join)
def test_an_error_of_mount_is_one_line_with_any_log(place: Place, options: list[str]) -> None:
    done = run("mount", place.path, "-o", "bogus", *options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    *logged, last = done.stderr.splitlines()
    assert last == f"fsmount: {place.path}: FUSE does not know the option bogus: correct -o"
    assert bool(logged) == (options == ["-f", "--debug"])


def test_a_background_daemon_writes_nothing_to_the_output_of_its_command(place: Place) -> None:
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    place.daemons.add(place.daemon)
    place.signal(signal.SIGTERM)
    assert (done.stdout, done.stderr) == ("", "")
