"""A group to be charged, and programs that charge it: in the region, through files, and with no daemon at all."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsmount
from fsmount import Tree
from tests.mounts import GroupFiles, eventually


def attach_in(how: Any, where: str, on_exit: Any = "release") -> Any:
    """Attaches in the way of the scene."""
    if how != "region":
        return fsmount.attach(where, on_exit=on_exit, transport=how)
    return Tree.open(where).root.child("group").attach(on_exit=on_exit)


#: The beginning of each program. A program waits by reading a byte, so that children may wait at the same pipe.
PRELUDE = f"""
import ctypes, os, signal, subprocess, sys, threading, time
from typing import Any
import fsmount
from fsmount import Tree
{inspect.getsource(attach_in)}
how, where = sys.argv[1:3]
def attach(on_exit="release"):
    return attach_in(how, where, on_exit)
def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")
def wait():
    return os.read(0, 1)
"""


class Program:
    """A Python that runs a program in a scene. It prints lines, and each byte of input lets it go on."""

    def __init__(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line, f"the program ended: {self.process.wait(60)}"
        return line.rstrip("\n")

    def go(self, times: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"x" * times)
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def close(self) -> None:
        """Ends the program and every process that waits at its input."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait(60)


class Scene:
    """A group that is charged in the "memory" of a mounted tree, through its "files", or in a "region" alone."""

    def __init__(self, how: str, where: Path, tree: Tree | None = None) -> None:
        self.how, self.where = how, where
        self._files = GroupFiles(where)
        self._tree = tree

    @property
    def mounted(self) -> bool:
        return self._tree is None

    def attach(self, on_exit: fsmount.OnExit = "release") -> Any:
        return attach_in(self.how, str(self.where), on_exit)

    @contextmanager
    def running(self, program: str, *arguments: object) -> Iterator[Program]:
        running = Program(program, self.how, self.where, *arguments)
        try:
            yield running
        finally:
            running.close()

    def held(self) -> tuple[int, int]:
        """The usage, and the part that the group itself holds. Without a daemon this call searches for dead holders."""
        if self._tree is not None:
            self._tree.reap()
            stat = self._tree.root.child("group")["memory"].stat()
        else:
            stat = self._files.stat()
        return stat["usage"] - stat["common"], stat["common"]

    def settles(self, held: int, common: int = 0) -> None:
        eventually(lambda: self.held() == (held, common), what=f"{held} held and {common} kept")

    def stays(self, held: int, common: int = 0) -> None:
        """After the answers to these requests, the daemon has handled everything it was sent before them."""
        assert [self.held() for _ in range(20)] == [(held, common)] * 20

    def no_holder_is_left(self) -> None:
        if self._tree is not None:
            self._tree.reap()
            assert self._tree.holders() == []
            assert self._tree.check() == []
        else:
            eventually(lambda: all(line.pid == 0 for line in self._files.holders()))

    def empty(self) -> None:
        if self._tree is None:
            self._files.write("force_empty", "1")
            assert self._files.usage == 0


def forked(pid: int) -> int:
    """The exit status of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
