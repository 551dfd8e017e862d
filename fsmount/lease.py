"""Charging through files alone: the same face as tree.py, for where the region is out of reach.

Another user's tree whose lease files were delegated to us, or a mount seen from inside a container:
there a group is what its files say, and who charges holds an open lease.  An attachment has one
lease for each resource it charges, opened with the first charge.  The kernel closes it for any
death of the process, and its last close gives back what it holds.

What the daemon cannot put into an errno is read afterwards: which ancestor refused, with what
usage and limit.  Others may have charged or uncharged in between, so these are of a moment later
than the refusal; the refusal itself is exact.

A lease is bound to the daemon it was opened with.  Of one whose daemon died, the next keeps the
charges until this process ends; here every operation raises TreeGone, until one attaches again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Iterator, Mapping
from weakref import WeakSet

from . import engine
from .control_files import (
    CHARGE,
    EVENTS,
    FAILCNT,
    HOLDERS,
    LEASE,
    LIMIT,
    MAX_USAGE,
    SOFT_LIMIT,
    STAT,
    UNCHARGE,
    USAGE,
    Kind,
    file_name,
)
from .counter import Hold
from .errors import GroupRemoved, LimitExceeded, NotHeld, TreeGone
from .group import ends_with_keep

__all__ = ["LeaseCounter", "LeaseGroup", "attach_files", "group_at"]

_DESCRIPTORS = "/proc/self/fd/"

# Over the opening of leases and directories.  A fork waits for it, so that no child has a descriptor nobody knows of;
# reentrant because of signal handlers.
_lock = threading.RLock()
_counters: WeakSet[LeaseCounter] = WeakSet()
# Those with an open lease: what was charged must not vanish because a variable did.
_charged: set[LeaseCounter] = set()


def attach_files(directory: str, on_exit: str) -> LeaseGroup:
    """An attachment to the group at this real path.

    FileNotFoundError, NotADirectoryError; EINVAL: no directory of an fsmount tree; TreeGone: its daemon is
    gone; PermissionError: none of its lease files may be opened.
    """
    group = group_at(directory, keep=ends_with_keep(on_exit))
    leases = [os.path.join(directory, file_name(name, unit, LEASE)) for name, unit in group.units.items()]
    if not any(os.access(lease, os.R_OK | os.W_OK, effective_ids=True) for lease in leases):
        raise PermissionError(
            errno.EACCES, "no lease file of this group is ours to open; its owner can change that", leases[0]
        )
    group.pin()
    return group


def group_at(directory: str, *, keep: bool = False) -> LeaseGroup:
    """The group at this real path, to be asked, and attached when it is first charged.

    FileNotFoundError, NotADirectoryError, PermissionError; EINVAL: no directory of an fsmount tree; TreeGone.
    """
    try:
        resources = _resources(directory)
    except GroupRemoved:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory) from None
    if not resources:
        raise OSError(errno.EINVAL, "this directory is in no fsmount tree", directory)
    return LeaseGroup(directory, resources, keep)


def _resources(directory: str) -> dict[str, str]:
    """Name -> unit of what the group at this path counts; empty if it is none."""
    with _told_of(directory), os.scandir(directory) as entries:
        files = [entry.name for entry in entries if not entry.is_dir()]
    names = set(files)
    found = {}
    for file in files:
        name, _, ending = file.rpartition(".")
        if ending == STAT.name and f"{name}.{HOLDERS.name}" in names:
            found[name] = "bytes" if file_name(name, "bytes", USAGE) in names else "count"
    return found


@contextlib.contextmanager
def _told_of(path: str) -> Iterator[None]:
    """What an error of the mount means for the group at this path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise TreeGone(path, "the mount has lost its daemon: `fsmount mount` takes it over") from None
        if error.errno in (errno.ENODEV, errno.ENOENT, errno.ESTALE):
            raise GroupRemoved(path) from None
        raise OSError(error.errno, error.strerror, _public(error.filename or path, path)) from None


def _public(name: str, path: str) -> str:
    """The path of a file or directory as others know it: ours may lead through a descriptor of the group at path."""
    return os.path.join(path, *name.split("/")[5:]) if name.startswith(_DESCRIPTORS) else name


class LeaseGroup:
    """A group as its directory shows it.

    One that came from attach() is an attachment: close() ends it, and so does the end of a `with`.  Any
    other attaches itself when it is first charged.  Attachments hold their own: what one of them charged
    another does not give back.
    """

    def __init__(self, path: str, units: Mapping[str, str], keep: bool = False) -> None:
        self._path = path
        #: Name -> unit ("bytes" or "count").
        self.units = dict(units)
        #: Whether the group keeps what is held at the end.
        self.keep = keep
        self._counters: dict[str, LeaseCounter] = {}
        self._directory = -1
        self._closed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeaseGroup) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"<LeaseGroup {self.path}>"

    def __del__(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)

    # ---- what it is

    @functools.cached_property
    def identity(self) -> tuple[int, int]:
        """Device and inode of its directory: never those of another group of the mount."""
        with _told_of(self.path):
            status = os.stat(self.where())
        return status.st_dev, status.st_ino

    @property
    def path(self) -> str:
        """Its path; of an attachment also after somebody renamed it."""
        if self._directory >= 0:
            path = os.readlink(f"{_DESCRIPTORS}{self._directory}")
            if not path.endswith(" (deleted)"):
                self._path = path
        return self._path

    @property
    def name(self) -> str:
        """Its name; the root's is empty."""
        return "" if self.parent is None else os.path.basename(self.path)

    @property
    def parent(self) -> LeaseGroup | None:
        """None for the root, or for the topmost group that can be seen from here."""
        path = self.path
        above = os.path.dirname(path)
        with _told_of(path):
            device = os.stat(path).st_dev
        first = next(iter(self.units))
        try:
            inside = os.stat(os.path.join(above, file_name(first, self.units[first], STAT))).st_dev == device
        except OSError:
            inside = False
        return LeaseGroup(above, self.units) if inside and above != path else None

    @property
    def resources(self) -> tuple[str, ...]:
        return tuple(self.units)

    @property
    def exists(self) -> bool:
        """Whether it has not been removed."""
        try:
            self[self.resources[0]].stat()  # to be read it must be asked for; a stat() the kernel may answer itself
        except GroupRemoved:
            return False
        return True

    def children(self) -> list[LeaseGroup]:
        """The groups in it."""
        path = self.path
        with _told_of(path), os.scandir(self.where()) as listing:
            entries = list(listing)
        if not entries:  # a group has files; what is removed while it is open reads as empty
            raise GroupRemoved(path)
        return [LeaseGroup(os.path.join(path, entry.name), self.units) for entry in entries if entry.is_dir()]

    def __getitem__(self, resource: str) -> LeaseCounter:
        """The counter of a resource.  KeyError."""
        if resource not in self.units:
            raise KeyError(f"no resource {resource!r} here; there are: {', '.join(self.units)}")
        return self._counters.get(resource) or self._counters.setdefault(resource, LeaseCounter(self, resource))

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    # ---- the attachment

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends the attachment: what it holds is given back, or kept by the group, when this returns.

        The group can still be asked, but no more be charged through this object.
        """
        self._closed = True
        for counter in list(self._counters.values()):
            counter.end()
        self._unpin()

    detach = close

    def hand_down(self) -> None:
        """Has the programs that are started from now on inherit the open leases.

        What is held is given back by close() then too, but without it only when the last of them has ended as well.
        """
        for counter in list(self._counters.values()):
            counter.hand_down()

    def __enter__(self) -> LeaseGroup:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def pin(self) -> None:
        """Holds on to the directory itself rather than to its path: it may be renamed."""
        with _lock, _told_of(self._path):
            if self._directory < 0:
                self._directory = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _unpin(self) -> None:
        self._path = self.path
        directory, self._directory = self._directory, -1
        if directory >= 0:
            os.close(directory)

    def where(self) -> str:
        """A path that leads to its files now."""
        return f"{_DESCRIPTORS}{self._directory}" if self._directory >= 0 else self._path


class LeaseCounter:
    """The counter of one resource in a group.  Charging it charges every ancestor too.

    Amounts are ints from 0 to UNLIMITED: anything else is a TypeError, ValueError (below 0) or
    OverflowError.  Safe to use from several threads.
    """

    def __init__(self, group: LeaseGroup, resource: str) -> None:
        self.group = group
        self.resource = resource
        self._lease = -1
        self._lock = threading.RLock()  # nobody closes the descriptor while it is written to
        _counters.add(self)

    def __repr__(self) -> str:
        return f"<LeaseCounter {self.resource} of {self.group.path}>"

    @property
    def unit(self) -> str:
        """ "bytes" or "count"."""
        return self.group.units[self.resource]

    # ---- charging

    def charge(self, amount: int) -> None:
        """Charges, or raises LimitExceeded and changes nothing."""
        amount = engine.amount(amount)
        if not self._tell(b"+%d", amount, refusal=errno.ENOMEM):
            raise self._limit_exceeded(amount)

    def try_charge(self, amount: int) -> bool:
        """Charges; False, with nothing changed, if a limit would be passed."""
        return self._tell(b"+%d", engine.amount(amount), refusal=errno.ENOMEM)

    def charge_nofail(self, amount: int) -> bool:
        """Always charges; False if a limit on the way up is exceeded after it."""
        self._tell(b"nofail %d", engine.amount(amount))
        return all(stat["usage"] <= stat["limit"] for _, stat in self._upwards())

    def uncharge(self, amount: int) -> None:
        """Gives back of what this attachment holds, or raises NotHeld and changes nothing."""
        amount = engine.amount(amount)
        if not self._tell(b"-%d", amount, refusal=errno.ERANGE):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def give(self, amount: int) -> None:
        """What this attachment holds becomes the group's own.  NotHeld."""
        amount = engine.amount(amount)
        if not self._tell(b"give %d", amount, refusal=errno.ERANGE):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def take(self, amount: int) -> None:
        """What the group itself holds becomes this attachment's.  NotHeld."""
        amount = engine.amount(amount)
        if not self._tell(b"take %d", amount, refusal=errno.ERANGE):
            raise NotHeld(self.resource, amount, self.stat()["common"], self.group.path)

    def hold(self, amount: int) -> Hold:
        """A context manager: charged inside, uncharged after."""
        return Hold(self, engine.amount(amount))

    @property
    def held(self) -> int:
        """What this attachment holds here."""
        with self._lock, _told_of(self.group.path):
            return int(os.pread(self._lease, 64, 0)) if self._lease >= 0 else 0

    # ---- what it says

    @property
    def usage(self) -> int:
        """What is charged in the subtree, precisely: stock is not usage."""
        return int(self._read(USAGE))

    @property
    def limit(self) -> int:
        """The limit.  Set to less than the usage it raises OSError(EBUSY) and stays as it is."""
        return int(self._read(LIMIT))

    @limit.setter
    def limit(self, limit: int) -> None:
        limit = engine.amount(limit)
        try:
            self._write(LIMIT, b"%d" % limit)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise OSError(
                errno.EBUSY,
                f"the limit of {self.resource} cannot be {limit}: the usage is {self.usage}; uncharge first, "
                "or set no less than that",
                self.group.path,
            ) from None

    @property
    def soft_limit(self) -> int:
        return int(self._read(SOFT_LIMIT))

    @soft_limit.setter
    def soft_limit(self, limit: int) -> None:
        self._write(SOFT_LIMIT, b"%d" % engine.amount(limit))

    @property
    def max_usage(self) -> int:
        """The peak of the usage since it was reset; stat()["error_bound"] tells how far it may be off."""
        return int(self._read(MAX_USAGE))

    @property
    def failcnt(self) -> int:
        """How many charges this counter refused, since it was reset."""
        return int(self._read(FAILCNT))

    @property
    def margin(self) -> int:
        """What may still be charged before this limit: limit - usage, 0 at least."""
        return self.stat()["margin"]

    @property
    def soft_limit_excess(self) -> int:
        """By how much the usage is above the soft limit."""
        return self.stat()["soft_limit_excess"]

    def stat(self) -> dict[str, int]:
        """All there is to know of it, of one moment; the keys of R.stat in their order."""
        return _parse_counts(self._read(STAT))

    def events(self) -> dict[str, int]:
        """What happened in the subtree, ever; the keys of R.events in their order."""
        return _parse_counts(self._read(EVENTS))

    # ---- what it can be told

    def reset_max_usage(self) -> None:
        """Sets max_usage, and min_usage, to the usage of now."""
        self._write(MAX_USAGE, b"0")

    def reset_failcnt(self) -> None:
        self._write(FAILCNT, b"0")

    def charge_common(self, amount: int) -> None:
        """Charges the group itself: it stays until it is uncharged, whoever lives or dies.  LimitExceeded."""
        amount = engine.amount(amount)
        try:
            self._write(CHARGE, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise self._limit_exceeded(amount) from None

    def uncharge_common(self, amount: int) -> None:
        """Gives back of what the group itself holds.  NotHeld."""
        amount = engine.amount(amount)
        try:
            self._write(UNCHARGE, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            raise NotHeld(self.resource, amount, self.stat()["common"], self.group.path) from None

    # ---- files

    def _path(self, kind: Kind) -> str:
        return os.path.join(self.group.where(), file_name(self.resource, self.unit, kind))

    def _read(self, kind: Kind) -> bytes:
        with _told_of(self.group.path), open(self._path(kind), "rb", buffering=0) as file:
            return file.read()

    def _write(self, kind: Kind, text: bytes) -> None:
        with _told_of(self.group.path), open(self._path(kind), "wb", buffering=0) as file:
            file.write(text)

    # ---- the lease

    def _tell(self, command: bytes, amount: int, refusal: int | None = None) -> bool:
        """Writes a command to the lease; False for the errno that is a refusal of it."""
        with self._lock:
            self._open()
            try:
                with _told_of(self.group.path):
                    os.pwrite(self._lease, command % amount, 0)
            except OSError as error:
                if error.errno != refusal:
                    raise
                return False
        return True

    def _open(self) -> None:
        if self.group.closed:
            raise ValueError(f"{self.group.path} was closed here: attach to it again to charge it")
        if self._lease < 0:
            self.group.pin()
            with _lock, _told_of(self.group.path):
                self._lease = os.open(self._path(LEASE), os.O_RDWR | os.O_CLOEXEC)
                _charged.add(self)
                if self.group.keep:
                    os.pwrite(self._lease, b"keep", 0)

    def hand_down(self) -> None:
        """Has the programs that are started from now on inherit the lease."""
        with self._lock:
            if self._lease >= 0:
                os.set_inheritable(self._lease, True)

    def end(self) -> None:
        """Gives back what is held, or leaves it to the group, and closes the lease.

        The close alone would do the same, but a little after it has returned.
        """
        with self._lock:
            if self._lease < 0:
                return
            try:
                held = int(os.pread(self._lease, 64, 0))
                os.pwrite(self._lease, b"give %d" % held if self.group.keep else b"0", 0)
            except OSError:
                pass  # the group or the daemon is gone, or the last close has to do
            self._close()

    def _close(self) -> None:
        lease, self._lease = self._lease, -1
        _charged.discard(self)
        if lease >= 0:
            os.close(lease)

    def forget(self) -> None:
        """In a forked child: the lease is the parent's, and must not outlive it here."""
        self._lock = threading.RLock()
        self._close()

    # ---- who refused

    def _upwards(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Path and stat of the group and its ancestors."""
        group: LeaseGroup | None = self.group
        while group is not None:
            yield group.path, group[self.resource].stat()
            group = group.parent

    def _limit_exceeded(self, requested: int) -> LimitExceeded:
        """Names the first on the way up that has no room for it now, else the one with the least."""
        found: tuple[str, dict[str, int]] | None = None
        for path, stat in self._upwards():
            if found is None or stat["margin"] < found[1]["margin"]:
                found = path, stat
            if stat["margin"] < requested:
                break
        assert found is not None
        path, stat = found
        return LimitExceeded(path, self.resource, requested, stat["usage"], stat["limit"])


def _parse_counts(text: bytes) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.decode().splitlines())}


def _forget_all() -> None:
    """In a forked child, whose locks are made anew: the threads that held them in the parent are not here."""
    global _lock
    _lock = threading.RLock()
    for counter in list(_counters):
        counter.forget()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forget_all)
