"""A child that runs a command in place of this process: signals are passed on, and both end in the same way.

The child starts first.  It opens the lease, so it is the holder, and waits until this process has charged the amounts.
Until then it has the name of the command and does nothing; if this process dies, the child ends.

Signals are blocked and accepted one at a time, so none is lost.  A signal from a process is passed on.  A signal from
the terminal (^C, ^\\, ^Z) reaches the whole foreground process group, with the child in it, and is not passed on again.
A hangup is always passed on, because it may reach this process only.  When the child stops, as by ^Z, this process
stops, too: the shell waits for this process.
"""

from __future__ import annotations

import _socket  # the module socket adds enumerations, which take 2 ms
import contextlib
import errno
import os
import signal
import struct
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

# Signals that Python ignores, while commands expect the default action.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)

_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# The longest name of a process that the kernel keeps, in bytes.
_COMM_MAX = 15

_GO = b"go"

# A descriptor in a message, see unix(7).
_DESCRIPTOR = struct.Struct("i")

#: A file that the child opens for this process: its name and its descriptor.
Opened = tuple[str, int]


class ChildEnded(Exception):
    """The child has ended before it became the command; the argument is the exit status for this process."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Child:
    """A process that becomes a command in run_to_end(), and otherwise ends with the block.

    If the child ends before that, ChildEnded is raised in this process, even while it waits for room.
    """

    def __init__(self, program: str, command: tuple[str, ...], open_file: Callable[[], Opened]) -> None:
        """open_file: called in the child, and the command inherits the file; OSError: there is no file.

        For the main thread of a process without other threads.
        """
        signal.signal(signal.SIGCHLD, self._look)
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _become(program, command, open_file, theirs)
        theirs.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the process, and returns when the kernel has closed its files."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def opened(self) -> Opened | None:
        """The file that the child has opened, now open here, too; None: opening it failed."""
        room = _socket.CMSG_LEN(_DESCRIPTOR.size)
        name, received, _, _ = self._socket.recvmsg(4096, room, _socket.MSG_CMSG_CLOEXEC)
        return (os.fsdecode(name[:-1]), *_DESCRIPTOR.unpack(received[0][2])) if received else None

    def run_to_end(self) -> int:
        """Runs the command, and returns its exit status as a shell does: 128+N if signal N ended it.

        OSError: the command cannot be started.  Signals stay blocked, because this process is about to end.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(ConnectionError):  # the child was killed: the loop finds the signal
            self._socket.send(_GO)
            failed = self._socket.recv(64)
            if failed:
                raise OSError(int(failed), os.strerror(int(failed)))
        while True:
            got = signal.sigwaitinfo(signal.valid_signals())
            if got.si_signo == signal.SIGCHLD:
                changed, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
                if changed and os.WIFSTOPPED(status):
                    if os.WSTOPSIG(status) in _STOPS:
                        os.kill(os.getpid(), signal.SIGSTOP)
                elif changed:
                    self._pid = 0
                    return _exit_status(status)
            elif got.si_code <= 0 or got.si_signo == signal.SIGHUP:  # from a process, not from the kernel
                with contextlib.suppress(PermissionError):  # the child has changed its user, as sudo does
                    os.kill(self._pid, got.si_signo)

    def _look(self, number: int, frame: FrameType | None) -> None:
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if ended:
            self._pid = 0
            raise ChildEnded(_exit_status(status))


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(program: str, command: tuple[str, ...], open_file: Callable[[], Opened], ours: _socket.socket) -> NoReturn:
    """The child's part of Child: opens the file, waits, and becomes the command."""
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(os.fsencode(os.path.basename(program))[:_COMM_MAX])
        try:
            name, descriptor = open_file()
        except OSError:
            ours.send(b"\n")
        else:
            os.set_inheritable(descriptor, True)
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
            ours.sendmsg([os.fsencode(name) + b"\n"], [rights])
        if ours.recv(len(_GO)):
            for number in _DEFAULT:
                signal.signal(number, signal.SIG_DFL)
            ours.send(b"%d" % _execute(program, command))
    finally:
        os._exit(0)


def _execute(program: str, command: tuple[str, ...]) -> int:
    """Runs the program as execvp() does; returns the errno of a failure."""
    try:
        os.execv(program, command)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            return error.errno or errno.EIO
    try:  # a script that does not name its interpreter
        os.execv("/bin/sh", ["/bin/sh", program, *command[1:]])
    except OSError as error:
        return error.errno or errno.EIO
