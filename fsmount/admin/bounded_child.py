"""Calls in a child process with a time limit, for work that another user's file system could block for ever.

A thread is not enough.  A request that a FUSE daemon has read and does not answer survives even SIGKILL, and a process
with such a thread cannot end.  The child can be abandoned: it has no file open whose close another process awaits.

The child may also act as another user.  When a user controls a file, root reads it with the rights of that user, so no
link, rename or mount leads root to a file that the user could not have reached.
"""

from __future__ import annotations

import array
import contextlib
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn, TypeVar

Value = TypeVar("Value")

#: The time limit in seconds.  A live daemon answers in well under a millisecond, a stopped one never.
PATIENCE = 5.0

_PIECE = 65536
_FILES_MAX = 8


class User(NamedTuple):
    """The user and group that a child acts as."""

    uid: int
    gid: int


class NoAnswer(Exception):
    """The call did not return in time."""


def bounded(action: Callable[[], Value], *, user: User | None = None, keep: Iterable[int] = ()) -> Value:
    """Runs the action in a child; returns its result, or raises its exception.  NoAnswer: it did not return in time.

    user: the user that the child acts as; None: the caller.  keep: the descriptors that stay open in the child.
    """
    value, files = bounded_files(lambda: (action(), []), user=user, keep=keep)
    assert not files
    return value


def bounded_files(
    action: Callable[[], tuple[Value, list[int]]], *, user: User | None = None, keep: Iterable[int] = ()
) -> tuple[Value, list[int]]:
    """As bounded(), for an action that also returns descriptors; the caller closes them."""
    here, there = socket.socketpair()
    with here:
        child = os.fork()
        if child == 0:
            _act(action, user, there, {there.fileno(), *keep})
        there.close()
        try:
            answer, files = _received(here, time.monotonic() + PATIENCE)
        except BaseException:
            os.kill(child, signal.SIGKILL)  # a child keeps its pid until its parent waits for it
            _reap(child)
            raise
    os.waitpid(child, 0)
    outcome = pickle.loads(answer)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome[0], files


def _reap(child: int) -> None:
    """Waits a moment for a killed child: one that is in an uninterruptible request may never end."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(child)
        select.select([process], [], [], 0.1)
        os.close(process)
        os.waitpid(child, os.WNOHANG)


def _received(connection: socket.socket, deadline: float) -> tuple[bytes, list[int]]:
    pieces: list[bytes] = []
    files = array.array("i")
    room = socket.CMSG_SPACE(_FILES_MAX * files.itemsize)
    while True:
        if not select.select([connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise NoAnswer
        piece, ancillary, _, _ = connection.recvmsg(_PIECE, room, socket.MSG_CMSG_CLOEXEC)
        for _, _, data in ancillary:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
        if not piece:
            break
        pieces.append(piece)
    if not pieces:
        raise NoAnswer  # the child was killed
    return b"".join(pieces), list(files)


def _act(action: Callable[[], Any], user: User | None, connection: socket.socket, keep: set[int]) -> NoReturn:
    try:
        _close_all_but(keep)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        files: list[int] = []
        try:
            if user is not None:
                os.setgroups([])
                os.setresgid(user.gid, user.gid, user.gid)
                os.setresuid(user.uid, user.uid, user.uid)
            value, files = action()
            answer = pickle.dumps((value,))
        except Exception as error:
            answer = pickle.dumps(error)
        socket.send_fds(connection, [answer[:1]], files)
        connection.sendall(answer[1:])
    finally:
        os._exit(0)


def _close_all_but(keep: set[int]) -> None:
    """Closes inherited files: another process may wait for their last close."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {0, 1, 2} - keep:
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if (descriptor := int(name)) > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
