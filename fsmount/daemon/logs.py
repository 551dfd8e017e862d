"""The daemon's log: on standard error in the foreground, in the system's log in the background."""

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
    """Sends records to the system's log without blocking.

    The standard library's handler sends on a blocking socket: a stopped log daemon would stop the
    file system too.  Here a record that the log daemon cannot take at once is lost.
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
            self._send(message)  # after a restart of the log daemon the second attempt connects again

    def _send(self, message: bytes) -> bool:
        """False: the connection was broken, and is closed now."""
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
    # its own descriptor: during the mount standard error itself is captured, for messages of FUSE
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
    logging.getLogger("fsmount").critical("unexpected error", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
