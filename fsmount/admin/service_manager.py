"""What systemd is told of a service of Type=notify: sd_notify(3) and sd_watchdog_enabled(3).

A message is a datagram, and never waited for.  The libraries that are kept up for it bind libsystemd, which would have
to be there on every machine; this is all of it that is used.
"""

from __future__ import annotations

import logging
import os
import socket

import trio

log = logging.getLogger(__name__)


class ServiceManager:
    """Who started this process and wants to know how it does; nobody, unless told where to reach it."""

    def __init__(self, address: str = "", interval: float = 0.0) -> None:
        """interval: without a ping for so many seconds it ends this process; 0: it does not."""
        self._address = address
        self._interval = interval

    @classmethod
    def of_environment(cls) -> ServiceManager:
        """The one that the environment names; takes it out of there, for the children of this process are not meant."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval = os.environ.pop("WATCHDOG_USEC", "")
        watched = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(address, int(interval) / 1e6 if watched and interval.isdecimal() else 0.0)

    def ready(self, status: str) -> None:
        """The service can be used; status is a line for who looks at it."""
        self._tell("READY=1", f"STATUS={' '.join(status.split())}")

    def stopping(self, status: str) -> None:
        """The end has begun.  From here systemd waits as long as TimeoutStopSec= says, and for no more pings."""
        self._tell("STOPPING=1", f"STATUS={status}")

    async def ping(self) -> None:
        """Tells that the event loop turns, twice in the time that systemd allows, until it is cancelled."""
        while self._interval:
            self._tell("WATCHDOG=1")
            await trio.sleep(self._interval / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = os.fsencode(self._address)
        if address.startswith(b"@"):
            address = b"\0" + address[1:]  # an abstract one
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(errors="backslashreplace"), address)
        except OSError as error:
            log.warning("the service manager is not told %s: %s", lines[0], error.strerror)
