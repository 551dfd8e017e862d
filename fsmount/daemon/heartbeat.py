"""The daemon's heartbeat: it shows that the event loop turns.  Without it a watchdog process ends the daemon."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import subprocess
import sys
import time
from types import TracebackType

import trio

from fsmount.daemon import watchdog

log = logging.getLogger(__name__)

_PROGRAM = os.path.abspath(watchdog.__file__)
_STDERR = 2


class Heartbeat:
    """A watchdog process during the block, and the heartbeat for it; with a limit of 0 there is none.

    The watchdog inherits only the pipe's other end and standard error: no terminal, device, region or directory.  It
    notices any death of this process.  At a clean end this process ends the watchdog first.
    """

    def __init__(self, limit: float, *, system_log: str, mountpoint: str, region: str) -> None:
        self._limit = limit
        self._arguments = (system_log, mountpoint, region)
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pipe = -1
        self._kept = contextlib.ExitStack()

    def __enter__(self) -> Heartbeat:
        if self._limit:
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def run(self) -> None:
        """Beats until cancelled."""
        while self._watchdog is not None:
            self.beat()
            await trio.sleep(self._limit / 4)

    def beat(self) -> None:
        """Beats once, so that the next step may take the whole limit.  Never blocks."""
        if self._watchdog is None:
            return
        try:
            os.write(self._pipe, watchdog.BEAT)
        except BlockingIOError:
            pass  # the pipe is full, since the watchdog is stopped; a beat is in it
        except BrokenPipeError:
            self._replace()

    def _start(self) -> None:
        """Starts the watchdog, without waiting for it."""
        # isolated, and without site-packages: no other module can interfere, and it starts in half the time
        program = [sys.executable, "-I", "-S", _PROGRAM]
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as kept:
            try:
                process = os.pidfd_open(os.getpid())
                passed.callback(os.close, process)
                reader, self._pipe = os.pipe()
                passed.callback(os.close, reader)
                kept.callback(os.close, self._pipe)
                self._watchdog = subprocess.Popen(
                    [*program, str(process), str(os.getpid()), str(self._limit), *self._arguments],
                    stdin=reader,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[process],
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("there is no watchdog: it cannot be started (%s)", error.strerror)
                return
            self._kept = kept.pop_all()
        os.set_blocking(self._pipe, False)
        faulthandler.enable(self._pipe)
        self._started = time.monotonic()

    def _stop(self) -> None:
        if self._watchdog is not None:
            faulthandler.enable(_STDERR)
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None
            self._kept.close()

    def _replace(self) -> None:
        """Starts another watchdog, unless the last one ended just after its start, as the next one would."""
        self._stop()
        if time.monotonic() - self._started < self._limit:
            log.error("there is no watchdog any more: it ended just after its start")
        else:
            log.warning("the watchdog was killed: another one starts")
            self._start()
