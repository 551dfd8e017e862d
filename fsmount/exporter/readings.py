"""Readings of the file `metrics`; requests that arrive at the same moment share one.

A read of a mount whose daemon is stopped does not return and cannot be cancelled.  It blocks one of a few threads.  Its
requests get an error within a time limit of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import trio

from fsmount.admin.mount_table import mount_of
from fsmount.admin.private_mounts import advice_on_private_mount
from fsmount.admin.user_error import UserError
from fsmount.errors import LOST_DAEMON, says_daemon_is_lost
from fsmount.exporter.formats import END, Format, Metrics
from fsmount.protocol.file_names import METRICS_FILE

#: The seconds that a request waits.  Prometheus gives up after 10 s by default, and should get the reason first.
PATIENCE = 8.0

#: The number of threads that may be blocked in a mount that does not answer.
_THREADS = 4
_BLOCK = 1 << 20
_SIZE_MAX = 256 << 20  # four times the size above which the daemon leaves groups out
_LATE = f"the daemon gave no metrics within {PATIENCE:g} s: continue it if it is stopped"


def read(mountpoint: str) -> bytes:
    """Reads the file.  OSError; UserError: no fsmount mount is there, or its daemon is dead."""
    try:
        with contextlib.ExitStack() as stack:
            root = os.open(mountpoint, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, root)
            mount = mount_of(root)
            if mount is None or not mount.is_fsmount or mount.path != mountpoint:
                raise UserError("no fsmount mount is there: mount one with fsmount mount")
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(METRICS_FILE, flags, dir_fd=root)
            stack.callback(os.close, descriptor)
            return _text(descriptor)
    except FileNotFoundError:
        raise UserError("no fsmount mount is there: mount one with fsmount mount") from None
    except OSError as error:
        if not says_daemon_is_lost(error):
            raise
        raise UserError(LOST_DAEMON) from None


def _text(descriptor: int) -> bytes:
    """Reads with os.read(): Python's file objects take EAGAIN for "no data yet"."""
    text = bytearray()
    while block := os.read(descriptor, _BLOCK):
        text += block
        if len(text) > _SIZE_MAX:
            raise UserError(f"{METRICS_FILE} is longer than {_SIZE_MAX >> 20} MiB")
    if not text.endswith(END):
        raise UserError(f"{METRICS_FILE} is not a complete OpenMetrics text")
    return bytes(text)


async def check(mountpoint: str) -> None:
    """UserError, with the reason, if the metrics cannot be read now."""
    _, failure = await _read_in_time(mountpoint, trio.CapacityLimiter(1))
    if failure:
        raise UserError(failure)


async def _read_in_time(mountpoint: str, threads: trio.CapacityLimiter) -> tuple[Metrics | None, str]:
    """The metrics, or the reason why there are none within PATIENCE."""
    with trio.move_on_after(PATIENCE):
        try:
            text = await trio.to_thread.run_sync(read, mountpoint, abandon_on_cancel=True, limiter=threads)
        except UserError as error:
            return None, str(error)
        except OSError as error:
            advice = advice_on_private_mount(mountpoint) if isinstance(error, PermissionError) else ""
            return None, f"{METRICS_FILE} cannot be read: {error.strerror or error}{'; ' * bool(advice)}{advice}"
        return Metrics(text), ""
    return None, _LATE


class _Reading:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.metrics: Metrics | None = None
        self.failure = ""


class Readings:
    """Readings of the mount, one after another.

    A request shares the reading that begins next, never one that has begun, so its text is not older than the request.
    """

    def __init__(self, mountpoint: str, log: Callable[[str], None]) -> None:
        self._mountpoint = mountpoint
        self._log = log
        self._failure = ""
        self._next = _Reading()
        self._wanted = trio.Event()
        self._threads = trio.CapacityLimiter(_THREADS)
        self._translating = trio.CapacityLimiter(1)

    async def text(self, form: Format) -> bytes:
        """The metrics in a format.  UserError, with the reason, if there are none within PATIENCE."""
        reading = self._next
        self._wanted.set()
        with trio.move_on_after(PATIENCE):
            await reading.done.wait()
            if reading.metrics is None:
                raise UserError(reading.failure)
            return await trio.to_thread.run_sync(
                reading.metrics.encoded, form, abandon_on_cancel=True, limiter=self._translating
            )
        raise UserError(_LATE)

    async def run(self) -> None:
        """Reads whenever a request waits, until cancelled."""
        while True:
            await self._wanted.wait()
            reading, self._next, self._wanted = self._next, _Reading(), trio.Event()
            reading.metrics, reading.failure = await _read_in_time(self._mountpoint, self._threads)
            reading.done.set()
            self._log_change(reading.failure)

    def _log_change(self, failure: str) -> None:
        """Logs a failure once, until it changes or ends."""
        if failure != self._failure:
            self._failure = failure
            self._log(failure or "the metrics can be read again")
