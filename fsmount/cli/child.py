"""A command that runs in our place: what signals us signals it, and we end as it does.

Signals are blocked and waited for, one at a time, so none comes too early or too late.  A signal that somebody sent
to us alone is sent on.  One that the terminal sends (^C, ^\\, ^Z) goes to the whole foreground group, which the command
is in, and must not reach it twice; but a hangup may come to us alone.  When the command is stopped, as by ^Z, we stop
too: the shell that started us looks at us.
"""

from __future__ import annotations

import contextlib
import os
import signal

# What Python ignores, and a command expects not to be.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)

_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def run_to_end(command: tuple[str, ...]) -> int:
    """Runs a command, and returns its exit status as a shell tells it: 128+N if signal N ended it.

    OSError if it cannot be started.  Signals stay blocked: whoever calls this is about to end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may have ignored it, and its end would be lost
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.posix_spawnp(command[0], command, os.environ, setsigmask=mask, setsigdef=_DEFAULT)
    while True:
        got = signal.sigwaitinfo(signal.valid_signals())
        if got.si_signo == signal.SIGCHLD:
            changed, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if changed and os.WIFSTOPPED(status):
                if os.WSTOPSIG(status) in _STOPS:
                    os.kill(os.getpid(), signal.SIGSTOP)
            elif changed:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif got.si_code <= 0 or got.si_signo == signal.SIGHUP:  # from a process, not from the kernel
            with contextlib.suppress(PermissionError):  # it has become another user's, as sudo does
                os.kill(pid, got.si_signo)
