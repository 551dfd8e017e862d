"""A hostile FUSE mount of another user: its daemon answers no request, or is dead."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

# fusermount3 refuses a user without a name.
USER = pwd.getpwnam("nobody")

_INIT = 26


def become_user() -> None:
    os.setgroups([])
    os.setresgid(USER.pw_gid, USER.pw_gid, USER.pw_gid)
    os.setresuid(USER.pw_uid, USER.pw_uid, USER.pw_uid)


@contextlib.contextmanager
def fuse_mount(path: Path | bytes, *options: str, answers_init: bool = True) -> Iterator[int]:
    """Mounts as that user, and yields the pid of a daemon that reads every request and answers only the first.

    A process that waits for a request which the daemon has read cannot be killed.
    """
    reader, writer = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        try:
            os.close(reader)
            _serve(os.fsencode(path), ",".join(options), answers_init, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        assert answers.read() == b"mounted", f"{path!r} is not mounted"
    try:
        yield daemon
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)


def _serve(path: bytes, options: str, answers_init: bool, answers: int) -> None:
    become_user()
    here, there = socket.socketpair()
    command = [b"fusermount3", b"-o", os.fsencode(options), b"--", path]
    environment = {**os.environ, "_FUSE_COMMFD": str(there.fileno())}
    subprocess.run(command, env=environment, pass_fds=[there.fileno()], check=True)
    _, (device,), _, _ = socket.recv_fds(here, 1, 1)
    os.write(answers, b"mounted")
    os.close(answers)
    while True:
        request = os.read(device, 1 << 20)
        _, operation, unique = struct.unpack_from("=IIQ", request)
        if operation == _INIT and answers_init:
            reply = struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, 1 << 17, 1, 32, 0, 0)
            os.write(device, struct.pack("=IiQ", 16 + len(reply), 0, unique) + reply)
