"""The interface between the file system and the daemon that runs it."""

from typing import Protocol


class Host(Protocol):
    """The daemon's part.  The event loop's thread calls all methods; each must return at once."""

    def holder_bound(self, holder: int, pid: int) -> None:
        """The attached process `pid` has bound its holder to a control channel that it keeps open."""

    def holder_released(self, holder: int) -> None:
        """The last descriptor of the holder's control channel is closed.  Must not raise."""

    def unmount_asked(self, keep: bool) -> None:
        """Root or the owner of the mount has asked for its end.

        OSError(EBUSY): there are live holders, and `keep` is not set.  Otherwise the mount ends after this answer.
        """
