"""The daemon of one mount: it mounts, serves requests until the end, unmounts, and gives up the region."""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import Callable

import trio

from fsmount.admin.named_path import OpenPath
from fsmount.admin.service_manager import ServiceManager
from fsmount.admin.user_error import UserError
from fsmount.daemon.end_signals import first_signal
from fsmount.daemon.fuse_options import captured_stderr, explain_failure
from fsmount.daemon.heartbeat import Heartbeat
from fsmount.daemon.own_mount import OwnMount
from fsmount.daemon.reaper import Reaper
from fsmount.daemon.served_region import ServedRegion
from fsmount.filesystem import Operations, pyfuse3, serve_requests

log = logging.getLogger(__name__)


class Daemon:
    """Serves one mount.  The file system reports holders and requests to unmount to it."""

    def __init__(self, region: ServedRegion, heartbeat: Heartbeat, manager: ServiceManager) -> None:
        self._region = region
        self._heartbeat = heartbeat
        self._manager = manager
        self._reaper = Reaper(region.tree, region.leases)
        self._operations = Operations(region.tree, self, region.leases)
        self._mount = OwnMount()
        self._running = False
        self._has_run = False
        self._keep = False  # at the end the region stays, even without holders
        self._is_announced = False  # the process that asked for the mount knows that it is there
        self._is_ending = False  # a signal has asked for the end

    def serve(self, mount_point: OpenPath, options: set[str], ready: Callable[[str], None]) -> None:
        """Mounts, serves until the end, unmounts, and keeps or removes the region.  UserError: it cannot mount."""
        try:
            self._begin(mount_point, options)
            trio.run(self._run, ready)
        except BaseException:
            if not self._has_run:
                self._mount.end()  # first: abandon() looks at the mount point
                self._region.abandon()
            raise

    def _begin(self, mount_point: OpenPath, options: set[str]) -> None:
        with captured_stderr() as stderr:
            try:
                self._mount.begin(self._operations, mount_point, options)
            except RuntimeError:
                raise UserError(explain_failure(stderr())) from None
            self._running = True
            if stderr():
                log.warning("%s", stderr())

    async def _run(self, ready: Callable[[str], None]) -> None:
        self._has_run = True
        token = trio.lowlevel.current_trio_token()

        def on_signal(number: int) -> None:
            self._is_ending = True
            token.run_sync_soon(self._end_by_signal, number)

        with first_signal(on_signal):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._heartbeat.run)
                    nursery.start_soon(self._operations.run)
                    await nursery.start(self._reaper.run)
                    nursery.start_soon(self._announce, ready)
                    await serve_requests()
                    nursery.cancel_scope.cancel()
            except BaseException:
                self._keep = self._keep or self._is_announced  # no user has asked for this end
                raise
            finally:
                self._running = False
                self._manager.stopping("unmounting")
                self._heartbeat.beat()  # the last beats: each step of the end may take the whole limit
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._operations.close)
                self._heartbeat.beat()
                self._mount.end()
                self._heartbeat.beat()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._release)

    async def _announce(self, ready: Callable[[str], None]) -> None:
        """Reports to the process that asked for the mount, then pings systemd.  Unmounts if that process is gone."""
        await trio.lowlevel.checkpoint()  # cancelled here if requests cannot be served
        if self._is_ending:
            return
        log.info("serving %s", self._region.path)
        try:
            ready("\0".join(self._region.warnings))
        except BrokenPipeError:
            log.warning("the process that asked for the mount is gone: unmounting")
            self._terminate()
            return
        self._manager.ready(f"serving {self._region.mountpoint}, counters in {self._region.path}")
        self._is_announced = True
        await self._manager.ping()

    def _end_by_signal(self, number: int) -> None:
        log.info("%s: unmounting", signal.Signals(number).name)
        self._terminate()

    def _terminate(self) -> None:
        if self._running:
            pyfuse3.terminate()

    def _release(self) -> None:
        """Gives up the region.  An end before the announcement leaves an adopted region as it was."""
        try:
            self._region.release(keep=self._keep or (self._region.adopted and not self._is_announced))
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
        log.info("unmounting on request%s", ", the counters stay" if keep else "")
        # in the next turn of the loop, so that this request is answered first
        trio.lowlevel.current_trio_token().run_sync_soon(self._terminate)
