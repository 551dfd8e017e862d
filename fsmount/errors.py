"""The errors of counters.  Each is an OSError with the errno that the files answer.

Each can be pickled, so that a worker can hand it to the process that started it.
"""

import errno

#: Of a mount whose files answer nothing any more.
LOST_DAEMON = "the mount has lost its daemon: `fsmount mount` takes it over"

#: Of a directory of a mount that is no more.
UNMOUNTED = "it was unmounted: `fsmount mount` mounts it again"

#: Of a charge past the limits by anybody else.
NOFAIL_IS_RESERVED = "only root and the owner of the mount may charge past limits: charge without nofail"


def says_daemon_is_lost(error: OSError) -> bool:
    """Whether a file or directory fails so whose file system is not served any more."""
    return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)


class LimitExceeded(OSError):
    """A charge was refused: some limit on the way up would have been passed.  Nothing was charged anywhere."""

    def __init__(self, group: str, resource: str, requested: int, usage: int, limit: int) -> None:
        super().__init__(
            errno.ENOMEM, f"charging {requested} to {resource} would pass a limit: {usage} of {limit} are used", group
        )
        #: Path of the group that refused: the charged one or an ancestor.
        self.group = group
        self.resource = resource
        self.requested = requested
        #: The usage and the limit of that group.
        self.usage = usage
        self.limit = limit

    def __reduce__(self) -> tuple[type, tuple[str, str, int, int, int]]:
        return type(self), (self.group, self.resource, self.requested, self.usage, self.limit)


class NotHeld(OSError):
    """More was to be given back than is held.  Nothing has changed."""

    def __init__(self, resource: str, requested: int, held: int, group: str | None = None) -> None:
        text = f"{requested} of {resource} cannot be given back or moved: {held} are held"
        super().__init__(*(errno.ERANGE, text) if group is None else (errno.ERANGE, text, group))
        self.resource = resource
        self.requested = requested
        self.held = held
        self._group = group

    def __reduce__(self) -> tuple[type, tuple[str, int, int, str | None]]:
        return type(self), (self.resource, self.requested, self.held, self._group)


class GroupRemoved(OSError):
    """The group is not there any more."""

    def __init__(self, group: str) -> None:
        super().__init__(errno.ENODEV, "the group was removed", group)
        #: The path it was last known by.
        self.group = group

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.group,)


class TreeGone(OSError):
    """The tree cannot be reached: it was closed here, or its mount is gone or has lost its daemon."""

    def __init__(self, region: str | None, why: str = "the tree was closed") -> None:
        super().__init__(*(errno.ENOTCONN, why) if region is None else (errno.ENOTCONN, why, region))
        #: Path of its region, or of what should have led there.
        self.region = region
        self._why = why

    def __reduce__(self) -> tuple[type, tuple[str | None, str]]:
        return type(self), (self.region, self._why)


class RegionCorrupt(OSError):
    """The shared region holds something impossible: somebody else wrote into it."""

    def __init__(self, found: str, region: str | None = None) -> None:
        super().__init__(*(errno.EUCLEAN, found) if region is None else (errno.EUCLEAN, found, region))
        #: The damage, and its place in the region.
        self.found = found
        self.region = region

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.found, self.region)


class LockTimeout(TimeoutError):
    """The region's lock was not to be had: its owner, process `pid`, is stopped or starved."""

    def __init__(self, pid: int, region: str | None = None) -> None:
        text = f"process {pid} holds the region's lock and does not go on (is it stopped?)"
        super().__init__(*(errno.ETIMEDOUT, text) if region is None else (errno.ETIMEDOUT, text, region))
        self.pid = pid
        self.region = region

    def __reduce__(self) -> tuple[type, tuple[int, str | None]]:
        return type(self), (self.pid, self.region)
