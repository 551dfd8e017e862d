"""HTTP on one connection.  h11 implements the protocol; each wait for the client has a time limit."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

#: The seconds from the first byte of a request to its last one, and until the first byte of the next request.
_REQUEST_LIMIT = 10.0
_IDLE_LIMIT = 75.0
#: The seconds that a client may take to receive an answer.
_ANSWER_LIMIT = 30.0
#: The seconds that a closing connection leaves a client that still sends, to read the answer.
_LINGER = 2.0
#: The maximum size of a request's first line and headers.
_HEAD_MAX = 16 << 10
_BLOCK = 64 << 10


class Response(NamedTuple):
    status: HTTPStatus
    text: bytes
    headers: list[tuple[str, str]]

    @classmethod
    def line(cls, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
        """A response with one line of text."""
        content = f"{' '.join(text.split())}\n".encode(errors="backslashreplace")
        return cls(status, content, [("Content-Type", "text/plain; charset=utf-8"), *headers])


Answer = Callable[[h11.Request], Awaitable[Response]]


class Connection:
    """One client.

    waits_since: the time at which it began to wait for its client; infinite while it makes an answer.
    text: the text that it is sending.
    """

    def __init__(self, stream: trio.SocketStream, answer: Answer) -> None:
        self.waits_since = trio.current_time()
        self.text = b""
        self._stream = stream
        self._answer = answer
        self._has_body = True  # the answer to HEAD has none
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
        self._scope = trio.CancelScope()

    def end(self) -> None:
        """Closes it at once."""
        self._scope.cancel()

    async def serve(self) -> None:
        """Answers one request after another, until the client or end() closes it."""
        try:
            with self._scope:
                while await self._exchange():
                    self._http.start_next_cycle()
                await self._linger()
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # the client is gone or too slow
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _linger(self) -> None:
        """Lets the client read the answer, which the kernel would discard if more bytes arrived after a close."""
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
            text = f"the request was incomplete after {_REQUEST_LIMIT:g} s: send it faster"
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
        """The next request; None at the end.  The body of a request stays unread."""
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
