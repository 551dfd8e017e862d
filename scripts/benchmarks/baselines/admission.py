"""Ways to admit charges under two limits, a leaf's and its parent's, as a Python program would do it.

Each way is a context manager: it makes a parent and a leaf for each of two processes, and yields a function that a
process calls with its number (0 or 1) to get its counter. A charge that does not fit at both levels is refused and
changes nothing. `uncharge` never exceeds the charged amount. The processes are forked before they join.
"""

import fcntl
import multiprocessing
import os
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import BoundedSemaphore
from pathlib import Path
from typing import Protocol

import redis

import fsmount

from .redis_server import install, redis_server

PROCESSES = 2
SHARED_MEMORY = "/dev/shm"

_fork = multiprocessing.get_context("fork")


class Refused(Exception):
    """The charge would exceed a limit."""


class Unavailable(Exception):
    """This machine lacks a program that the peer needs."""


class Counter(Protocol):
    """One process's way to charge its leaf and the parent."""

    def charge(self, amount: int, /) -> object: ...
    def uncharge(self, amount: int, /) -> object: ...


@dataclass(frozen=True)
class Limits:
    leaf: int
    parent: int


Join = Callable[[int], Counter]


# ---- fsmount --------------------------------------------------------------------


@contextmanager
def tree(limits: Limits) -> Iterator[Join]:
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-", dir=SHARED_MEMORY) as directory:
        path = str(Path(directory) / "region")
        with fsmount.Tree.create(path) as made, ExitStack() as joined:
            made.root["memory"].limit = limits.parent
            for process in range(PROCESSES):
                made.root.mkdir(str(process))["memory"].limit = limits.leaf

            def join(process: int) -> Counter:
                root = joined.enter_context(fsmount.Tree.open(path)).root
                (leaf,) = (leaf for leaf in root.children() if leaf.name == str(process))
                return joined.enter_context(leaf.attach())["memory"]

            yield join


# ---- multiprocessing ------------------------------------------------------------


class Values:
    """A multiprocessing.Value for each level.

    In the form of the documentation each use of value.value takes the lock again. With `once` a charge takes the lock
    once and uses the number inside.
    """

    def __init__(self, leaf: "Synchronized[int]", parent: "Synchronized[int]", limits: Limits, once: bool) -> None:
        self._limits = limits
        self._locks = leaf.get_lock(), parent.get_lock()
        self._leaf = leaf.get_obj() if once else leaf
        self._parent = parent.get_obj() if once else parent

    def charge(self, amount: int) -> None:
        leaf, parent, limits = self._leaf, self._parent, self._limits
        leaf_lock, parent_lock = self._locks
        with leaf_lock, parent_lock:
            if leaf.value + amount > limits.leaf or parent.value + amount > limits.parent:
                raise Refused
            leaf.value += amount
            parent.value += amount

    def uncharge(self, amount: int) -> None:
        leaf_lock, parent_lock = self._locks
        with leaf_lock, parent_lock:
            self._leaf.value -= amount
            self._parent.value -= amount


@contextmanager
def values(limits: Limits, once: bool = False) -> Iterator[Join]:
    parent, *leaves = (_fork.Value("q", 0) for _ in range(1 + PROCESSES))
    yield lambda process: Values(leaves[process], parent, limits, once)


@contextmanager
def values_locked_once(limits: Limits) -> Iterator[Join]:
    with values(limits, once=True) as join:
        yield join


class Semaphores:
    """A semaphore for each level. It admits one unit at a time."""

    def __init__(self, leaf: BoundedSemaphore, parent: BoundedSemaphore) -> None:
        self._leaf = leaf
        self._parent = parent

    def charge(self, amount: int) -> None:
        assert amount == 1
        if not self._leaf.acquire(False):
            raise Refused
        if not self._parent.acquire(False):
            self._leaf.release()
            raise Refused

    def uncharge(self, amount: int) -> None:
        assert amount == 1
        self._parent.release()
        self._leaf.release()


@contextmanager
def semaphores(limits: Limits) -> Iterator[Join]:
    parent = _fork.BoundedSemaphore(limits.parent)
    leaves = [_fork.BoundedSemaphore(limits.leaf) for _ in range(PROCESSES)]
    yield lambda process: Semaphores(leaves[process], parent)


# ---- a file under a record lock -------------------------------------------------


class LockedFile:
    """Numbers in a file, first the parent's, under one POSIX record lock."""

    def __init__(self, path: Path, process: int, limits: Limits) -> None:
        self._opened = path.open("r+b", buffering=0)
        self._file = self._opened.fileno()
        self._offset = 8 * (1 + process)
        self._limits = limits

    def _add(self, amount: int) -> None:
        file, offset, limits = self._file, self._offset, self._limits
        fcntl.lockf(file, fcntl.LOCK_EX)
        try:
            (parent,) = struct.unpack("q", os.pread(file, 8, 0))
            (leaf,) = struct.unpack("q", os.pread(file, 8, offset))
            if leaf + amount > limits.leaf or parent + amount > limits.parent:
                raise Refused
            os.pwrite(file, struct.pack("q", leaf + amount), offset)
            os.pwrite(file, struct.pack("q", parent + amount), 0)
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN)

    def charge(self, amount: int) -> None:
        self._add(amount)

    def uncharge(self, amount: int) -> None:
        self._add(-amount)


@contextmanager
def locked_file(limits: Limits) -> Iterator[Join]:
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-", dir=SHARED_MEMORY) as directory:
        path = Path(directory) / "counters"
        path.write_bytes(bytes(8 * (1 + PROCESSES)))
        yield lambda process: LockedFile(path, process, limits)


# ---- SQLite ---------------------------------------------------------------------


class Rows:
    """A row for each level; one statement, which is a transaction, changes both or, by the CHECK, neither."""

    TABLE = """CREATE TABLE counter (
        name TEXT PRIMARY KEY, usage INTEGER NOT NULL, bound INTEGER NOT NULL, CHECK (usage BETWEEN 0 AND bound)
    ) WITHOUT ROWID"""
    ADD = "UPDATE counter SET usage = usage + ? WHERE name IN ('parent', ?)"

    def __init__(self, path: Path, process: int, synchronous: str) -> None:
        self._database = connected(path, synchronous)
        self._leaf = str(process)

    def _add(self, amount: int) -> None:
        while True:
            try:
                self._database.execute(self.ADD, (amount, self._leaf))
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                os.sched_yield()

    def charge(self, amount: int) -> None:
        try:
            self._add(amount)
        except sqlite3.IntegrityError:
            raise Refused from None

    def uncharge(self, amount: int) -> None:
        self._add(-amount)


def connected(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection whose later statements do not wait for SQLite's lock.

    SQLite waits longer each time: of two processes that charge in a loop, one would starve.
    """
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("PRAGMA busy_timeout = 0")
    return database


@contextmanager
def rows(limits: Limits, synchronous: str = "FULL") -> Iterator[Join]:
    """With "FULL", SQLite's default, each admitted charge is on the disk."""
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        path = Path(directory) / "counters.db"
        database = connected(path, synchronous)
        database.execute(Rows.TABLE)
        leaves = [(str(process), limits.leaf) for process in range(PROCESSES)]
        database.executemany("INSERT INTO counter VALUES (?, 0, ?)", [("parent", limits.parent), *leaves])
        database.close()
        try:
            yield lambda process: Rows(path, process, synchronous)
        except sqlite3.Error as error:
            raise RuntimeError(f"SQLite: {error}") from error


@contextmanager
def rows_unsynced(limits: Limits) -> Iterator[Join]:
    with rows(limits, "OFF") as join:
        yield join


# ---- Redis ----------------------------------------------------------------------


class Keys:
    """A key for each level; the server runs the Lua script atomically."""

    CHARGE = """
        for i, key in ipairs(KEYS) do
            if tonumber(redis.call('GET', key) or 0) + ARGV[1] > tonumber(ARGV[1 + i]) then return 0 end
        end
        for _, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[1]) end
        return 1
    """
    UNCHARGE = "for _, key in ipairs(KEYS) do redis.call('DECRBY', key, ARGV[1]) end"

    def __init__(self, socket: str, process: int, limits: Limits) -> None:
        client = redis.Redis(unix_socket_path=socket)
        self._charge = client.register_script(self.CHARGE)
        self._uncharge = client.register_script(self.UNCHARGE)
        self._keys = [f"leaf:{process}", "parent"]
        self._limits = limits

    def charge(self, amount: int) -> None:
        if not self._charge(keys=self._keys, args=[amount, self._limits.leaf, self._limits.parent]):
            raise Refused

    def uncharge(self, amount: int) -> None:
        self._uncharge(keys=self._keys, args=[amount])


@contextmanager
def keys(limits: Limits) -> Iterator[Join]:
    if not install():
        raise Unavailable("redis-server is missing, and installing it takes apt-get and root")
    with redis_server() as socket:
        try:
            yield lambda process: Keys(socket, process, limits)
        except redis.RedisError as error:
            raise RuntimeError(f"Redis: {error}") from error
