"""The tree as a FUSE file system: it translates between the kernel and fsmount.shm, and knows no more of either."""

import os
import sys

_flags = sys.getdlopenflags()
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # pyfuse3 must find a function there, so it is loaded first
from fsmount.filesystem.kernel_cache import _page_reads  # noqa: E402, F401

sys.setdlopenflags(_flags)

import pyfuse3  # noqa: E402

from fsmount.filesystem.guard import await_in_thread, persist  # noqa: E402
from fsmount.filesystem.host import Host  # noqa: E402
from fsmount.filesystem.operations import Operations  # noqa: E402
from fsmount.filesystem.request_loop import serve_requests  # noqa: E402

__all__ = ["Host", "Operations", "await_in_thread", "persist", "pyfuse3", "serve_requests"]
