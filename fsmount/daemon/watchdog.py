"""Ends a daemon whose event loop does not turn any more, so that who waits for it gets an error and not a hang.

A program of its own that the daemon starts (see heartbeat.py).  It needs only the standard library: a process
that is stopped, or stuck in C with the interpreter's lock, can do nothing for itself.

    watchdog.py PROCESS PID LIMIT LOG MOUNTPOINT REGION < PIPE

PROCESS is a pidfd of the daemon, LOG the system log's socket or empty for standard error.  Through the pipe come beats,
each a zero byte, and the tracebacks that faulthandler writes when the daemon crashes.  Without a beat for LIMIT seconds
it gets SIGABRT, which has faulthandler tell where it is stuck; SIGCONT, for a stopped process takes no other; and after
a while SIGKILL.  A core is left where the limits of who mounted allow one, as with any abort; the region is not in it.

Only time in which this process was awake counts.  It sleeps in short naps, and one that lasted longer than it should
(the machine was too busy, this process was stopped) counts as one nap: the daemon may have been kept from beating by
the same.  The clock does not run while the machine is suspended.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

BEAT = b"\0"

_PIPE = 0
_NAPS = 10  # to a limit
_GRACE = 2.0  # seconds to abort in, and then to be killed in
_WARNING = 3 << 3 | 4  # LOG_DAEMON | LOG_WARNING, as <syslog.h> has them


class Daemon:
    """The process that is watched: what it says, and how to end it."""

    def __init__(self, process: int, pid: int) -> None:
        self.pid = pid
        self.ended = False
        self.last_words = b""
        self._process = process
        self._poll = select.poll()
        self._poll.register(process, select.POLLIN)
        self._poll.register(_PIPE, select.POLLIN)
        os.set_blocking(_PIPE, False)

    def listen(self, seconds: float) -> bool:
        """Waits until there is something to hear, but no longer than that; whether there was a beat."""
        ready = dict(self._poll.poll(seconds * 1000))
        self.ended = self._process in ready
        heard = b""
        try:
            while piece := os.read(_PIPE, 65536):
                heard += piece
            self.ended = True  # it closed the pipe
        except BlockingIOError:
            pass
        self.last_words += heard.replace(BEAT, b"")
        return BEAT in heard

    def end(self) -> bool:
        """Aborts it or kills it; whether that was of use."""
        for numbers in ((signal.SIGABRT, signal.SIGCONT), (signal.SIGKILL,)):
            for number in numbers:
                try:
                    signal.pidfd_send_signal(self._process, number)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + _GRACE
            while not self.ended and (left := deadline - time.monotonic()) > 0:
                self.listen(left)
        return self.ended

    def status(self) -> dict[str, str]:
        """The fields of its status in /proc; none if they cannot be read."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as lines:
                return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        except OSError:
            return {}


def watch(daemon: Daemon, limit: float, region: str, log: Callable[[str], None]) -> None:
    """Returns when the daemon has ended, by itself or by us.  Logs last: a log may block, and readers wait."""
    who = f"the daemon (pid {daemon.pid})"
    what_to_do = f"mount again, the counters are kept in {region}"
    nap = limit / _NAPS
    quiet = 0.0
    told_of = "0"
    while True:
        began = time.monotonic()
        beaten = daemon.listen(nap)
        quiet = 0.0 if beaten else quiet + min(time.monotonic() - began, nap)
        if daemon.ended:
            if daemon.last_words:
                log(f"{who} crashed: {what_to_do}\n{_text(daemon)}")
            return
        if quiet < limit:
            continue
        status = daemon.status()
        tracer = status.get("TracerPid", "0")
        if tracer == "0":
            outcome = what_to_do if daemon.end() else "it cannot be ended, stuck in the kernel or first in a container"
            state = status.get("State", "?")
            log(f"{who} did not answer for {limit:g} s, in state {state}: {outcome}\n{_text(daemon)}")
            return
        if tracer != told_of:
            log(f"{who} does not answer, but process {tracer} debugs it: it is left alone")
        told_of = tracer
        quiet = 0.0


def _text(daemon: Daemon) -> str:
    return daemon.last_words.decode(errors="backslashreplace")


def _to_stderr(text: str) -> None:
    print(f"fsmount: {text}", file=sys.stderr)


def _to_system_log(address: str, pid: int, text: str) -> None:
    """Under the daemon's name, and like the daemon without waiting for it (see logs.py)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.connect(address)
        log.send(f"<{_WARNING}>fsmount[{pid}]: {text}".encode(errors="backslashreplace"))


def main(process: str, pid: str, limit: str, address: str, mountpoint: str, region: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the daemon's end is the only reason to end

    def log(text: str) -> None:
        line = f"{mountpoint}: {text.rstrip()}"
        try:
            if address:
                _to_system_log(address, int(pid), line)
            else:
                _to_stderr(line)
        except OSError:
            pass  # nobody listens

    watch(Daemon(int(process), int(pid)), float(limit), region, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
