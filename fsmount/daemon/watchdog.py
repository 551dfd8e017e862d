"""Ends a daemon whose event loop no longer turns, so that processes with pending requests get an error.

It is a program that the daemon starts (see heartbeat.py): a process that is stopped, or stuck in C with the
interpreter's lock, cannot act on itself.  It needs only the standard library.

    watchdog.py PROCESS PID LIMIT LOG MOUNTPOINT REGION < PIPE

PROCESS is a pidfd of the daemon, LOG the system log's socket or empty for standard error.  The pipe carries beats, each
a zero byte, and the traceback that faulthandler writes when the daemon crashes.  After LIMIT seconds without a beat the
daemon gets SIGABRT, so that faulthandler writes where it is stuck, and SIGCONT, without which a stopped process handles
no signal.  If it still runs after a while, it gets SIGKILL.  The abort leaves a core if the resource limits allow one;
the region is not in it.

Only time in which this process was awake counts.  It sleeps in short naps.  A nap that lasts too long counts as one
nap: a busy machine may have kept the daemon from beating too.  The clock stops while the machine is suspended.
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
_NAPS = 10  # per limit
_GRACE = 2.0  # seconds that an abort may take, and a kill
_WARNING = 3 << 3 | 4  # LOG_DAEMON | LOG_WARNING, as <syslog.h> has them


class WatchedDaemon:
    """The watched daemon: its beats, its traceback, and its end."""

    def __init__(self, process: int, pid: int) -> None:
        self.pid = pid
        self.ended = False
        self.traceback = b""
        self._process = process
        self._poll = select.poll()
        self._poll.register(process, select.POLLIN)
        self._poll.register(_PIPE, select.POLLIN)
        os.set_blocking(_PIPE, False)

    def listen(self, seconds: float) -> bool:
        """Waits for data in the pipe or the end, with a time limit.  Returns whether there was a beat."""
        ready = dict(self._poll.poll(seconds * 1000))
        self.ended = self._process in ready
        received = b""
        try:
            while piece := os.read(_PIPE, 65536):
                received += piece
            self.ended = True  # it closed the pipe
        except BlockingIOError:
            pass
        self.traceback += received.replace(BEAT, b"")
        return BEAT in received

    def end(self) -> bool:
        """Aborts the daemon or kills it.  Returns whether it has ended."""
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
        """The fields of /proc/PID/status; none if it cannot be read."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as lines:
                return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        except OSError:
            return {}


def watch(daemon: WatchedDaemon, limit: float, region: str, log: Callable[[str], None]) -> None:
    """Returns when the daemon has ended.  Ends it before logging: the log may block, and readers wait."""
    name = f"the daemon (pid {daemon.pid})"
    advice = f"mount again, the counters are kept in {region}"
    nap = limit / _NAPS
    quiet = 0.0
    logged_tracer = "0"
    while True:
        began = time.monotonic()
        beaten = daemon.listen(nap)
        quiet = 0.0 if beaten else quiet + min(time.monotonic() - began, nap)
        if daemon.ended:
            if daemon.traceback:
                log(f"{name} crashed: {advice}\n{_text(daemon)}")
            return
        if quiet < limit:
            continue
        status = daemon.status()
        tracer = status.get("TracerPid", "0")
        if tracer == "0":
            outcome = (
                advice
                if daemon.end()
                else "it cannot be ended: stuck in the kernel, or the first process of a container"
            )
            state = status.get("State", "?")
            log(f"{name} did not answer for {limit:g} s, in state {state}: {outcome}\n{_text(daemon)}")
            return
        if tracer != logged_tracer:
            log(f"{name} does not answer, but process {tracer} debugs it: no signal is sent")
        logged_tracer = tracer
        quiet = 0.0


def _text(daemon: WatchedDaemon) -> str:
    return daemon.traceback.decode(errors="backslashreplace")


def _to_stderr(text: str) -> None:
    print(f"fsmount: {text}", file=sys.stderr)


def _to_system_log(address: str, pid: int, text: str) -> None:
    """Logs under the daemon's name, without blocking (see logs.py)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.connect(address)
        log.send(f"<{_WARNING}>fsmount[{pid}]: {text}".encode(errors="backslashreplace"))


def main(process: str, pid: str, limit: str, address: str, mountpoint: str, region: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the daemon ends the watchdog

    def log(text: str) -> None:
        line = f"{mountpoint}: {text.rstrip()}"
        try:
            if address:
                _to_system_log(address, int(pid), line)
            else:
                _to_stderr(line)
        except OSError:
            pass  # no log daemon, or standard error is closed

    watch(WatchedDaemon(int(process), int(pid)), float(limit), region, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
