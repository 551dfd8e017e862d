"""
A mounted tree in plain Python: the result of each operation of each user, or its error.

The model follows the contract. For decisions of the kernel (default_permissions) it follows fs/namei.c, fs/attr.c and
fs/open.c, in their order; the daemon decides only after the kernel. An operation is a method: it returns the result
that the caller must see, or raises Refused, and then only a failcnt may have changed. Where the kernel's answer depends
on its cache or its settings, Refused carries every correct errno.

Paths are relative to the mount point and bytes, as the kernel takes them.
"""

from __future__ import annotations

import copy
import errno
import os
import re
import select
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.filesystem.texts import TEXT_MAX, Refused, limit_number, number, stripped
from tests.mounts import GROUP_FILES, UNLIMITED, resource_files

READ, WRITE, SEARCH = 4, 2, 1
NAME_MAX, PATH_MAX = 255, 4096
CHANNEL_FILE = b".fsmount"
FILES_OF_ROOT = [b"metrics"]  # listed, and not compared: other files show the same contents
WHOLE = 1 << 20  # bytes: more than any file has, including the longest R.why
PLAIN_FILES = ("limit", "soft_limit", "max_usage", "failcnt", "usage")


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: frozenset[int]
    umask: int = 0o022

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    def owns(self, node: Node) -> bool:
        return self.is_root or self.uid == node.uid

    def may(self, node: Node, mask: int) -> bool:
        """generic_permission(): one class of the mode counts, and root passes."""
        if self.uid == node.uid:
            bits = node.mode >> 6
        elif node.gid in self.groups:
            bits = node.mode >> 3
        else:
            bits = node.mode
        if bits & mask == mask:
            return True
        return self.is_root and (isinstance(node, Directory) or not mask & SEARCH or bool(node.mode & 0o111))

    def need(self, node: Node, mask: int) -> None:
        if not self.may(node, mask):
            raise Refused(errno.EACCES)


class Expected:
    """A result that a predicate recognizes."""

    def __init__(self, matches: Callable[[object], bool], description: str) -> None:
        self.matches, self.description = matches, description

    def __repr__(self) -> str:
        return self.description


@dataclass(eq=False)
class Counter:
    """One resource of one group."""

    resource: str
    above: Counter | None
    limit: int = UNLIMITED
    soft_limit: int = UNLIMITED
    max_usage: int = 0
    failcnt: int = 0
    usage: int = 0
    common: int = 0
    leases: list[Lease] = field(default_factory=list)  # leases that are holders
    above_soft_limit: bool = False
    # events of the subtree, including removed groups
    refusals: int = 0
    soft_crossings: int = 0

    def way_up(self) -> Iterator[Counter]:
        counter: Counter | None = self
        while counter is not None:
            yield counter
            counter = counter.above

    def admit(self, amount: int, *, nofail: bool = False) -> None:
        if amount == 0:
            return
        *_, top = self.way_up()
        if nofail and top.usage + amount > UNLIMITED:
            raise Refused(errno.EOVERFLOW)
        for counter in self.way_up():
            if counter.usage + amount > counter.limit:
                counter.failcnt += 1
                for above in counter.way_up():
                    above.refusals += 1
                if not nofail:
                    raise Refused(errno.ENOMEM)

    def charge(self, amount: int) -> None:
        self.admit(amount)
        self.add(amount)

    def uncharge(self, amount: int) -> None:
        self.add(-amount)

    def add(self, amount: int) -> None:
        for counter in self.way_up():
            counter.usage += amount
            counter.max_usage = max(counter.max_usage, counter.usage)
            counter.look()

    def probe(self, amount: int) -> Expected:
        """The answer of R.probe, except for the path of the group that it names."""
        margins = [counter.limit - counter.usage for counter in self.way_up()]
        counters = list(self.way_up())
        refusing = [counter for counter in counters if counter.usage + amount > counter.limit]
        room = max(min(margins), 0)
        near = refusing[0] if amount and refusing else counters[[max(margin, 0) for margin in margins].index(room)]
        short = near.usage + amount - near.limit if amount and refusing else 0
        answer = b"amount %d\nfits %d\ngroup /.*\nusage %d\nlimit %d\nshort %d\nmargin %d\n"
        pattern = re.compile(answer % (amount, not short, near.usage, near.limit, short, room))
        return Expected(
            lambda seen: isinstance(seen, bytes) and bool(pattern.fullmatch(seen)), pattern.pattern.decode()
        )

    def why(self) -> bytes | Expected:
        """The text of R.why: empty, or lines of refusals."""
        *_, top = self.way_up()
        lines = re.compile(rb"(time=\S+Z since=\S+Z times=[1-9]\d* pid=\d+ .* refused=/.* short=[1-9].*\n)*")
        if top.refusals == 0:
            return b""
        return Expected(lambda seen: isinstance(seen, bytes) and bool(lines.fullmatch(seen)), "a line for each refusal")

    def look(self) -> None:
        if (self.usage > self.soft_limit) != self.above_soft_limit:
            self.above_soft_limit = not self.above_soft_limit
            for above in self.way_up():
                above.soft_crossings += 1

    # ---- its files

    def write_limit(self, text: bytes) -> None:
        value = limit_number(text)
        if self.usage > value:
            raise Refused(errno.EBUSY)
        self.limit = value

    def write_soft_limit(self, text: bytes) -> None:
        self.soft_limit = limit_number(text)
        self.look()

    def write_max_usage(self, text: bytes) -> None:
        self.max_usage = self.usage

    def write_failcnt(self, text: bytes) -> None:
        self.failcnt = 0

    def write_charge(self, text: bytes) -> None:
        amount = number(stripped(text))
        self.charge(amount)
        self.common += amount

    def write_uncharge(self, text: bytes) -> None:
        amount = number(stripped(text))
        if amount > self.common:
            raise Refused(errno.ERANGE)
        self.common -= amount
        self.uncharge(amount)

    def write_force_empty(self, text: bytes) -> None:
        self.uncharge(self.common)
        self.common = 0

    def stat(self) -> Expected:
        up = list(self.way_up())
        sent = {
            "usage": self.usage,
            "usage_local": self.common + sum(lease.held[self.resource] for lease in self.leases),
            "common": self.common,
            "reserved": self.usage,
            "stock": 0,
            "holders": len(self.leases),
            "limit": self.limit,
            "soft_limit": self.soft_limit,
            "hierarchical_limit": min(counter.limit for counter in up),
            "margin": max(0, self.limit - self.usage),
            "hierarchical_margin": min(max(0, counter.limit - counter.usage) for counter in up),
            "soft_limit_excess": max(0, self.usage - self.soft_limit),
            "max_usage": self.max_usage,
            "failcnt": self.failcnt,
            "error_bound": 0,
        }
        lines = {b"%s %d" % (key.encode(), value) for key, value in sent.items()}
        return Expected(lambda seen: isinstance(seen, bytes) and lines <= set(seen.splitlines()), f"the stat {sent}")

    def holders(self) -> Expected:
        common = [(self.common, b"common")] if self.common else []
        sent = sorted([*((lease.held[self.resource], b"lease") for lease in self.leases), *common])

        def matches(seen: object) -> bool:
            lines = [line.split(b" ", 4) for line in seen.splitlines()] if isinstance(seen, bytes) else []
            return sent == sorted((int(held), command.split(b":")[0]) for _, _, held, stock, command in lines)

        return Expected(matches, f"the holders {sent}")


@dataclass(eq=False)
class Lease:
    """The charges of an open lease file, of one resource or of all."""

    counters: dict[str, Counter]
    tree: Model
    is_whole: bool
    user: User
    owner: int  # the user whose share it counts against
    held: dict[str, int] = field(init=False)
    begun: bool = False
    keeps: bool = False

    def __post_init__(self) -> None:
        self.held = dict.fromkeys(self.counters, 0)

    def text(self) -> bytes:
        if self.is_whole:
            return " ".join(f"{resource}={held}" for resource, held in self.held.items()).encode() + b"\n"
        return b"%d\n" % sum(self.held.values())

    def write(self, text: bytes) -> None:
        text = stripped(text)
        if text in (b"keep", b"release"):
            self.keeps = text == b"keep"
            return
        word, amounts = self.read_multi(text) if self.is_whole else self.read_one(text)
        if word == "nofail" and not self.tree.is_exempt(self.user.uid):
            raise Refused(errno.EPERM)
        if not self.begun:
            taken = {"leases": 1, "cells": len(self.counters)}
            self.tree.need_share(self.user, self.owner, taken)
            self.tree.take(self.owner, taken)
        try:
            self.do(word, amounts)
        except Refused:
            if not self.begun:
                self.tree.take(self.owner, {what: -amount for what, amount in taken.items()})
            raise
        if not self.begun:
            self.begun = True
            for counter in self.counters.values():
                counter.leases.append(self)

    def read_one(self, text: bytes) -> tuple[str, dict[str, int]]:
        (resource,) = self.counters
        word = re.fullmatch(rb"(give|take|nofail)[ \t]\s*(.*)", text, re.DOTALL)
        if word:
            return word[1].decode(), {resource: number(word[2])}
        return "change", {resource: self.change(resource, text)}

    def read_multi(self, text: bytes) -> tuple[str, dict[str, int]]:
        word, *rest = text.split() or [b""]
        if word == b"give" and not rest:
            return "give", dict(self.held)
        if word not in (b"give", b"take", b"nofail"):
            word, rest = b"change", [word, *rest]
        if not rest or (word == b"nofail" and len(rest) > 1):
            raise Refused(errno.EINVAL)
        amounts: dict[str, int] = {}
        for assigned in rest:
            match = re.fullmatch(rb"(.*)=([^=]*)", assigned, re.DOTALL)
            resource = os.fsdecode(match[1]) if match else ""
            if not match or resource in amounts:
                raise Refused(errno.EINVAL)
            amounts[resource] = self.change(resource, match[2]) if word == b"change" else number(match[2])
        if not amounts.keys() <= self.counters.keys():
            raise Refused(errno.EINVAL)
        return word.decode(), amounts

    def change(self, resource: str, text: bytes) -> int:
        if text[:1] == b"+":
            return number(text[1:])
        return -number(text[1:]) if text[:1] == b"-" else number(text) - self.held.get(resource, 0)

    def do(self, word: str, amounts: dict[str, int]) -> None:
        for resource, amount in amounts.items():
            there = self.counters[resource].common if word == "take" else self.held[resource]
            if (word in ("take", "give") and amount > there) or (word == "change" and there + amount < 0):
                raise Refused(errno.ERANGE)
        for resource, amount in amounts.items():
            if word in ("change", "nofail"):
                self.counters[resource].admit(max(amount, 0), nofail=word == "nofail")
        for resource, amount in amounts.items():
            counter = self.counters[resource]
            if word in ("change", "nofail"):
                counter.add(amount)
                self.held[resource] += amount
            else:
                moved = amount if word == "give" else -amount
                counter.common += moved
                self.held[resource] -= moved

    def close(self) -> None:
        if self.begun:
            self.do("give" if self.keeps else "change", {r: h if self.keeps else -h for r, h in self.held.items()})
            for counter in self.counters.values():
                counter.leases.remove(self)
            self.tree.take(self.owner, {"leases": -1, "cells": -len(self.counters)})
            self.begun = False


@dataclass(eq=False)
class Node:
    mode: int
    uid: int
    gid: int


@dataclass(eq=False)
class File(Node):
    """A file of a group; the control channel has the empty string as its kind."""

    directory: Directory
    kind: str
    resource: str


@dataclass(eq=False)
class Directory(Node):
    above: Directory | None
    name: bytes
    counters: dict[str, Counter] = field(default_factory=dict)
    files: dict[bytes, File] = field(default_factory=dict)
    children: dict[bytes, Directory] = field(default_factory=dict)
    removed: bool = False

    @property
    def path(self) -> bytes:
        if self.above is None:
            return b""
        return self.above.path + b"/" + self.name if self.above.above else self.name

    def find(self, name: bytes) -> Node | None:
        if name == CHANNEL_FILE:
            return File(0o600, self.uid, self.gid, self, "", "")
        return self.files.get(name) or self.children.get(name)

    def is_above(self, other: Directory) -> bool:
        above = other.above
        while above is not None and above is not self:
            above = above.above
        return above is self


@dataclass(eq=False)
class OpenFile:
    """An open file description, with its descriptors."""

    file: File
    flags: int
    lease: Lease | None = None
    probe: Expected | None = None
    descriptors: int = 1
    position: int = 0
    snapshot: bytes | Expected | None = None
    start: int | None = 0


class Model:
    """The tree, the open files of each user, and the result of each operation."""

    def __init__(self, users: list[User], units: dict[str, str], *, groups: int, cells: int, root_mode: int) -> None:
        self.users, self.units = users, units
        self.room = {"groups": groups, "leases": cells, "cells": cells}
        self.held: dict[tuple[str, int], int] = {}  # leases and cells, by the user that they count against
        self.directories: list[Directory] = []
        self.descriptors: list[dict[int, OpenFile]] = [{} for _ in users]
        owner = users[0]
        self.root = self.make(None, b"", root_mode, owner)

    def make(self, above: Directory | None, name: bytes, mode: int, user: User) -> Directory:
        gid = user.gid
        if above is not None and above.mode & stat.S_ISGID:
            mode, gid = mode | stat.S_ISGID, above.gid
        directory = Directory(mode, user.uid, gid, above, name)
        for resource, unit in self.units.items():
            directory.counters[resource] = Counter(resource, above.counters[resource] if above else None)
            for file, file_mode in resource_files(resource, unit).items():
                kind = file.removeprefix(f"{resource}.").removesuffix("_in_bytes")
                directory.files[file.encode()] = File(file_mode, user.uid, gid, directory, kind, resource)
        for file, file_mode in GROUP_FILES.items():
            directory.files[file.encode()] = File(file_mode, user.uid, gid, directory, file, "")
        if above is not None:
            above.children[name] = directory
        self.directories.append(directory)
        return directory

    # ---- shares

    def is_exempt(self, uid: int) -> bool:
        return uid in (0, self.users[0].uid)

    def owner_of(self, directory: Directory | None, user: User) -> int:
        """The owner of the topmost group on the way whose owner is not exempt, or the user."""
        owner = user.uid
        while directory is not None:
            if not self.is_exempt(directory.uid):
                owner = directory.uid
            directory = directory.above
        return owner

    def take(self, owner: int, amounts: dict[str, int]) -> None:
        for what, amount in amounts.items():
            self.held[what, owner] = self.held.get((what, owner), 0) + amount

    def need_share(self, user: User, owner: int, amounts: dict[str, int]) -> None:
        for what, amount in amounts.items():
            if what == "groups":
                used = len(self.directories)
                mine = sum(self.owner_of(directory, self.users[0]) == owner for directory in self.directories)
            else:
                used = sum(held for (of, _), held in self.held.items() if of == what)
                mine = self.held.get((what, owner), 0)
            room = self.room[what]
            left = room - used - amount
            if left < 0 or not (self.is_exempt(user.uid) or mine + amount <= left - room // 16):
                raise Refused(errno.ENOSPC)

    # ---- paths

    def walk(self, user: User, path: bytes) -> Node:
        directory, last = self.walk_to_parent(user, path)
        return directory if last in (b"", b".") else self.step(directory, last)

    def walk_to_parent(self, user: User, path: bytes) -> tuple[Directory, bytes]:
        """The directory of the last component, and that component."""
        if len(path) >= PATH_MAX:
            raise Refused(errno.ENAMETOOLONG)
        here: Directory = self.root
        *components, last = path.split(b"/")
        for component in components:
            user.need(here, SEARCH)
            node = self.step(here, component)
            if not isinstance(node, Directory):
                raise Refused(errno.ENOTDIR)
            here = node
        if last:
            user.need(here, SEARCH)
        if last == b"..":
            raise AssertionError("the way up is taken in the middle of a path only")
        return here, last

    @staticmethod
    def step(directory: Directory, name: bytes) -> Node:
        if name == b".":
            return directory
        if name == b"..":
            assert directory.above is not None
            return directory.above
        if len(name) > NAME_MAX:
            raise Refused(errno.ENAMETOOLONG)
        node = directory.find(name)
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def look(self, directory: Directory, name: bytes) -> Node | None:
        try:
            return self.step(directory, name)
        except Refused as refused:
            if refused.numbers != (errno.ENOENT,):
                raise
            return None

    def may_create(self, user: User, path: bytes) -> tuple[Directory, bytes]:
        """filename_create() and may_create()."""
        directory, name = self.walk_to_parent(user, path)
        if name in (b"", b".") or self.look(directory, name) is not None:
            raise Refused(errno.EEXIST)
        user.need(directory, WRITE | SEARCH)
        return directory, name

    @staticmethod
    def may_delete(user: User, directory: Directory, victim: Node, *, is_directory: bool) -> None:
        user.need(directory, WRITE | SEARCH)
        if directory.mode & stat.S_ISVTX and not (user.owns(victim) or user.owns(directory)):
            raise Refused(errno.EPERM)
        if is_directory and not isinstance(victim, Directory):
            raise Refused(errno.ENOTDIR)
        if not is_directory and isinstance(victim, Directory):
            raise Refused(errno.EISDIR)

    def check_name(self, name: bytes) -> None:
        if b"\n" in name:
            raise Refused(errno.EINVAL)

    # ---- directories

    def mkdir(self, actor: int, path: bytes, mode: int) -> None:
        user = self.users[actor]
        directory, name = self.may_create(user, path)
        self.check_name(name)
        self.need_share(user, self.owner_of(directory, user), {"groups": 1})
        self.make(directory, name, mode & ~user.umask & 0o1777, user)

    def rmdir(self, actor: int, path: bytes) -> None:
        user = self.users[actor]
        directory, name = self.walk_to_parent(user, path)
        if name == b".":
            raise Refused(errno.EINVAL)
        victim = self.step(directory, name)
        self.may_delete(user, directory, victim, is_directory=True)
        assert isinstance(victim, Directory)
        busy = any(counter.usage or counter.leases for counter in victim.counters.values())
        if victim.children or busy:
            raise Refused(errno.EBUSY)
        del directory.children[name]
        victim.removed = True
        self.directories.remove(victim)

    def rename(self, actor: int, old: bytes, new: bytes) -> None:
        user = self.users[actor]
        old_directory, old_name = self.walk_to_parent(user, old)
        new_directory, new_name = self.walk_to_parent(user, new)
        if old_name in (b"", b".") or new_name in (b"", b"."):
            raise Refused(errno.EBUSY)
        source = self.step(old_directory, old_name)
        target = self.look(new_directory, new_name)
        if isinstance(source, Directory) and (source is new_directory or source.is_above(new_directory)):
            raise Refused(errno.EINVAL)
        if isinstance(target, Directory) and (target is old_directory or target.is_above(old_directory)):
            raise Refused(errno.ENOTEMPTY)
        if old_directory is new_directory and old_name == new_name:
            return
        is_directory = isinstance(source, Directory)
        if CHANNEL_FILE in (old_name, new_name) and not user.is_root:
            # the kernel remembers the owner from its last look, so a sticky directory may refuse or not
            self.may_rename_file(user, old_directory, source, new_directory, target)
        self.may_delete(user, old_directory, source, is_directory=is_directory)
        if target is None:
            user.need(new_directory, WRITE | SEARCH)
        else:
            self.may_delete(user, new_directory, target, is_directory=is_directory)
        if is_directory and old_directory is not new_directory:
            user.need(source, WRITE)
        if not is_directory:
            raise Refused(errno.ENOTDIR)
        if old_directory is not new_directory:
            raise Refused(errno.EPERM)
        if target is not None:
            raise Refused(errno.EEXIST)
        self.check_name(new_name)
        assert isinstance(source, Directory)
        del old_directory.children[old_name]
        source.name = new_name
        old_directory.children[new_name] = source

    def may_rename_file(self, user: User, old: Directory, source: Node, new: Directory, target: Node | None) -> None:
        if not (user.may(old, WRITE | SEARCH) and user.may(new, WRITE | SEARCH)):
            raise Refused(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
        raise Refused(errno.EPERM, errno.ENOTDIR, errno.EISDIR)

    def listdir(self, actor: int, path: bytes) -> Expected:
        user = self.users[actor]
        node = self.walk(user, path)
        if not isinstance(node, Directory):
            raise Refused(errno.ENOTDIR)
        user.need(node, READ)
        names = sorted([*node.files, *node.children, *(FILES_OF_ROOT if node.above is None else ())])
        return Expected(lambda seen: isinstance(seen, list) and sorted(seen) == names, f"the names {names}")

    # ---- operations that the tree does not have

    def unlink(self, actor: int, path: bytes) -> None:
        user = self.users[actor]
        directory, name = self.walk_to_parent(user, path)
        if name == b".":
            raise Refused(errno.EISDIR)
        self.may_delete(user, directory, self.step(directory, name), is_directory=False)
        raise Refused(errno.EPERM)

    def symlink(self, actor: int, path: bytes) -> None:
        self.may_create(self.users[actor], path)
        raise Refused(errno.EPERM)

    def mknod(self, actor: int, path: bytes, kind: int) -> None:
        self.may_create(self.users[actor], path)
        raise Refused(errno.EPERM)

    def link(self, actor: int, old: bytes, new: bytes) -> None:
        user = self.users[actor]
        source = self.walk(user, old)
        try:
            self.may_create(user, new)
        except Refused as refused:
            if refused.numbers == (errno.EACCES,) and not user.owns(source):
                raise Refused(errno.EACCES, errno.EPERM) from None  # fs.protected_hardlinks comes first, or is off
            raise
        raise Refused(errno.EPERM)

    def getxattr(self, actor: int, path: bytes) -> None:
        user = self.users[actor]
        user.need(self.walk(user, path), READ)
        raise Refused(errno.EOPNOTSUPP)

    def setxattr(self, actor: int, path: bytes) -> None:
        user = self.users[actor]
        node = self.walk(user, path)
        if isinstance(node, Directory) and node.mode & stat.S_ISVTX and not user.owns(node):
            raise Refused(errno.EPERM)
        user.need(node, WRITE)
        raise Refused(errno.EOPNOTSUPP)

    def listxattr(self, actor: int, path: bytes) -> None:
        self.walk(self.users[actor], path)
        raise Refused(errno.EOPNOTSUPP)

    # ---- attributes

    def stat(self, actor: int, path: bytes) -> tuple[int, int, int, int, int]:
        return self.status(self.walk(self.users[actor], path))

    @staticmethod
    def status(node: Node) -> tuple[int, int, int, int, int]:
        if isinstance(node, Directory):
            return stat.S_IFDIR | node.mode, 2 + len(node.children), node.uid, node.gid, 0
        return stat.S_IFREG | node.mode, 1, node.uid, node.gid, size_of(node)

    def access(self, actor: int, path: bytes, mask: int) -> bool:
        user = self.users[actor]
        try:
            return user.may(self.walk(user, path), mask)
        except Refused:
            return False

    def chmod(self, actor: int, path: bytes, mode: int) -> None:
        user = self.users[actor]
        self.set_mode(user, self.walk(user, path), mode)

    @staticmethod
    def set_mode(user: User, node: Node, mode: int) -> None:
        if not user.owns(node) or is_control(node):
            raise Refused(errno.EPERM)
        if not user.is_root and node.gid not in user.groups:
            mode &= ~stat.S_ISGID
        node.mode = mode

    def chown(self, actor: int, path: bytes, uid: int, gid: int) -> None:
        user = self.users[actor]
        self.set_owner(user, self.walk(user, path), uid, gid)

    @staticmethod
    def set_owner(user: User, node: Node, uid: int, gid: int) -> None:
        if not user.is_root:
            if uid != -1 and not user.uid == node.uid == uid:
                raise Refused(errno.EPERM)
            if gid != -1 and not (user.uid == node.uid and (gid in user.groups or gid == node.gid)):
                raise Refused(errno.EPERM)
        if is_control(node):
            raise Refused(errno.EPERM)
        node.uid = node.uid if uid == -1 else uid
        node.gid = node.gid if gid == -1 else gid

    def utime(self, actor: int, path: bytes, times: tuple[int, int] | None) -> tuple[int, int] | None:
        """Sets the times, which stat() then shows, or the current time."""
        user = self.users[actor]
        node = self.walk(user, path)
        if times is None and not user.owns(node):
            user.need(node, WRITE)
        elif not user.owns(node):
            raise Refused(errno.EPERM)
        return times

    def truncate(self, actor: int, path: bytes, size: int) -> None:
        user = self.users[actor]
        node = self.walk(user, path)
        if isinstance(node, Directory):
            raise Refused(errno.EISDIR)
        user.need(node, WRITE)

    def statfs(self, actor: int, path: bytes) -> int:
        self.walk(self.users[actor], path)
        return NAME_MAX

    # ---- open files

    def opened(self, user: User, path: bytes, flags: int) -> OpenFile:
        directory, name = self.walk_to_parent(user, path)
        create, exclusive = flags & os.O_CREAT, flags & os.O_EXCL
        node = directory if name in (b"", b".") else self.look(directory, name)
        if node is None:
            if create:
                user.need(directory, WRITE | SEARCH)
                raise Refused(errno.EPERM)
            raise Refused(errno.ENOENT)
        if create and exclusive:
            raise Refused(errno.EEXIST)
        mask = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}[flags & os.O_ACCMODE]
        mask |= WRITE if flags & os.O_TRUNC else 0
        if isinstance(node, Directory):
            if not mask & WRITE and not create:
                user.need(node, READ)
            raise Refused(errno.EISDIR)  # at the latest at the read
        if flags & os.O_DIRECTORY:
            raise Refused(errno.ENOTDIR)
        sticky = create and directory.mode & stat.S_ISVTX and node.uid not in (user.uid, directory.uid)
        guarded = sticky and directory.mode & 0o022  # fs.protected_regular alone refuses it
        if not user.may(node, mask):
            raise Refused(errno.EACCES)
        if guarded and protected_regular() >= (1 if directory.mode & 0o002 else 2):
            raise Refused(errno.EACCES)
        assert isinstance(node, File)
        lease = None
        if node.kind == "lease":
            counters = node.directory.counters
            lease = Lease(
                {node.resource: counters[node.resource]} if node.resource else counters,
                self,
                not node.resource,
                user,
                self.owner_of(directory, user),
            )
        return OpenFile(node, flags, lease)

    def open(self, actor: int, slot: int, path: bytes, flags: int) -> None:
        self.descriptors[actor][slot] = self.opened(self.users[actor], path, flags)

    def dup(self, actor: int, slot: int, into: int) -> None:
        opened = self.descriptors[actor][slot]
        opened.descriptors += 1
        self.descriptors[actor][into] = opened

    def close(self, actor: int, slot: int) -> None:
        self.let_go(self.descriptors[actor].pop(slot))

    @staticmethod
    def let_go(opened: OpenFile) -> None:
        opened.descriptors -= 1
        if opened.descriptors == 0 and opened.lease is not None:
            opened.lease.close()

    def pread(self, actor: int, slot: int, size: int, offset: int) -> bytes | Expected:
        return self.read_at(self.descriptors[actor][slot], size, offset)

    def read(self, actor: int, slot: int, size: int) -> bytes | Expected:
        opened = self.descriptors[actor][slot]
        data = self.read_at(opened, size, opened.position)
        assert isinstance(data, bytes)
        opened.position += len(data)
        return data

    def read_at(self, opened: OpenFile, size: int, offset: int) -> bytes | Expected:
        if opened.flags & os.O_ACCMODE == os.O_WRONLY:
            raise Refused(errno.EBADF)
        if opened.file.directory.removed:
            raise Refused(errno.ENODEV)
        if opened.start is None or offset < opened.start:
            opened.start = offset
        offset -= opened.start
        if offset == 0 or opened.snapshot is None:
            opened.snapshot = self.text(opened)
        if isinstance(opened.snapshot, Expected):
            return opened.snapshot
        return opened.snapshot[offset : offset + size]

    @staticmethod
    def text(opened: OpenFile) -> bytes | Expected:
        file = opened.file
        if is_control(file):
            return Expected(lambda seen: isinstance(seen, bytes) and b'"region": ' in seen, "where the region is")
        if opened.lease is not None:
            return opened.lease.text()
        counter = file.directory.counters[file.resource]
        if file.kind == "stat":
            return counter.stat()
        if file.kind == "holders":
            return counter.holders()
        if file.kind == "threshold":
            return b""
        if file.kind == "why":
            return counter.why()
        if file.kind == "probe":
            return opened.probe or b""
        if file.kind == "events":
            return b"limit %d\nsoft_limit %d\nthreshold 0\n" % (counter.refusals, counter.soft_crossings)
        if file.kind not in PLAIN_FILES:
            raise Refused(errno.EINVAL)
        return b"%d\n" % getattr(counter, file.kind)

    def pwrite(self, actor: int, slot: int, data: bytes, offset: int) -> int:
        return self.write_to(self.users[actor], self.descriptors[actor][slot], data)

    @staticmethod
    def write_to(user: User, opened: OpenFile, data: bytes) -> int:
        if opened.flags & os.O_ACCMODE == os.O_RDONLY:
            raise Refused(errno.EBADF)
        if not data:
            return 0
        if len(data) > TEXT_MAX:
            raise Refused(errno.E2BIG)
        file = opened.file
        if file.directory.removed:
            raise Refused(errno.ENODEV)
        if is_control(file):
            foreign = stripped(data).split() in ([b"umount"], [b"umount", b"keep"])
            raise Refused(errno.EPERM if foreign else errno.EINVAL)
        if opened.lease is not None:
            opened.lease.write(data)
        elif file.kind == "probe":
            opened.probe = file.directory.counters[file.resource].probe(number(stripped(data)))
        elif file.kind == "threshold":
            if stripped(data):  # the generator writes only empty lists here
                raise Refused(errno.EINVAL)
        else:
            command = getattr(file.directory.counters[file.resource], f"write_{file.kind}", None)
            if command is None:
                raise Refused(errno.EINVAL)
            command(data)
        if file.kind in ("lease", "probe", "threshold"):  # each open file has its own text
            opened.start = None
        return len(data)

    def poll(self, actor: int, slot: int) -> int:
        opened = self.descriptors[actor][slot]
        ready = {os.O_RDONLY: select.POLLIN, os.O_WRONLY: select.POLLOUT, os.O_RDWR: select.POLLIN | select.POLLOUT}
        gone = select.POLLERR if opened.file.directory.removed else 0
        return ready[opened.flags & os.O_ACCMODE] | gone

    def fchmod(self, actor: int, slot: int, mode: int) -> None:
        file = self.descriptors[actor][slot].file
        self.set_mode(self.users[actor], copy.copy(file) if file.directory.removed else file, mode)
        self.must_be_there(file)

    def fchown(self, actor: int, slot: int, uid: int, gid: int) -> None:
        file = self.descriptors[actor][slot].file
        self.set_owner(self.users[actor], copy.copy(file) if file.directory.removed else file, uid, gid)
        self.must_be_there(file)

    @staticmethod
    def must_be_there(file: File) -> None:
        if file.directory.removed:
            raise Refused(errno.ENODEV)

    def fstat(self, actor: int, slot: int) -> tuple[int, int, int, int, int]:
        return self.status(self.descriptors[actor][slot].file)

    def ftruncate(self, actor: int, slot: int, size: int) -> None:
        opened = self.descriptors[actor][slot]
        if opened.flags & os.O_ACCMODE == os.O_RDONLY:
            raise Refused(errno.EINVAL)
        self.must_be_there(opened.file)

    # ---- commands of a shell

    def cat(self, actor: int, path: bytes) -> bytes | Expected:
        opened = self.opened(self.users[actor], path, os.O_RDONLY)
        return self.read_at(opened, WHOLE, 0)

    def echo(self, actor: int, path: bytes, data: bytes, flags: int) -> int:
        opened = self.opened(self.users[actor], path, os.O_WRONLY | flags)
        try:
            return self.write_to(self.users[actor], opened, data)
        finally:
            self.let_go(opened)


def size_of(node: Node) -> int:
    """The size that stat() shows: above the length of the text, in whole pages; 0 for a file without a text."""
    assert isinstance(node, File)
    if node.kind in ("charge", "uncharge", "force_empty"):
        return 0
    return 65536 if node.kind in ("", "holders", "threshold", "probe") else 524288 if node.kind == "why" else 4096


def is_control(node: Node) -> bool:
    return isinstance(node, File) and node.kind == ""


def protected_regular() -> int:
    with open("/proc/sys/fs/protected_regular") as setting:
        return int(setting.read())
