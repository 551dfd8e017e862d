"""A program in a pseudo-terminal, and the screen that a terminal would show."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest


class Terminal:
    """A pseudo-terminal of xterm's kind with one program."""

    def __init__(self, *command: object, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        #: All bytes that the program has written.
        self.written = b""
        self.resize(columns, rows)
        #: The terminal's settings before the program began.
        self.before = termios.tcgetattr(slave)
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=inherited | {"TERM": "xterm-256color", "PS1": "$ "} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave = slave  # stays open: its settings are read after the program has ended

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, condition: Callable[[], object], *, within: float = 60) -> None:
        """Waits until the condition holds, and looks again after each write: the screen may be half drawn."""
        deadline = time.monotonic() + within
        while not condition():
            if not self._read(deadline - time.monotonic()):
                pytest.fail(f"not within {within:g} s; the screen:\n{self.text}")

    def until_shown(self, text: str) -> str:
        """Waits for the text, and returns the line with it."""
        self.until(lambda: text in self.text)
        return next(line for line in self.lines if text in line)

    def until_wrapped(self, text: str) -> None:
        """Waits for the text, which the screen may break into lines."""
        self.until(lambda: "".join(text.split()) in "".join(self.text.split()))

    def end(self, *, within: float = 60) -> int:
        """Waits until the program ends by itself, and returns its exit status."""
        ended = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + within
            while not select.select([ended], [], [], 0)[0]:
                ready, _, _ = select.select([self._master, ended], [], [], deadline - time.monotonic())
                assert ready, f"not ended within {within:g} s; the screen:\n{self.text}"
                if self._master in ready:
                    self._read(0)
        finally:
            os.close(ended)
        os.write(self._slave, b"\0")  # invisible, and behind everything that the program has written
        while not self.written.endswith(b"\0"):
            assert self._read(within), "the last output does not arrive"
        return self.process.wait()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def before_cursor(self) -> str:
        """The text between the start of the line and the cursor, with trailing spaces."""
        cursor = self.screen.cursor
        return self.screen.display[cursor.y][: cursor.x]

    def colours(self, text: str) -> set[str]:
        """The colours of a text on the screen; none while the text is absent."""
        for row, line in enumerate(self.lines):
            if text in line:
                return {self.screen.buffer[row][line.index(text) + at].fg for at in range(len(text))}
        return set()

    @property
    def selected(self) -> str:
        """The first word of the inverted line; empty while the screen is being drawn."""
        found = [line for row, line in enumerate(self.lines) if self.screen.buffer[row][0].reverse]
        return found[0].split()[0] if len(found) == 1 and found[0] else ""

    @property
    def is_as_before(self) -> bool:
        """Whether the settings, the main screen and the cursor are as they were before the program."""
        leaves = self.written.rfind(b"\x1b[?1049l") >= self.written.rfind(b"\x1b[?1049h")
        return leaves and termios.tcgetattr(self._slave) == self.before and not self.screen.cursor.hidden

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, seconds: float) -> bool:
        """Reads output; false if none came within that time."""
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            return False
        part = os.read(self._master, 65536)
        self.written += part
        self._stream.feed(part)
        return True


@contextlib.contextmanager
def fsmount(*arguments: object, columns: int = 80, rows: int = 24, **environment: str) -> Iterator[Terminal]:
    """The command fsmount in a terminal."""
    terminal = Terminal(sys.executable, "-m", "fsmount", *arguments, columns=columns, rows=rows, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def shell(directory: Path) -> Iterator[Terminal]:
    """An interactive bash with job control in a terminal."""
    terminal = Terminal("bash", "--norc", "--noprofile", "-i")
    try:
        terminal.press(f"cd '{directory}'; alias fsmount='{sys.executable} -m fsmount'; clear\n")
        yield terminal
    finally:
        terminal.press("\x04")
        terminal.close()
