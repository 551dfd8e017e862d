"""The tree as a FUSE file system: it translates between the kernel and fsmount.tree, and knows no more of either."""

from .guard import await_in_thread, persist
from .host import Host
from .operations import Operations
from .request_loop import serve_requests

__all__ = ["Host", "Operations", "await_in_thread", "persist", "serve_requests"]
