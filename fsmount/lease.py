"""Charging through files alone: the same face as tree.py, for where the region is out of reach.

Another user's tree whose lease files were delegated to us, or a mount seen from inside a container:
there a group is what its files say, and who charges holds an open lease.  An attachment has one, for
all resources, opened with the first charge; or one for each resource it charges, if only these may be
opened.  The kernel closes it for any death of the process, and its last close gives back what it holds.

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
import select
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from weakref import WeakSet

from . import engine
from .control_files import (
    CHARGE,
    EVENTS,
    FAILCNT,
    GROUP_LEASE,
    HOLDERS,
    LEASE,
    LIMIT,
    MAX_USAGE,
    PROBE,
    SOFT_LIMIT,
    STAT,
    UNCHARGE,
    USAGE,
    WHY,
    Kind,
    file_name,
    survey_name,
)
from .engine import Hold
from .errors import GroupRemoved, LimitExceeded, NotHeld, TreeGone
from .group import ends_with_keep
from .refusals import Probe, Refusal
from .waiting import Baton, readable
from .whole_requests import WholeRequests

__all__ = ["HolderLine", "LeaseCounter", "LeaseGroup", "attach_files", "group_at"]

_DESCRIPTORS = "/proc/self/fd/"

# What is read at once of a file that may be long, in bytes.
_LARGE = 1 << 20

# In seconds: epoll_wait() takes no longer timeout.
_LONGEST = (2**31 - 1) // 1000

# Over the opening of leases and directories.  A fork waits for it, so that no child has a descriptor nobody knows of;
# reentrant because of signal handlers.
_lock = threading.RLock()
_leases: WeakSet[_OpenLease] = WeakSet()
# Those that are open: what was charged must not vanish because a variable did.
_opened: set[_OpenLease] = set()


def attach_files(directory: str, on_exit: str) -> LeaseGroup:
    """An attachment to the group at this real path.

    FileNotFoundError, NotADirectoryError; EINVAL: no directory of an fsmount tree; TreeGone: its daemon is
    gone; PermissionError: none of its lease files may be opened.
    """
    group = group_at(directory, keep=ends_with_keep(on_exit))
    files = [GROUP_LEASE.name, *(file_name(name, unit, LEASE) for name, unit in group.units.items())]
    leases = [os.path.join(directory, file) for file in files]
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


class LeaseGroup(WholeRequests):
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
        self._leases: dict[str | None, _OpenLease] = {}
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
            if path != self._path and self._is_at(path):
                self._path = path
        return self._path

    def _is_at(self, path: str) -> bool:
        """Whether a path of the kernel's leads there: not so if the group was removed, or its mount is gone."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(path), os.fstat(self._directory))
        return False

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

    # ---- whole requests; charge, uncharge and hold are WholeRequests'

    def change(self, amounts: Mapping[str, int]) -> None:
        if len(amounts) == 1:  # that resource's own lease may be the only one that is ours to open
            for resource, amount in amounts.items():
                if amount >= 0:
                    self[resource].charge(amount)
                else:
                    self[resource].uncharge(-amount)
        else:
            self._change(self.lease(), amounts)

    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        return self._lease_for(amounts).charge_in_turn(amounts, timeout)

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        await self._lease_for(amounts).charge_in_turn_async(amounts)

    def _lease_for(self, amounts: Mapping[str, int]) -> _OpenLease:
        if len(amounts) > 1:
            return self.lease()
        (resource,) = amounts
        return self[resource].lease()

    def charge_common(self, amounts: Mapping[str, int]) -> None:
        """Charges the group itself, all at once or nothing: it stays until it is uncharged.  LimitExceeded."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].charge_common(amount)
        else:
            with self._lease_of_this_call() as lease:
                self._change(lease, amounts)
                lease.tell("give")

    def charge_common_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> None:
        """The same when it is their turn; LimitExceeded if that takes longer than so many seconds."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        with self._lease_of_this_call() as lease:
            if wanted and not lease.charge_in_turn(wanted, timeout):
                self._change(lease, wanted)
            lease.tell("give")

    def uncharge_common(self, amounts: Mapping[str, int]) -> None:
        """Gives back of what the group itself holds, all at once or nothing.  NotHeld."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].uncharge_common(amount)
        else:
            with self._lease_of_this_call() as lease:
                if lease.tell("take", {resource: f"{amount}" for resource, amount in amounts.items()}):
                    raise self._not_held(amounts, {resource: self[resource].stat()["common"] for resource in amounts})

    @contextlib.contextmanager
    def _lease_of_this_call(self) -> Iterator[_OpenLease]:
        lease = _OpenLease(self, None, keep=False)
        try:
            yield lease
        finally:
            lease.end()

    def _change(self, lease: _OpenLease, amounts: Mapping[str, int]) -> None:
        refusal = lease.tell("", {resource: f"{amount:+d}" for resource, amount in amounts.items()})
        if refusal == errno.ENOMEM:
            raise self._limit_exceeded(amounts)
        if refusal == errno.ERANGE:
            raise self._not_held({resource: -amount for resource, amount in amounts.items()}, lease.held())

    def _limit_exceeded(self, amounts: Mapping[str, int]) -> LimitExceeded:
        """Names the first resource of which there is not enough now, else the one with the least to spare."""
        found = [self[resource].limit_exceeded(amount) for resource, amount in amounts.items() if amount > 0]
        return min(found, key=lambda refused: max(refused.limit - refused.usage - refused.requested, -1))

    def _not_held(self, amounts: Mapping[str, int], held: Mapping[str, int]) -> NotHeld:
        """Likewise."""
        resource = min(amounts, key=lambda resource: max(held[resource] - amounts[resource], -1))
        return NotHeld(resource, amounts[resource], held[resource], self.path)

    # ---- the attachment

    def lease(self, resource: str | None = None) -> _OpenLease:
        """The lease of one resource, or of all of them."""
        return self._leases.get(resource) or self._leases.setdefault(resource, _OpenLease(self, resource, self.keep))

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends the attachment: what it holds is given back, or kept by the group, when this returns.

        The group can still be asked, but no more be charged through this object.
        """
        self._closed = True
        for lease in list(self._leases.values()):
            lease.end()
        self._unpin()

    detach = close

    def hand_down(self) -> None:
        """Has the programs that are started from now on inherit the open leases.

        What is held is given back by close() then too, but without it only when the last of them has ended as well.
        """
        for lease in list(self._leases.values()):
            lease.hand_down()

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


class HolderLine(NamedTuple):
    """A line of R.holders; the common pot's has pid 0.  start_time is in clock ticks after boot."""

    pid: int
    start_time: int
    held: int
    stock: int
    command: str


class LeaseCounter:
    """The counter of one resource in a group.  Charging it charges every ancestor too.

    Amounts are ints from 0 to UNLIMITED: anything else is a TypeError, ValueError (below 0) or
    OverflowError.  Safe to use from several threads.
    """

    def __init__(self, group: LeaseGroup, resource: str) -> None:
        self.group = group
        self.resource = resource

    def __repr__(self) -> str:
        return f"<LeaseCounter {self.resource} of {self.group.path}>"

    @property
    def unit(self) -> str:
        """ "bytes" or "count"."""
        return self.group.units[self.resource]

    # ---- charging

    def charge(self, amount: int, /, *, wait: bool = False, timeout: float | None = None) -> None:
        """Charges, or raises LimitExceeded and changes nothing.

        wait: if there is no room, it waits in line until there is; for so many seconds, or with None for ever.
        """
        if timeout is not None and not wait:
            raise ValueError("timeout is for a charge that waits: wait=True")
        amount = engine.amount(amount)
        if wait and amount > 0 and self.group.charge_in_turn({self.resource: amount}, timeout):
            return
        if not self.try_charge(amount):
            raise self.limit_exceeded(amount)

    async def wait_charge(self, amount: int) -> None:
        """Charges as soon as there is room and it is its turn, in a task of trio or asyncio.

        Cancelled, it has charged nothing.
        """
        await self.group.wait_charge({self.resource: amount})

    def try_charge(self, amount: int) -> bool:
        """Charges; False, with nothing changed, if a limit would be passed."""
        return not self._tell("", f"+{engine.amount(amount)}")

    def charge_nofail(self, amount: int) -> bool:
        """Always charges; False if a limit on the way up is exceeded after it."""
        self._tell("nofail", f"{engine.amount(amount)}")
        return all(stat["usage"] <= stat["limit"] for _, stat in self._upwards())

    def uncharge(self, amount: int) -> None:
        """Gives back of what this attachment holds, or raises NotHeld and changes nothing."""
        if self._tell("", f"-{engine.amount(amount)}"):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def give(self, amount: int) -> None:
        """What this attachment holds becomes the group's own.  NotHeld."""
        if self._tell("give", f"{engine.amount(amount)}"):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def take(self, amount: int) -> None:
        """What the group itself holds becomes this attachment's.  NotHeld."""
        if self._tell("take", f"{engine.amount(amount)}"):
            raise NotHeld(self.resource, amount, self.stat()["common"], self.group.path)

    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> Hold:
        """A context manager: charged inside, uncharged after; wait and timeout as those of charge()."""
        return Hold(self, engine.amount(amount), wait, timeout)

    @property
    def held(self) -> int:
        """What this attachment holds here."""
        return sum(self.group.lease(which).held().get(self.resource, 0) for which in (None, self.resource))

    def lease(self) -> _OpenLease:
        """The group's lease, or one of this resource alone if that one may not be opened."""
        lease = self.group.lease(self.resource)
        if not lease.is_open:
            try:
                self.group.lease().open()
                lease = self.group.lease()
            except PermissionError:
                pass
        return lease

    def _tell(self, word: str, number: str) -> int:
        return self.lease().tell(word, {self.resource: number})

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

    def holders(self) -> list[HolderLine]:
        """Who holds something here, or may; the common pot too."""
        found = []
        for line in self._read(HOLDERS).decode(errors="replace").splitlines():
            pid, start_time, held, stock, command = line.split(" ", 4)
            found.append(HolderLine(int(pid), int(start_time), int(held), int(stock), command))
        return found

    def survey(self) -> list[engine.Surveyed]:
        """Every group from this one down, parents before their children, all of one moment; see Tree.survey()."""
        path = os.path.join(self.group.where(), survey_name(self.resource))
        with _told_of(self.group.path), open(path, "rb", buffering=0) as file:
            text = b"".join(iter(functools.partial(file.read, _LARGE), b""))
        found = []
        for line in os.fsdecode(text).split("\n")[:-1]:
            id, parent, *amounts, name = line.split(" ", 9)
            found.append(engine.Surveyed(int(id), int(parent), name, *map(int, amounts)))
        return found

    def why(self) -> list[Refusal]:
        """The last refusals of charges that were asked for in the subtree, or refused by a limit in it, newest first.

        A tree keeps the last 256 of different processes, counters or limits.
        """
        return [Refusal.parse(line) for line in os.fsdecode(self._read(WHY)).split("\n")[:-1]]

    def probe(self, amount: int) -> Probe:
        """What a charge of so much would meet now, without charging, and without taking anybody's stock.

        It is one that does not wait: who stands in line takes no room from it.
        """
        amount = engine.amount(amount)
        with _told_of(self.group.path), open(self._path(PROBE), "r+b", buffering=0) as file:
            file.write(b"%d" % amount)
            return Probe.parse(os.fsdecode(file.readall()))

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
            raise self.limit_exceeded(amount) from None

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

    # ---- who refused

    def _upwards(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Path and stat of the group and its ancestors."""
        group: LeaseGroup | None = self.group
        while group is not None:
            yield group.path, group[self.resource].stat()
            group = group.parent

    def limit_exceeded(self, requested: int) -> LimitExceeded:
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


class _OpenLease:
    """A lease file of a group, of one resource or of all, opened when it is first told something."""

    def __init__(self, group: LeaseGroup, resource: str | None, keep: bool) -> None:
        self._group = group
        self._resource = resource
        self._keep = keep
        self._file = GROUP_LEASE.name if resource is None else file_name(resource, group.units[resource], LEASE)
        self._descriptor = -1
        self._lock = threading.RLock()  # nobody closes the descriptor while it is written to
        self._baton = Baton()  # a lease stands in line for one request at a time
        self._closed = -1  # an eventfd for whoever stands in line, or none
        _leases.add(self)

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def tell(self, word: str, numbers: Mapping[str, str] | None = None) -> int:
        """Writes a command: 0, or the errno of a refusal, ENOMEM or ERANGE, that has changed nothing."""
        with self._lock:
            self.open()
            try:
                self._write(word, numbers or {})
            except OSError as error:
                if error.errno not in (errno.ENOMEM, errno.ERANGE):
                    raise
                return error.errno
        return 0

    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        """Stands in line, and charges; False if that takes longer than so many seconds."""
        deadline = None if timeout is None or timeout > _LONGEST else time.monotonic() + timeout
        with self._baton.held_for(_left(deadline)) as mine:
            if not mine:
                return False
            with self._in_line() as ready:
                while not self._has_turn(amounts):
                    left = _left(deadline)
                    if not ready.poll(left) or left == 0:
                        self.tell("wait")  # and gives back what was granted just now
                        return False
        return True

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        async with self._baton:
            with self._in_line() as ready:
                while not self._has_turn(amounts):
                    await readable(ready.fileno())

    @contextlib.contextmanager
    def _in_line(self) -> Iterator[select.epoll]:
        """What is ready when the lease can be written to, or was closed here.  An error inside gives the request up.

        The lease's own descriptor would not do: who polls it is not told that another thread has closed it.
        """
        closed = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            with select.epoll() as ready:
                ready.register(closed, select.EPOLLIN)
                with self._lock:
                    self.open()
                    ready.register(self._descriptor, select.EPOLLOUT)
                    self._closed = closed
                yield ready
        except BaseException:
            self._stand_in_line_no_more()
            raise
        finally:
            with self._lock:
                self._closed = -1
            os.close(closed)

    def _has_turn(self, amounts: Mapping[str, int]) -> bool:
        try:
            self.tell("wait", {resource: f"{amount}" for resource, amount in amounts.items()})
        except BlockingIOError:
            return False
        return True

    def _stand_in_line_no_more(self) -> None:
        if self.is_open:
            with contextlib.suppress(OSError):  # what went wrong is told already
                self.tell("wait")

    def held(self) -> dict[str, int]:
        """What it holds of each resource."""
        with self._lock, _told_of(self._group.path):
            if self._descriptor < 0:
                return {}
            text = os.fsdecode(os.pread(self._descriptor, 4096, 0))
        if self._resource is not None:
            return {self._resource: int(text)}
        return {resource: int(held) for resource, _, held in (word.rpartition("=") for word in text.split())}

    def open(self) -> None:
        with self._lock:
            if self._group.closed:
                raise ValueError(f"{self._group.path} was closed here: attach to it again to charge it")
            if self._descriptor < 0:
                self._group.pin()
                with _lock, _told_of(self._group.path):
                    path = os.path.join(self._group.where(), self._file)
                    self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                    _opened.add(self)
                    if self._keep:
                        self._write("keep", {})

    def hand_down(self) -> None:
        """Has the programs that are started from now on inherit it."""
        with self._lock:
            if self._descriptor >= 0:
                os.set_inheritable(self._descriptor, True)

    def end(self) -> None:
        """Gives back what is held, or leaves it to the group, and closes it.

        The close alone would do the same, but a little after it has returned.
        """
        with self._lock:
            if self._descriptor < 0:
                return
            with contextlib.suppress(OSError):  # the group or the daemon is gone, or the last close has to do
                held = self.held()
                if self._keep:
                    self._write("give", {resource: f"{amount}" for resource, amount in held.items()})
                else:
                    self._write("", dict.fromkeys(held, "0"))
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        _opened.discard(self)
        if descriptor >= 0:
            os.close(descriptor)
        if self._closed >= 0:
            os.eventfd_write(self._closed, 1)

    def forget(self) -> None:
        """In a forked child: the lease is the parent's, and must not outlive it here."""
        self._lock = threading.RLock()
        self._baton = Baton()
        self._closed = -1  # who stands in line is a thread of the parent
        self.close()

    def _write(self, word: str, numbers: Mapping[str, str]) -> None:
        words = [number if self._resource else f"{resource}={number}" for resource, number in numbers.items()]
        with _told_of(self._group.path):
            os.pwrite(self._descriptor, os.fsencode(" ".join([word, *words])), 0)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _parse_counts(text: bytes) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.decode().splitlines())}


def _forget_all() -> None:
    """In a forked child, whose locks are made anew: the threads that held them in the parent are not here."""
    global _lock
    _lock = threading.RLock()
    for lease in list(_leases):
        lease.forget()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forget_all)
