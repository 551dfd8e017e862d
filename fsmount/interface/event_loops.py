"""How a task waits in the event loop that it is in, trio's or asyncio's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

Awaitable = Callable[[], Coroutine[Any, Any, object]]


def _in_trio() -> bool:
    import sniffio  # here, as a command that does not wait starts without it

    return sniffio.current_async_library() == "trio"


def alarm() -> tuple[Callable[[], None], Awaitable, Awaitable]:
    """For a task of the running event loop: a function that wakes it, from any thread; its sleep; a checkpoint."""
    if _in_trio():
        import trio

        token = trio.lowlevel.current_trio_token()
        rung = trio.Event()

        def wake() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(rung.set)

        return wake, rung.wait, trio.lowlevel.checkpoint
    import asyncio

    loop = asyncio.get_running_loop()
    heard = asyncio.Event()

    def wake_asyncio() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(heard.set)

    return wake_asyncio, heard.wait, partial(asyncio.sleep, 0)


async def readable(descriptor: int) -> None:
    """Until poll() says so of a descriptor."""
    if _in_trio():
        import trio

        await trio.lowlevel.wait_readable(descriptor)
        return
    import asyncio

    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
