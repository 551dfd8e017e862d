"""The exporter's HTTP server: its listening socket, the bound on its connections, and its end.

A client can hold a connection and do nothing.  So there are at most _CONNECTIONS.  A new one closes the connection that
has waited longest for its client.  A scrape takes milliseconds, so idle clients cannot delay it.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Callable
from http import HTTPStatus
from operator import attrgetter

import h11
import trio

from fsmount.admin.service_manager import ServiceManager
from fsmount.admin.user_error import UserError
from fsmount.exporter.address import Address, address_text, listen
from fsmount.exporter.connection import Connection, Response
from fsmount.exporter.formats import Format
from fsmount.exporter.readings import Readings, check

_PATH = "/metrics"
_METHODS = ("GET", "HEAD")
_CONNECTIONS = 128
_TEXTS_MAX = 128 << 20  # bytes that may be in memory for slow clients
_GRACE = 0.2  # seconds for which a waiting connection is safe from new ones


def export(mountpoint: str, address: Address) -> None:
    """Serves the metrics of the mount at this real path until SIGINT or SIGTERM; prints the URL on standard error.

    UserError: the metrics cannot be read now.  OSError: the exporter cannot listen on the address.
    """

    def log(text: str) -> None:
        line = f"fsmount: {mountpoint}: {text}".encode(errors="backslashreplace").decode()
        with contextlib.suppress(OSError):  # standard error is closed, or its disk is full
            print(line, file=sys.stderr, flush=True)

    manager = ServiceManager.of_environment()
    trio.run(check, mountpoint)
    with listen(address) as socket:
        url = f"serving http://{address_text(socket.getsockname())}{_PATH}"

        def ready() -> None:
            log(url)
            manager.ready(url)

        trio.run(_HTTPServer(mountpoint, log).serve, trio.SocketListener(trio.socket.from_stdlib_socket(socket)), ready)
    manager.stopping("closing")


class _HTTPServer:
    def __init__(self, mountpoint: str, log: Callable[[str], None]) -> None:
        self._log = log
        self._readings = Readings(mountpoint, log)
        self._connections: set[Connection] = set()
        self._changed = trio.Event()  # a connection has ended, or waits for its client again

    async def serve(self, listener: trio.SocketListener, ready: Callable[[], None]) -> None:
        """Serves until SIGINT or SIGTERM, then closes all connections at once."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._readings.run)
                nursery.start_soon(self._accept, listener, nursery)
                ready()
                await anext(signals)
                nursery.cancel_scope.cancel()

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # too few descriptors or too little memory; clients wait in the kernel's queue
                self._log(f"no connection can be accepted: {error.strerror}")
                await trio.sleep(1)
                continue
            await self._make_room()
            connection = Connection(stream, self._answer)
            self._connections.add(connection)
            nursery.start_soon(self._serve, connection)

    async def _make_room(self) -> None:
        """Closes the connection that has waited longest for its client, if there are too many."""
        while len(self._connections) >= _CONNECTIONS:
            oldest = min(self._connections, key=attrgetter("waits_since"))
            may_end = oldest.waits_since + _GRACE
            if trio.current_time() >= may_end:
                self._connections.remove(oldest)
                oldest.end()
            else:
                with trio.move_on_at(may_end):
                    await self._changed.wait()

    def _bound_texts(self) -> None:
        """Closes the slowest connections while their texts take too much memory.  A shared text counts once."""
        while sum({id(text := connection.text): len(text) for connection in self._connections}.values()) > _TEXTS_MAX:
            receiving = [connection for connection in self._connections if connection.text]
            slowest = min(receiving, key=attrgetter("waits_since"))
            self._connections.remove(slowest)
            slowest.end()

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.serve()
        except Exception as error:
            self._log(f"a request failed: {error!r}")
        finally:
            self._connections.discard(connection)
            self._wake()

    def _wake(self) -> None:
        """Wakes _make_room()."""
        self._changed.set()
        self._changed = trio.Event()

    async def _answer(self, request: h11.Request) -> Response:
        path = re.sub(rb"^http://[^/?]*", b"", request.target).partition(b"?")[0].decode()
        if path != _PATH:
            return Response.line(HTTPStatus.NOT_FOUND, f"the metrics are at {_PATH}")
        if request.method.decode() not in _METHODS:
            methods = ", ".join(_METHODS)
            return Response.line(HTTPStatus.METHOD_NOT_ALLOWED, f"{_PATH} is for {methods}", ("Allow", methods))
        form = Format.asked_for(_header(request, b"accept"), _header(request, b"accept-encoding"))
        try:
            text = await self._readings.text(form)
        except UserError as error:
            return Response.line(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        finally:
            self._wake()  # before the next turn of the event loop the connection waits for its client
        self._bound_texts()
        return Response(HTTPStatus.OK, text, form.headers)


def _header(request: h11.Request, name: bytes) -> str:
    """The values of a header, joined if it occurs several times."""
    return ",".join(value.decode("latin-1") for found, value in request.headers if found == name)
