"""What the file system leaves to the daemon that runs it."""

from typing import Protocol


class Host(Protocol):
    """Called in the event loop's thread only; each must return at once."""

    def holder_bound(self, holder: int, pid: int) -> None:
        """The attached process `pid` has bound its holder to a control file that it keeps open."""

    def holder_released(self, holder: int) -> None:
        """The last descriptor of that control file is closed, whatever closed it.  Must not raise."""

    def unmount_asked(self, keep: bool) -> None:
        """Somebody who may has asked for the end of the mount.

        OSError(EBUSY) for live holders without `keep`.  Otherwise the mount ends soon: this request is still answered.
        """
