"""Memory that long texts have taken goes back to the system.

The C library keeps what is freed below what is still in use, and the next text may never be as long.  So it is asked to
let go of it, a moment after much was freed.
"""

import ctypes
from math import inf

import trio

#: So many bytes are worth it.
_MUCH = 256 << 10

#: How long to wait for more of it, in seconds.
_MOMENT = 0.5

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD = 128 << 10

_library = ctypes.CDLL(None)
_noted = 0
_wanted = trio.Event()


def note(size: int) -> None:
    """About so many bytes were freed.  In the event loop's thread."""
    global _noted
    _noted += size
    if _noted >= _MUCH:
        _wanted.set()


async def give_back() -> None:
    """Gives it back until it is cancelled.  Only glibc needs to be asked."""
    global _noted, _wanted
    if not hasattr(_library, "malloc_trim"):
        await trio.sleep(inf)
    _library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)  # large blocks are never among those that are kept
    _library.mallopt(_M_ARENA_MAX, 1)  # one heap for all threads: what one has freed another may use
    while True:
        await _wanted.wait()
        await trio.sleep(_MOMENT)
        _noted = 0
        _wanted = trio.Event()
        await trio.to_thread.run_sync(_library.malloc_trim, 0)
