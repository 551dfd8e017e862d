"""The base of every control file: its declaration, and what each open file does.

A subclass with a `number` is a control file.  The class needs neither pyfuse3 nor the engine, so a client can import
its declaration.  An open file works on its group (interface/region.py), and asks the mount (mount.py) for everything
beyond the tree.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

from fsmount.protocol.file_names import KINDS_MAX
from fsmount.quantities import TEXT_MAX

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening
    from fsmount.control_files.text import Text
    from fsmount.interface.region import RegionGroup

#: The ending of quantities in bytes.
BYTES_ENDING = "_in_bytes"

#: The size of a file whose text is short, and of one whose text may fill a few pages.
SHORT, MEDIUM = 4096, 65536

READABLE = select.POLLIN | select.POLLRDNORM
WRITABLE = select.POLLOUT | select.POLLWRNORM
_READY = {os.O_RDONLY: READABLE, os.O_WRONLY: WRITABLE, os.O_RDWR: READABLE | WRITABLE}


class Figure(NamedTuple):
    """A metric of every counter: a key of R.stat."""

    key: str
    about: str
    quantity: bool = True
    #: Whether it is a counter in the sense of OpenMetrics.
    total: bool = False


class Waiter(Protocol):
    """A poll() that waits in the kernel."""

    def notify(self) -> None:
        """Makes the kernel ask again."""


#: Each control file, by its number.
_kinds: dict[int, type[ControlFile]] = {}


def kinds() -> tuple[type[ControlFile], ...]:
    """The control files whose modules are imported, by number."""
    return tuple(_kinds[number] for number in sorted(_kinds))


class ControlFile:
    """A control file as a class; one open file as an instance.

    text() and command() raise OSError, and change nothing then.  The kernel lets one write at a time into a file.
    """

    # ---- the declaration

    #: Identifies the file in inode numbers and stored attributes: it never changes, and no other file gets it.
    number: ClassVar[int]
    #: The name behind that of the resource and a dot.
    name: ClassVar[str]
    mode: ClassVar[int]
    #: Whether each resource has this file, each group, or the root group alone.
    scope: ClassVar[Literal["resource", "group", "root"]] = "resource"
    #: Whether no directory lists it; its name then begins with a dot.
    hidden: ClassVar[bool] = False
    #: Whether it is an amount in the unit of the resource.
    quantity: ClassVar[bool] = False
    #: Its text in fsmount(5), and further sections there: title and text.
    manual: ClassVar[str]
    sections: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: Whether `fsmount set` writes it.
    settable: ClassVar[bool] = False
    #: Whether `fsmount save` and `--config` keep it; UNLIMITED is the default.
    saved: ClassVar[bool] = False
    figures: ClassVar[tuple[Figure, ...]] = ()

    # ---- how open files behave

    #: Whether the time of the last write is kept.
    timed: ClassVar[bool] = True
    #: Whether each open file shows a text of its own.  The first read after a write then begins the text, whatever the
    #: offset: so a shell can write and read through one descriptor.
    private: ClassVar[bool] = False
    #: Whether the size depends on the tree, and so may change at any time.
    grows: ClassVar[bool] = False

    __slots__ = ("group", "inode", "opened_at", "opening", "thread", "truncates", "user", "waiter", "_start", "_text")

    def __init_subclass__(cls) -> None:
        if "number" not in cls.__dict__:
            return
        if not 0 <= cls.number < KINDS_MAX or cls.number in _kinds:
            raise TypeError(f"{cls.__name__}: number {cls.number} is taken, or not below {KINDS_MAX}")
        if not cls.manual.strip():
            raise TypeError(f"{cls.__name__}: the manual has no text about it")
        _kinds[cls.number] = cls

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.group = opening.group
        self.inode = opening.inode
        self.user = opening.user
        self.thread = opening.thread
        #: When, and whether with O_TRUNC.
        self.opened_at = 0.0
        self.truncates = False
        self.waiter: Waiter | None = None
        self._start: int | None = 0
        self._text: bytes | Text | None = None

    @classmethod
    def file_name(cls, resource: str = "", unit: str = "") -> str:
        """The whole name, such as memory.limit_in_bytes, tokens.limit, lease or .fsmount."""
        ending = BYTES_ENDING if cls.quantity and unit == "bytes" else ""
        return f"{'.' if cls.hidden else ''}{resource}{'.' if resource else ''}{cls.name}{ending}"

    @classmethod
    def is_owned(cls) -> bool:
        """Whether chmod and chown apply; the owner of any other file is that of its directory."""
        return not cls.hidden and cls.scope != "root"

    @classmethod
    def mode_in(cls, directory_mode: int) -> int:
        """The mode in a directory with this mode, while no chmod has changed it."""
        return cls.mode

    @classmethod
    def size(cls, group: RegionGroup) -> int:
        """The size that stat() shows: whole pages, and more than the text has (kernel_cache/file_sizes.py)."""
        return SHORT if cls.mode & 0o444 else 0

    def text(self) -> bytes:
        """The text that a read from the start shows."""
        raise OSError(errno.EINVAL, "this file cannot be read")

    def command(self, text: bytes) -> None:
        """Obeys one write of 1 to TEXT_MAX bytes."""
        raise OSError(errno.EINVAL, "this file cannot be written")

    def release(self) -> None:
        """The last descriptor is closed.  LockTimeout: the mount calls it again."""
        self.abandon()

    def abandon(self) -> None:
        """The mount ends while the file is open."""

    # ---- read, write and poll

    @property
    def readable(self) -> bool:
        """Whether it is open for reading."""
        return self.opening.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def length_read(self) -> int:
        """The length of the text that is being read."""
        return 0 if self._text is None else len(self._text)

    def read(self, offset: int, size: int) -> bytes:
        """A part of the text; a read from the start makes the text."""
        if self._start is None or offset < self._start:
            self._start = offset
        offset -= self._start
        text = self._text
        if offset == 0 or text is None:
            try:
                text = self._text = self.text()
            except OSError as error:
                raise self._first(error) from None
        else:
            self.check_group()
        return text[offset : offset + size]

    def write(self, text: bytes) -> int:
        """Obeys one command, at any offset."""
        if not text:
            return 0
        if len(text) > TEXT_MAX:
            raise OSError(errno.E2BIG, "a command is too long")
        try:
            self.command(text)
        except OSError as error:
            raise self._first(error) from None
        if self.private:
            self._start = None
        return len(text)

    def poll(self) -> int:
        """The events that poll() reports now."""
        ready = _READY.get(self.opening.flags & os.O_ACCMODE, 0)
        return ready if self.group.exists else ready | select.POLLERR

    @property
    def listens(self) -> bool:
        """Whether an event of the tree may change poll()."""
        return False

    @property
    def queued(self) -> bool:
        """Whether the file waits on after poll() has returned."""
        return False

    def has_news(self) -> bool:
        """After an event of the tree: whether poll() has changed.  OSError counts as a change."""
        return False

    def check_group(self) -> None:
        """OSError(ENODEV): the group was removed."""
        if not self.group.exists:
            raise OSError(errno.ENODEV, "the group was removed")

    def _first(self, error: OSError) -> OSError:
        """The error to report: a removed group comes before a wrong text."""
        if error.errno in (errno.EINVAL, errno.EPERM, errno.ERANGE) and not self.group.exists:
            return OSError(errno.ENODEV, "the group was removed")
        return error


class CounterFile(ControlFile):
    """A control file of one counter."""

    __slots__ = ("counter",)

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.counter = opening.group[opening.resource]
