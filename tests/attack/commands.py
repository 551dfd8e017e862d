"""Commands of root, each in a separate process that starts with everything imported: 20 ms instead of 300."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import select
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from types import FrameType

from tests.attack.scene import ROOT, SECRET, command, end, process_of

#: In seconds: a command that takes longer hangs.
PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    """The end of a command of root: its status, output and duration."""

    arguments: list[str]
    status: int
    text: str  # standard output and standard error
    seconds: float

    def differences(self) -> list[str]:
        """The signs of a fault in the command: a bad status, a traceback, a secret or a hang."""
        found = []
        if self.status not in (0, 1, 75):
            found.append(f"it ended with status {self.status}")
        if "Traceback" in self.text or "Error:" in self.text:
            found.append("it shows a traceback")
        if SECRET in self.text:
            found.append("it shows what the attacker may not read")
        if self.seconds > PATIENCE:
            found.append(f"it took {self.seconds:.0f} s")
        return [f"fsmount {' '.join(map(ascii, self.arguments))}: {what}: {self.text}" for what in found]


class Window:
    """Stops a command right before its nth system call, and lets the attacker act there."""

    def __init__(self, address: str, at: int | None) -> None:
        self._address = address
        self._at = at
        self._calls = 0
        self._counted = mmap.mmap(-1, 8)  # shared with the daemon that the command becomes

    @property
    def calls(self) -> int:
        """The largest number of system calls that one process made."""
        return int.from_bytes(self._counted[:8], "little")

    def __enter__(self) -> Window:
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, called: object) -> None:
        if event != "c_call" or not _asks_the_system(called):
            return
        self._calls += 1
        if self._calls > self.calls:
            self._counted[:8] = self._calls.to_bytes(8, "little")
        if self._calls == self._at:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attacker:
                attacker.connect(self._address)
                attacker.recv(1)


def _asks_the_system(called: object) -> bool:
    module = getattr(called, "__module__", None)
    name = getattr(called, "__name__", "")
    return (module in ("posix", "_io", "_signal", "pyfuse3") and name not in _QUIET) or name in (
        "init",
        "close",
        "open",
    )


_QUIET = frozenset("fspath fsencode fsdecode getpid write flush getvalue writable readable isatty closed".split())


def run(arguments: list[str], window: Window | None = None) -> Ended:
    """Runs a command of root to its end, or until it hangs."""
    output = os.memfd_create("output")

    def act() -> int:
        with window or contextlib.nullcontext():
            return command(arguments)

    began = time.monotonic()
    pid = process_of(ROOT, act, output=output)
    try:
        status = _wait(pid, PATIENCE)
        text = os.pread(output, 1 << 20, 0).decode(errors="replace")
    finally:
        os.close(output)
    return Ended(arguments, status, text, time.monotonic() - began)


def _wait(pid: int, seconds: float) -> int:
    """Returns the exit status of the process, and kills a process that hangs."""
    process = os.pidfd_open(pid)
    try:
        if not select.select([process], [], [], seconds)[0]:
            end(pid)
            return -signal.SIGALRM
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(process)


def export(mountpoint: str) -> Ended:
    """Runs root's exporter until it has answered once, or refused to start."""
    arguments = ["exporter", mountpoint, "--listen", "127.0.0.1:0"]
    reader, writer = os.pipe()
    began = time.monotonic()
    pid = process_of(ROOT, lambda: command(arguments), output=writer)
    os.close(writer)
    text = ""
    answer = b""
    try:
        while time.monotonic() - began < PATIENCE and select.select([reader], [], [], PATIENCE)[0]:
            piece = os.read(reader, 65536).decode(errors="replace")
            text += piece
            if found := re.search(r"http://\S+/metrics", text):
                with contextlib.suppress(OSError):
                    answer = _get(found[0])
                os.kill(pid, signal.SIGTERM)
                break
            if not piece:
                break
        status = _wait(pid, PATIENCE)
    finally:
        os.close(reader)
    return Ended(arguments, status, text + answer.decode(errors="replace"), time.monotonic() - began)


def _get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bytes(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        with error:
            return error.read(4096)
