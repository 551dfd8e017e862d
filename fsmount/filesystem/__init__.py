"""The tree as a FUSE file system: it translates requests of the kernel into calls of fsmount.shm.

operations.py has the handlers, guard.py turns their errors into errnos, and request_loop.py waits for requests.
lookup.py finds groups and files by inode; attributes.py says what stat() shows; open_files.py has the open files.
texts/ makes and keeps long texts, and kernel_cache/ keeps the kernel's cache true.  Each control file is a class in
fsmount/control_files/.
"""

import os
import sys

_flags = sys.getdlopenflags()
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # pyfuse3 must find fuse_session_new() there
from fsmount.filesystem.kernel_cache import _page_reads  # noqa: E402, F401

sys.setdlopenflags(_flags)

import pyfuse3  # noqa: E402

from fsmount.filesystem.guard import await_in_thread, persist  # noqa: E402
from fsmount.filesystem.host import Host  # noqa: E402
from fsmount.filesystem.operations import Operations  # noqa: E402
from fsmount.filesystem.request_loop import serve_requests  # noqa: E402

__all__ = ["Host", "Operations", "await_in_thread", "persist", "pyfuse3", "serve_requests"]
