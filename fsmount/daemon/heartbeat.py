"""The daemon's heartbeat: it shows that the event loop turns; a watchdog ends the daemon when it stops."""

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
    """Beats for a watchdog as long as the block lasts; does nothing without a limit.

    The watchdog has nothing of ours but the pipe's other end and standard error: not the terminal, no device, no
    region, no directory.  It sees the end of this process in any case; at a good end it is ended first.
    """

    def __init__(self, limit: float, *, system_log: str, mountpoint: str, region: str) -> None:
        self._limit = limit
        self._told = (system_log, mountpoint, region)
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._began = 0.0
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
        """Beats until it is cancelled."""
        while self._watchdog is not None:
            self.beat()
            await trio.sleep(self._limit / 4)

    def beat(self) -> None:
        """Once: what follows has the whole limit for itself.  Never waits."""
        if self._watchdog is None:
            return
        try:
            os.write(self._pipe, watchdog.BEAT)
        except BlockingIOError:
            pass  # the watchdog does not run; it will hear of it
        except BrokenPipeError:
            self._replace()

    def _start(self) -> None:
        """Does not wait until the watchdog watches."""
        # isolated, and without site-packages: nothing to find, nothing in the way, and half the time
        program = [sys.executable, "-I", "-S", _PROGRAM]
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as kept:
            try:
                process = os.pidfd_open(os.getpid())
                passed.callback(os.close, process)
                reader, self._pipe = os.pipe()
                passed.callback(os.close, reader)
                kept.callback(os.close, self._pipe)
                self._watchdog = subprocess.Popen(
                    [*program, str(process), str(os.getpid()), str(self._limit), *self._told],
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
        self._began = time.monotonic()

    def _stop(self) -> None:
        if self._watchdog is not None:
            faulthandler.enable(_STDERR)
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None
            self._kept.close()

    def _replace(self) -> None:
        """Somebody killed it; or it cannot live, and another could not either."""
        self._stop()
        if time.monotonic() - self._began < self._limit:
            log.error("there is no watchdog any more: it ended just after its start")
        else:
            log.warning("the watchdog was killed: another is started")
            self._start()
