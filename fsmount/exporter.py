"""Serves the file `metrics` of a mount over HTTP: each request is a read of it, by a client like any other.

Nothing is kept between requests, so the mount may go and come back.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from .control_files import METRICS_FILE
from .daemon.mounts import mount_at
from .daemon.refused import Refused
from .errors import LOST_DAEMON, says_daemon_is_lost

_PATH = "/metrics"

Address = tuple[str, int]


def export(mountpoint: str, address: Address) -> None:
    """Serves the metrics of the mount at this real path until SIGINT or SIGTERM; says on standard error where.

    Refused: nothing of fsmount is mounted there now.  OSError: it is not to be read, or the address not to be had.
    """
    _read(mountpoint)

    def log(text: str) -> None:
        print(f"fsmount: {mountpoint}: {text}".encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)

    try:
        server = _Server(mountpoint, address, log)
    except OSError as error:
        raise OSError(error.errno, error.strerror, told(address)) from None
    signal.signal(signal.SIGTERM, _interrupt)
    with server:
        try:
            log(f"serving http://{told(server.server_address)}{_PATH}")
            server.serve_forever()
        except KeyboardInterrupt:
            pass


def told(address: tuple[object, ...]) -> str:
    """HOST:PORT as a URL has it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """HOST:PORT, where an address of IPv6 is in brackets.  ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an address of IPv6 is in brackets")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("an address is HOST:PORT")
    return host, int(port)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _read(mountpoint: str) -> bytes:
    mount = mount_at(mountpoint)
    if mount is None or not mount.ours:
        raise Refused("nothing of fsmount is mounted there: see fsmount mount")
    try:
        with open(os.path.join(mountpoint, METRICS_FILE), "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        if not says_daemon_is_lost(error):
            raise
        raise Refused(LOST_DAEMON) from None


class _Server(ThreadingHTTPServer):
    block_on_close = False  # nobody who reads slowly keeps it from ending

    def __init__(self, mountpoint: str, address: Address, log: Callable[[str], None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._mountpoint = mountpoint
        self._log = log
        self._failure = ""
        super().__init__(address, _Request)

    def read(self) -> bytes:
        """The metrics.  Refused, which the log tells once until it is another matter."""
        failure = ""
        try:
            return _read(self._mountpoint)
        except Refused as refused:
            failure = str(refused)
            raise
        except OSError as error:
            failure = error.strerror or str(error)
            raise Refused(failure) from None
        finally:
            if failure != self._failure:
                self._failure = failure
                self._log(failure or "there are metrics again")

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that went away is no matter
            self._log(f"a request failed: {error!r}")


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds in which a client has to say something

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != _PATH:
            self._answer(HTTPStatus.NOT_FOUND, f"the metrics are at {_PATH}\n".encode())
            return
        try:
            text = self.server.read()
        except Refused as refused:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{refused}\n".encode(errors="backslashreplace"))
        else:
            self._answer(HTTPStatus.OK, text, CONTENT_TYPE_LATEST)

    def _answer(self, status: HTTPStatus, text: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not logged."""
