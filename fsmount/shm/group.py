"""Groups: their names, what is in them, and how a process attaches to them."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from fsmount import engine
from fsmount.control_files.control_file import KINDS_MAX
from fsmount.engine import NAME_MAX, ROOT, EngineError, GroupHold, Hold, Request
from fsmount.interface.multi_requests import WholeRequests
from fsmount.interface.on_exit import ends_with_keep
from fsmount.protocol.suggestions import no_resource
from fsmount.shm.answers import in_public, public_error
from fsmount.shm.counter import Counter
from fsmount.shm.membership import locked
from fsmount.shm.waiting import charge_in_turn, charge_in_turn_async

if TYPE_CHECKING:
    from fsmount.shm.tree import Tree

_BAD_NAME = f"a group's name has 1 to {NAME_MAX} bytes, is neither '.' nor '..', and holds no '/', newline or NUL"

if engine.SLOTS != KINDS_MAX:
    raise ImportError(
        f"the engine has attributes for {engine.SLOTS} kinds of files, the table has room for {KINDS_MAX}"
    )

# An error names so many processes at most.
_NAMED_MOST = 16

# The attachment of a group that was charged without being attached: one for all that happens so.
_UNASKED = object()


class Attributes(NamedTuple):
    """Of a directory or a file; times are nanoseconds since the epoch, mode has the permission bits alone."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int


class Group(WholeRequests):
    """A group of a tree: a directory of it, if it is mounted.

    A group that came from attach() is an attachment: close() ends it, and so does the end of a
    `with`.  Any other attaches itself when it is first charged, until close() or the process ends.
    """

    __slots__ = ("_closed", "_counters", "_found", "_keep", "_last_path", "_token", "_used", "id", "tree")

    def __init__(self, tree: Tree, id: int, found: tuple[Group, str] | None = None) -> None:
        self.tree = tree
        #: The engine's number for it: never used again for another group.
        self.id = id
        self._found = found  # in which parent, by which name
        self._last_path: str | None = None
        self._counters: dict[str, Counter] = {}
        self._token: object = _UNASKED
        self._keep = False
        self._used = False  # whether the token may be among the attachments
        self._closed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.tree is other.tree and self.id == other.id

    def __hash__(self) -> int:
        return hash((id(self.tree), self.id))

    def __repr__(self) -> str:
        return f"<Group {self.last_path()}>"

    # ---- what it is

    @property
    @in_public
    def name(self) -> str:
        """Its name; the root's is empty."""
        return "" if self.id == ROOT else os.fsdecode(self.tree.region.name(self.id))

    @property
    @in_public
    def path(self) -> str:
        """Its path: below the mount point, or from "/" if the tree is not mounted."""
        self._last_path = self.tree.engine_path(self.id)
        return self._last_path

    def last_path(self) -> str:
        """Its path, or the last one that is known if it is gone."""
        try:
            return self.tree.engine_path(self.id)
        except EngineError:
            pass
        if self._last_path is not None:
            return self._last_path
        if self._found is None:
            return f"(group {self.id:#x})"
        parent, name = self._found
        return f"{parent.last_path().rstrip('/')}/{name}"

    @property
    @in_public
    def parent(self) -> Group | None:
        """None for the root."""
        return None if self.id == ROOT else Group(self.tree, self.tree.region.parent(self.id))

    @property
    def resources(self) -> tuple[str, ...]:
        return tuple(self.tree.resources)

    @property
    @in_public
    def exists(self) -> bool:
        """Whether it has not been removed."""
        try:
            self.tree.region.child_count(self.id)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def __getitem__(self, resource: str) -> Counter:
        """The counter of a resource.  KeyError."""
        try:
            return self._counters[resource]
        except KeyError:
            pass
        if resource not in self.tree.resources:
            raise no_resource(resource, self.tree.resources)
        return self._counters.setdefault(resource, Counter(self, resource))

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree.resources)

    # charge, uncharge and hold of several resources are WholeRequests'

    def change(self, amounts: Mapping[str, int]) -> None:
        engine.change({self[resource]: amount for resource, amount in amounts.items()})

    def hold_requested(self, amounts: dict[str, int], wait: bool, timeout: float | None) -> Hold:
        return GroupHold(self, amounts, wait, timeout)

    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        try:
            return charge_in_turn(self._request(amounts), timeout)
        except EngineError as error:
            self._failed(error, amounts)

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        try:
            await charge_in_turn_async(self._request(amounts))
        except EngineError as error:
            self._failed(error, amounts)

    def _request(self, amounts: Mapping[str, int]) -> Request:
        return Request([self[resource] for resource in amounts], list(amounts.values()))

    def _failed(self, error: EngineError, amounts: Mapping[str, int]) -> NoReturn:
        resource, amount = next(iter(amounts.items()))
        self[resource].failed(error, amount)

    # ---- children

    @in_public
    def children(self) -> list[Group]:
        """The groups in it, oldest first (in no order after a recovery)."""
        return [Group(self.tree, id, (self, os.fsdecode(name))) for name, id in self.tree.region.children(self.id)]

    @in_public
    def child_ids(self) -> bytes:
        """The ids of the groups in it, in the same order, each of 8 bytes as the machine has them."""
        return self.tree.region.child_ids(self.id)

    @property
    @in_public
    def child_count(self) -> int:
        return self.tree.region.child_count(self.id)

    def child(self, name: str | bytes) -> Group:
        """The group of this name in it.  FileNotFoundError."""
        found = self.find(name)
        if found is None:
            path = self._path_of_child(os.fsdecode(name))
            raise FileNotFoundError(errno.ENOENT, "there is no group of this name", path)
        return found

    def find(self, name: str | bytes) -> Group | None:
        """The group of this name in it, if there is one."""
        try:
            id = self.tree.region.lookup(self.id, os.fsencode(name))
        except EngineError as error:
            raise self._name_error(error, os.fsdecode(name)) from None
        return None if id is None else Group(self.tree, id, (self, os.fsdecode(name)))

    def mkdir(self, name: str | bytes, mode: int = 0o755, uid: int | None = None, gid: int | None = None) -> Group:
        """Makes a group in it, with unlimited counters, that belongs to this user unless uid or gid is given.

        A set-group-ID group passes on its own group and that bit, unless gid is given.

        FileExistsError, also for the name of a control file; EINVAL: no name for a group; ENOSPC: the region is full.
        """
        text = os.fsdecode(name)
        self._refuse_reserved(text)
        if gid is None:
            mode, gid = self.inherited(mode, os.getegid())
        try:
            id = self.tree.region.mkdir(
                self.id,
                os.fsencode(name),
                mode & 0o7777,
                os.geteuid() if uid is None else uid,
                gid,
                time.time_ns(),
            )
        except EngineError as error:
            raise self._name_error(error, text) from None
        self.tree.tell_changed(self.id)
        return Group(self.tree, id, (self, text))

    def inherited(self, mode: int, gid: int) -> tuple[int, int]:
        """The mode and the group of what a user of group gid makes here with this mode."""
        ours = self.attributes(0)
        return (mode | stat.S_ISGID, ours.gid) if ours.mode & stat.S_ISGID else (mode, gid)

    def rmdir(self, name: str | bytes) -> None:
        """Removes a group from it.  OSError(EBUSY): it has children, usage or live holders."""
        self.child(name).remove()

    def remove(self) -> None:
        """Removes this group.  OSError(EBUSY): it has children, usage or live holders, or is the root."""
        parent = self.parent
        path = self.path
        try:
            self.tree.region.rmdir(self.id, time.time_ns())
        except EngineError as error:
            if error.errno == errno.EBUSY:
                raise OSError(errno.EBUSY, f"the group cannot be removed: {self._why_busy()}", path) from None
            raise self.public_error(error) from None
        if parent is not None:
            self.tree.tell_changed(parent.id)

    def rename(self, old: str | bytes, new: str | bytes) -> None:
        """Renames a group in it; its charges are not touched.  FileNotFoundError, and as mkdir."""
        text = os.fsdecode(new)
        child = self.child(old)
        self._refuse_reserved(text)
        try:
            self.tree.region.rename(child.id, os.fsencode(new), time.time_ns())
        except EngineError as error:
            raise self._name_error(error, text) from None
        self.tree.tell_changed(self.id)

    def _refuse_reserved(self, name: str) -> None:
        if self.tree.is_reserved(self.id, name):
            raise FileExistsError(errno.EEXIST, "a control file has this name", self._path_of_child(name))

    def _path_of_child(self, name: str) -> str:
        return f"{self.last_path().rstrip('/')}/{name}"

    def _name_error(self, error: EngineError, name: str) -> OSError:
        texts = {
            errno.EINVAL: _BAD_NAME,
            errno.ENAMETOOLONG: _BAD_NAME,
            errno.EEXIST: "there is a group of this name",
            errno.ENOSPC: "the region has no room for another group",
        }
        if error.errno not in texts:
            return self.public_error(error)
        return OSError(error.errno, texts[error.errno], self._path_of_child(name))

    def _why_busy(self) -> str:
        if self.id == ROOT:
            return "it is the root"
        if self.child_count:
            return f"it has {self.child_count} groups in it"
        for counter in map(self.__getitem__, self.resources):
            holders, more = counter.page_of_holders()  # a busy group may have any number
            pids = sorted({holder.pid for holder in holders})
            if more is not None or len(pids) > _NAMED_MOST:
                some = "".join(f", process {pid} among them" for pid in pids[:1])
                return f"it has many live holders{some}; its {counter.resource}.holders lists them"
            if pids:
                return f"it has live holders, processes {', '.join(map(str, pids))}"
            if counter.usage:
                return f"{counter.usage} of {counter.resource} are charged to it"
        return "it was in use"

    # ---- attributes

    @in_public
    def attributes(self, slot: int) -> Attributes:
        """Of the directory (slot 0) or a file (1 + resource * SLOTS + kind): MODE_UNSET where no mode was given."""
        return Attributes(*self.tree.region.get_attr(self.id, slot))

    @in_public
    def set_attributes(
        self,
        slot: int,
        mask: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        atime: int = 0,
        mtime: int = 0,
        now: int | None = None,
    ) -> None:
        """Sets those that the mask names (SET_MODE, ...), and ctime to now."""
        when = time.time_ns() if now is None else now
        self.tree.region.set_attr(self.id, slot, mask, mode, uid, gid, atime, mtime, when)

    # ---- attaching

    def attach(self, *, on_exit: str = "release", control: int = -1) -> Group:
        """Makes this process a holder in the group, and returns the attachment.

        on_exit: what it still holds here at the end is given back ("release"), or is the group's own
        then ("keep").  The end is when the last attachment is closed, or that of the process.
        control: an open control file of the tree's mount, if that is how one got here; it stays the caller's.
        """
        keep = ends_with_keep(on_exit)
        attached = Group(self.tree, self.id, self._found)
        attached._keep = keep
        attached._token = object()
        attached._used = True
        try:
            self.tree.membership(keep).attach(self.id, attached._token, control)
            attached._last_path = self.tree.engine_path(self.id)
        except EngineError as error:
            raise attached.public_error(error) from None
        return attached

    @property
    def closed(self) -> bool:
        return self._closed

    @in_public
    def close(self) -> None:
        """Ends the attachment.  The group can still be asked, but no more be charged through this object."""
        with locked():
            if self._closed:
                return
            if self._used and not self.tree.region.closed:
                self.tree.membership(self._keep).detach(self.id, self._token)
            self._closed = True
            for counter in list(self._counters.values()):  # another attachment may go on here
                counter.unbind()

    detach = close

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def bind(self, counter: Counter) -> None:
        """Makes a counter of this group chargeable, attaching if need be."""
        with locked():
            self.refuse_closed()
            self._used = True
            self.tree.membership(self._keep).bind(counter, self.id, counter.index, self._token)

    def bind_if_joined(self, counter: Counter) -> bool:
        """The same if this process is a holder here already, through whichever attachment; False once it is closed."""
        with locked():
            if self._closed:
                return False
            return self.tree.membership(self._keep).bind_if_joined(counter, self.id, counter.index)

    def refuse_closed(self) -> None:
        """ValueError: it was closed; who is just closing it is waited for."""
        with locked():
            if self._closed:
                raise ValueError(f"{self.last_path()} was closed here: attach to it again to charge it")

    def lost(self) -> bool:
        """Whether somebody ended this process's holder while the group is still there."""
        return self.exists and self.tree.membership(self._keep).lost()

    def public_error(self, error: EngineError) -> OSError:
        if error.errno == errno.ENOSPC:
            return OSError(errno.ENOSPC, "the region has no room for another holder", self.last_path())
        return public_error(error, self.tree.path, self.last_path)
