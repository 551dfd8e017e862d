"""fsmount mount: from the request to a process that serves it, and to its end."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator

import trio

from fsmount.admin.bounded import NoAnswer, bounded
from fsmount.admin.named_path import OpenPath
from fsmount.admin.preflight import checked_mount_point, remove_stale_mounts
from fsmount.admin.service_manager import ServiceManager
from fsmount.admin.user_error import UserError
from fsmount.daemon import logs
from fsmount.daemon.background import in_background
from fsmount.daemon.fuse_options import captured_stderr, explain_failure, fuse_options
from fsmount.daemon.heartbeat import Heartbeat
from fsmount.daemon.mount_request import MountRequest
from fsmount.daemon.own_mount import OwnMount
from fsmount.daemon.reaper import Reaper
from fsmount.daemon.take_region import LockedRegion, take_region
from fsmount.filesystem import Operations, pyfuse3, serve_requests
from fsmount.protocol.file_names import CHANNEL_FILE

log = logging.getLogger(__name__)

_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def mount(request: MountRequest, *, foreground: bool) -> list[str]:
    """Mounts; UserError if it cannot.  In the foreground it returns at the end, else as soon as the files are there.

    Returns the warnings that the user has not seen: those of a daemon in the background.
    """
    request.creation()  # what cannot be made is refused at once, also where there is a region from before
    if foreground:
        logs.to_stderr(request.mountpoint, request.debug)
        _serve(request, ready=lambda text: None, system_log="", manager=ServiceManager.of_environment())
        return []

    def serve(ready: Callable[[str], None]) -> None:
        logs.to_system_log(request.mountpoint, request.debug)
        _serve(request, ready, logs.SYSTEM_LOG, ServiceManager())

    text = in_background(serve)
    _look(request.mountpoint)
    return text.split("\0") if text else []


def _look(path: str) -> None:
    """The last doubt: a file as a user sees it, from outside the daemon."""
    advice = "look into the system's log, and unmount it with --keep or without"
    try:
        bounded(lambda: len(os.stat(os.path.join(path, CHANNEL_FILE))))
    except PermissionError:
        pass  # the root's mode is from before and shuts us out; it is there
    except NoAnswer:
        raise UserError(f"mounted, but its daemon does not answer: {advice}") from None
    except OSError as error:
        raise UserError(f"mounted, but its files cannot be read ({error.strerror}): {advice}") from None


def _serve(request: MountRequest, ready: Callable[[str], None], system_log: str, manager: ServiceManager) -> None:
    """Mounts, serves until somebody unmounts or a signal comes, and cleans up."""
    faulthandler.enable(2)  # before the engine handles SIGBUS, which hands on what is not its own
    with checked_mount_point(request.mountpoint):
        options = fuse_options(request.options)
    _raise_file_limit()
    locked = take_region(request)
    heartbeat = Heartbeat(request.watchdog, system_log=system_log, mountpoint=request.mountpoint, region=locked.path)
    with heartbeat, contextlib.ExitStack() as stack:
        try:
            if remove_stale_mounts(request.mountpoint):
                log.info("the daemon before did not end well; its mount is cleared away")
            # once more: somebody with another region may have mounted meanwhile
            place = stack.enter_context(checked_mount_point(request.mountpoint))
            daemon = _Daemon(locked, heartbeat, manager)
            for text in locked.warnings:
                log.warning("%s", text)
        except BaseException:
            locked.abandon()
            raise
        with _deaf():
            daemon.serve(place, options, ready)


def _raise_file_limit() -> None:
    """A descriptor for each living holder: as many as we may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Signals that ask for the end wait for _first_signal(): without the event loop nobody would unmount."""
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


@contextlib.contextmanager
def _first_signal(act: Callable[[int], None]) -> Iterator[None]:
    """Calls act, at once, with the number of the first signal that asks for the end; the others are ignored.

    They are so from the first instant: handlers that interrupt each other pile up, and signals can come faster than
    Python handles one.  A hangup that whoever started us has ignored, as nohup does, stays ignored.
    """
    ends = [number for number in _END if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]

    def on_signal(number: int, _frame: object) -> None:
        for ending in ends:
            signal.signal(ending, signal.SIG_IGN)
        act(number)

    for number in ends:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END)
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)


class _Daemon:
    """The mounted file system's life; what the file system asks of its host."""

    def __init__(self, locked: LockedRegion, heartbeat: Heartbeat, manager: ServiceManager) -> None:
        self._region = locked
        self._heart = heartbeat
        self._manager = manager
        self._reaper = Reaper(locked.tree, locked.leases)
        self._operations = Operations(locked.tree, self, locked.leases)
        self._mount = OwnMount()
        self._running = False
        self._has_run = False
        self._keep = False  # whether the counters stay at the end also if nobody holds any
        self._is_known = False  # whoever started us knows that this is mounted
        self._is_unwanted = False  # a signal has asked for the end

    def serve(self, place: OpenPath, options: set[str], ready: Callable[[str], None]) -> None:
        """Mounts, serves until the end, unmounts, and leaves or removes the region.  UserError if it cannot mount."""
        try:
            self._mount_on(place, options)
            trio.run(self._run, ready)
        except BaseException:
            if not self._has_run:
                self._mount.end()  # first: to abandon the claim looks at the mount point
                self._region.abandon()
            raise

    def _mount_on(self, place: OpenPath, options: set[str]) -> None:
        with captured_stderr() as told:
            try:
                self._mount.begin(self._operations, place, options)
            except RuntimeError:
                raise UserError(explain_failure(told())) from None
            self._running = True
            if told():
                log.warning("%s", told())

    async def _run(self, ready: Callable[[str], None]) -> None:
        self._has_run = True
        token = trio.lowlevel.current_trio_token()

        def on_signal(number: int) -> None:
            self._is_unwanted = True
            token.run_sync_soon(self._end_by_signal, number)

        with _first_signal(on_signal):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._heart.run)
                    nursery.start_soon(self._operations.run)
                    await nursery.start(self._reaper.run)
                    nursery.start_soon(self._announce, ready)
                    await serve_requests()
                    nursery.cancel_scope.cancel()
            except BaseException:
                self._keep = self._keep or self._is_known  # nobody has asked for this end
                raise
            finally:
                self._running = False
                self._manager.stopping("unmounting")
                self._heart.beat()  # the last beats: each step of the end must be done within the limit
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._operations.close)
                self._heart.beat()
                self._mount.end()
                self._heart.beat()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._leave)

    async def _announce(self, ready: Callable[[str], None]) -> None:
        """Tells whoever started us, and goes on telling systemd; if they are gone, nobody knows of us and this ends."""
        await trio.lowlevel.checkpoint()  # where this ends if requests cannot be served
        if self._is_unwanted:
            return
        log.info("serving %s", self._region.path)
        try:
            ready("\0".join(self._region.warnings))
        except BrokenPipeError:
            log.warning("whoever asked for the mount is gone: unmounting")
            self._terminate()
            return
        self._manager.ready(f"serving {self._region.mountpoint}, counters in {self._region.path}")
        self._is_known = True
        await self._manager.ping()

    def _end_by_signal(self, number: int) -> None:
        log.info("%s: unmounting", signal.Signals(number).name)
        self._terminate()

    def _terminate(self) -> None:
        if self._running:
            pyfuse3.terminate()

    def _leave(self) -> None:
        """An end before anybody knows of the mount changes nothing: counters from before are there as they were."""
        try:
            self._region.release(keep=self._keep or (self._region.adopted and not self._is_known))
        except OSError as error:
            log.error("the region is left behind: %s", error)

    def holder_bound(self, holder: int, pid: int) -> None:
        self._reaper.holder_bound(holder)

    def holder_released(self, holder: int) -> None:
        self._reaper.holder_released(holder)

    def unmount_asked(self, keep: bool) -> None:
        if not keep and (holders := self._region.tree.holders()):
            raise OSError(errno.EBUSY, f"{len(holders)} live holders")
        self._keep = keep
        log.info("unmounting as asked%s", ", the counters stay" if keep else "")
        # after this turn of the loop, so that whoever asked is answered
        trio.lowlevel.current_trio_token().run_sync_soon(self._terminate)
