"""A command that runs in our place: what signals us signals it, and we end as it does.

The process that becomes the command starts first.  It opens the lease, so it is the holder, and waits until we say that
what was asked for is charged.  Until then it has the command's name and does nothing else; if we die, it ends.

Signals are blocked and waited for, one at a time, so none comes too early or too late.  A signal that somebody sent
to us alone is sent on.  One that the terminal sends (^C, ^\\, ^Z) goes to the whole foreground group, which the command
is in, and must not reach it twice; but a hangup may come to us alone.  When the command is stopped, as by ^Z, we stop
too: the shell that started us looks at us.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

# What Python ignores, and a command expects not to be.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)

_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# The longest name that the kernel keeps of a process, in bytes.
_COMM_MAX = 15

_GO = b"go"

#: The file that the process that becomes the command opens for us: a name for it, and the descriptor.
Opened = tuple[str, int]


class ChildEnded(Exception):
    """The process that was to become the command has ended before; with the exit status that this means."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Child:
    """A process that becomes a command when run_to_end() says so, and ends with the `with` if nothing does.

    Its end before that is a ChildEnded, raised wherever this process is: it may wait for room.
    """

    def __init__(self, program: str, command: tuple[str, ...], open_file: Callable[[], Opened]) -> None:
        """open_file: called in the new process; the command inherits what it opens.  OSError there: nothing is opened.

        Runs in the main thread, the only one.
        """
        signal.signal(signal.SIGCHLD, self._look)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
        """Returns when the process has ended, so that nothing of it is left open."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def opened(self) -> Opened | None:
        """The file that it has opened, which this process has open now too; None: it could not."""
        name, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        return (os.fsdecode(name[:-1]), descriptors[0]) if descriptors else None

    def run_to_end(self) -> int:
        """Has it become the command, and returns its exit status as a shell tells it: 128+N if signal N ended it.

        OSError if it cannot be started.  Signals stay blocked: whoever calls this is about to end.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(ConnectionError):  # it has been killed, and the loop learns by which signal
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
                with contextlib.suppress(PermissionError):  # it has become another user's, as sudo does
                    os.kill(self._pid, got.si_signo)

    def _look(self, number: int, frame: FrameType | None) -> None:
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if ended:
            self._pid = 0
            raise ChildEnded(_exit_status(status))


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(program: str, command: tuple[str, ...], open_file: Callable[[], Opened], ours: socket.socket) -> NoReturn:
    """The life of the new process."""
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
            socket.send_fds(ours, [os.fsencode(name) + b"\n"], [descriptor])
        if ours.recv(len(_GO)):
            for number in _DEFAULT:
                signal.signal(number, signal.SIG_DFL)
            ours.send(b"%d" % _execute(program, command))
    finally:
        os._exit(0)


def _execute(program: str, command: tuple[str, ...]) -> int:
    """As execvp() does it; returns the errno if it cannot."""
    try:
        os.execv(program, command)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            return error.errno or errno.EIO
    try:  # a script that does not name its interpreter
        os.execv("/bin/sh", ["/bin/sh", program, *command[1:]])
    except OSError as error:
        return error.errno or errno.EIO
