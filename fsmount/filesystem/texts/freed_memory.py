"""Memory of long texts that goes back to the system.

The C library keeps freed memory below memory in use, and the next text may be much shorter.  So the daemon asks it to
release that memory, a moment after much was freed.
"""

import ctypes
from math import inf

import trio

#: The number of freed bytes that is worth a release.
_MUCH = 256 << 10

#: The time to wait for more freed memory, in seconds.
_MOMENT = 0.5

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD = 128 << 10

_library = ctypes.CDLL(None)
_noted = 0
_wanted = trio.Event()


def note(size: int) -> None:
    """Notes that about `size` bytes were freed.  For the event loop's thread."""
    global _noted
    _noted += size
    if _noted >= _MUCH:
        _wanted.set()


async def give_back() -> None:
    """Gives freed memory back until it is cancelled.  Only glibc needs that."""
    global _noted, _wanted
    if not hasattr(_library, "malloc_trim"):
        await trio.sleep(inf)
    _library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)  # larger blocks are mappings of their own
    _library.mallopt(_M_ARENA_MAX, 1)  # one heap: threads reuse what another has freed
    while True:
        await _wanted.wait()
        await trio.sleep(_MOMENT)
        _noted = 0
        _wanted = trio.Event()
        await trio.to_thread.run_sync(_library.malloc_trim, 0)
