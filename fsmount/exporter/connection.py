"""HTTP on one connection: h11 knows the protocol, and each wait for the client has a limit."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

#: How long a client may take to send a request, from its first byte; and to send the first byte of the next one.
_REQUEST_LIMIT = 10.0
_IDLE_LIMIT = 75.0
#: How long a client may take to receive an answer.
_ANSWER_LIMIT = 30.0
#: How long the end waits for the client to read the answer to a request that it still sends.
_LINGER = 2.0
#: The bytes that the first line and the headers of a request may have together.
_HEAD_MAX = 16 << 10
_BLOCK = 64 << 10


class Response(NamedTuple):
    status: HTTPStatus
    text: bytes
    headers: list[tuple[str, str]]

    @classmethod
    def line(cls, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
        """An answer of one line."""
        content = f"{' '.join(text.split())}\n".encode(errors="backslashreplace")
        return cls(status, content, [("Content-Type", "text/plain; charset=utf-8"), *headers])


Answer = Callable[[h11.Request], Awaitable[Response]]


class Connection:
    """One client.

    waits_since: since when it must send or receive something; infinite while its answer is made.
    text: what it is about to receive.
    """

    def __init__(self, stream: trio.SocketStream, answer: Answer) -> None:
        self.waits_since = trio.current_time()
        self.text = b""
        self._stream = stream
        self._answer = answer
        self._has_body = True  # an answer has, unless the request is HEAD
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
        self._scope = trio.CancelScope()

    def end(self) -> None:
        """Ends it at once."""
        self._scope.cancel()

    async def serve(self) -> None:
        """Answers one request after the other, until an end."""
        try:
            with self._scope:
                while await self._exchange():
                    self._http.start_next_cycle()
                await self._linger()
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # the client is gone, or as good as that
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _linger(self) -> None:
        """Lets the client read the answer: bytes that arrive after the end would take it away."""
        with trio.move_on_after(_LINGER):
            await self._stream.send_eof()
            while await self._stream.receive_some(_BLOCK):
                pass

    async def _exchange(self) -> bool:
        """One request and its answer; False if it was the last."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as error:
            await self._send(Response.line(HTTPStatus(error.error_status_hint), str(error)), closes=True)
            return False
        except trio.TooSlowError:
            text = f"the request was not complete within {_REQUEST_LIMIT:g} s"
            await self._send(Response.line(HTTPStatus.REQUEST_TIMEOUT, text), closes=True)
            return False
        if request is None:
            return False
        self._has_body = request.method != b"HEAD"
        self.waits_since = math.inf
        response = await self._answer(request)
        self.waits_since = trio.current_time()
        self.text = response.text
        await self._send(response, closes=self._http.their_state is not h11.DONE)
        self.text = b""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> h11.Request | None:
        """The next request; None at the end.  A body, which no request needs, stays unread."""
        if not self._http.trailing_data[0]:
            with trio.move_on_after(_IDLE_LIMIT) as idle:
                self._http.receive_data(await self._stream.receive_some(_BLOCK))
            if idle.cancelled_caught:
                return None
        with trio.fail_after(_REQUEST_LIMIT):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(_BLOCK))
        if not isinstance(event, h11.Request):
            return None
        self._http.next_event()  # the end, if there is no body
        return event

    async def _send(self, response: Response, *, closes: bool) -> None:
        headers = [
            *response.headers,
            ("Content-Length", str(len(response.text))),
            ("Date", email.utils.formatdate(usegmt=True)),
        ]
        if closes:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=response.status, headers=headers, reason=response.status.phrase.encode())
        with trio.fail_after(_ANSWER_LIMIT):
            await self._stream.send_all(self._http.send(head))
            text = memoryview(response.text) if self._has_body else memoryview(b"")
            for begin in range(0, len(text), _BLOCK):
                await self._stream.send_all(self._http.send(h11.Data(bytes(text[begin : begin + _BLOCK]))))
            await self._stream.send_all(self._http.send(h11.EndOfMessage()))
