"""Messages to systemd from a service of Type=notify: sd_notify(3) and sd_watchdog_enabled(3).

A message is a datagram, and sending never blocks.  Maintained libraries for it need libsystemd on every machine, for
the few lines below.
"""

from __future__ import annotations

import logging
import os
import socket

import trio

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager of this process.  Without an address there is none, and messages are dropped."""

    def __init__(self, address: str = "", interval: float = 0.0) -> None:
        """interval: the seconds without a ping after which the manager ends this process; 0: never."""
        self._address = address
        self._interval = interval

    @classmethod
    def of_environment(cls) -> ServiceManager:
        """The manager that the environment names.  Removes the variables, so that no child process inherits them."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval = os.environ.pop("WATCHDOG_USEC", "")
        watched = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(address, int(interval) / 1e6 if watched and interval.isdecimal() else 0.0)

    def ready(self, status: str) -> None:
        """Reports that the service is ready; status is a line for `systemctl status`."""
        self._send("READY=1", f"STATUS={' '.join(status.split())}")

    def stopping(self, status: str) -> None:
        """Reports that the service is ending: systemd then applies TimeoutStopSec= and expects no pings."""
        self._send("STOPPING=1", f"STATUS={status}")

    async def ping(self) -> None:
        """Reports that the event loop turns, twice per interval, until it is cancelled."""
        while self._interval:
            self._send("WATCHDOG=1")
            await trio.sleep(self._interval / 2)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = os.fsencode(self._address)
        if address.startswith(b"@"):
            address = b"\0" + address[1:]  # an abstract socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(errors="backslashreplace"), address)
        except OSError as error:
            log.warning("the service manager does not receive %s: %s", lines[0], error.strerror)
