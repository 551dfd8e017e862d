"""fsmount mount: from the request to a running daemon, in the foreground or the background."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import resource
from collections.abc import Callable

from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.preflight import checked_mount_point
from fsmount.admin.service_manager import ServiceManager
from fsmount.admin.stale_mount import remove_stale_mounts
from fsmount.admin.user_error import UserError
from fsmount.daemon import end_signals, logs
from fsmount.daemon.background import in_background
from fsmount.daemon.daemon import Daemon
from fsmount.daemon.fuse_options import fuse_options
from fsmount.daemon.heartbeat import Heartbeat
from fsmount.daemon.mount_request import MountRequest
from fsmount.daemon.take_region import take_region
from fsmount.protocol.file_names import CHANNEL_FILE

log = logging.getLogger(__name__)


def mount(request: MountRequest, *, foreground: bool) -> list[str]:
    """Mounts.  In the foreground it returns at the end of the daemon, otherwise as soon as the files are there.

    UserError: it cannot be mounted.  Returns warnings for the user; in the foreground the daemon has logged them.
    """
    request.creation()  # rejects contradictions also where a region exists
    if foreground:
        logs.to_stderr(request.mountpoint, request.debug)
        _serve(request, ready=lambda text: None, system_log="", manager=ServiceManager.of_environment())
        return []

    def serve(ready: Callable[[str], None]) -> None:
        logs.to_system_log(request.mountpoint, request.debug)
        _serve(request, ready, logs.SYSTEM_LOG, ServiceManager())

    text = in_background(serve)
    _check_files(request.mountpoint)
    return text.split("\0") if text else []


def _check_files(path: str) -> None:
    """UserError if a user outside the daemon cannot read a file of the mount."""
    advice = "look into the system's log, and unmount it with or without --keep"
    try:
        bounded(lambda: len(os.stat(os.path.join(path, CHANNEL_FILE))))
    except PermissionError:
        pass  # an adopted root directory may exclude the caller by its mode
    except NoAnswer:
        raise UserError(f"mounted, but its daemon does not answer: {advice}") from None
    except OSError as error:
        raise UserError(f"mounted, but its files cannot be read ({error.strerror}): {advice}") from None


def _serve(request: MountRequest, ready: Callable[[str], None], system_log: str, manager: ServiceManager) -> None:
    """Takes the region, mounts, and serves until an unmount or a signal."""
    faulthandler.enable(2)  # before the engine's handler of SIGBUS, which passes on errors outside regions
    with checked_mount_point(request.mountpoint):
        options = fuse_options(request.options)
    _raise_file_limit()
    region = take_region(request)
    heartbeat = Heartbeat(request.watchdog, system_log=system_log, mountpoint=request.mountpoint, region=region.path)
    with heartbeat, contextlib.ExitStack() as stack:
        try:
            if remove_stale_mounts(request.mountpoint):
                log.info("the previous daemon died; its mount is removed")
            # check again: another process with another region may have mounted meanwhile
            mount_point = stack.enter_context(checked_mount_point(request.mountpoint))
            daemon = Daemon(region, heartbeat, manager)
            for text in region.warnings:
                log.warning("%s", text)
        except BaseException:
            region.abandon()
            raise
        with end_signals.blocked():
            daemon.serve(mount_point, options, ready)


def _raise_file_limit() -> None:
    """Raises the limit of open files to the hard limit: each process with a holder takes a descriptor."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
