"""Where the daemon's log goes: standard error in the foreground, the system's log in the background."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from types import TracebackType

SYSTEM_LOG = "/dev/log"

_DAEMON = 3 << 3  # the facility, as <syslog.h> has it
_SEVERITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class SystemLog(logging.Handler):
    """Sends records to the system's log, and never waits for it.

    The handlers of the standard library send on a blocking socket: with a stopped log daemon the
    file system would stop with it.  Here a record that cannot be taken at once is lost, as it is
    where no log daemon runs.
    """

    def __init__(self, address: str = SYSTEM_LOG) -> None:
        super().__init__()
        self.address = address
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        severity = _SEVERITY.get(record.levelno, 6)
        text = f"<{_DAEMON | severity}>fsmount[{os.getpid()}]: {self.format(record)}"
        message = text.encode(errors="backslashreplace")
        if not self._send(message):
            self._send(message)  # the log daemon was started anew: the second time connects to the new one

    def _send(self, message: bytes) -> bool:
        """False if the connection was of no use and has been dropped."""
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
                self._socket.connect(self.address)
            self._socket.send(message)
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self._disconnect()
        super().close()


def to_system_log(mountpoint: str, debug: bool) -> None:
    _install(SystemLog(), f"{_plain(mountpoint)}: %(message)s", logging.DEBUG if debug else logging.INFO)


def to_stderr(mountpoint: str, debug: bool) -> None:
    layout = "%(asctime)s %(name)s: %(message)s" if debug else f"fsmount: {_plain(mountpoint)}: %(message)s"
    # a descriptor of its own, since what FUSE writes to standard error is caught while it mounts
    stream = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    _install(logging.StreamHandler(stream), layout, logging.DEBUG if debug else logging.WARNING)


def _plain(mountpoint: str) -> str:
    return mountpoint.replace("%", "%%")


def _install(handler: logging.Handler, layout: str, level: int) -> None:
    handler.setFormatter(logging.Formatter(layout))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("fsmount").critical("an error nobody expected", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
