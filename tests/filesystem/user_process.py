"""A process of another user that does lists of operations for a test."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
from typing import IO, Any

from tests.filesystem.model import WHOLE, User

Operation = tuple[Any, ...]  # its name, and the arguments


class Failed:
    """The OSError of an operation."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return errno.errorcode.get(self.number, str(self.number))


class UserProcess:
    """The test's side. The process ends with close(), or with the test's process."""

    _streams: list[int] = []  # noqa: RUF012  children close these, or they would not see each other's end

    def __init__(self, user: User, mountpoint: str) -> None:
        orders, to_child = os.pipe()
        from_child, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                for descriptor in (*self._streams, to_child, from_child):
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
                if os.geteuid() == 0:
                    os.setgroups(sorted(user.groups))
                    os.setresgid(user.gid, user.gid, user.gid)
                    os.setresuid(user.uid, user.uid, user.uid)
                os.umask(user.umask)
                with os.fdopen(orders, "rb") as incoming, os.fdopen(answers, "wb") as outgoing:
                    obey(os.fsencode(mountpoint), incoming, outgoing)
                status = 0
            finally:
                os._exit(status)
        os.close(orders)
        os.close(answers)
        self._streams += [to_child, from_child]
        self._orders, self._answers = os.fdopen(to_child, "wb"), os.fdopen(from_child, "rb")

    def send(self, operations: list[Operation]) -> None:
        """Sends operations; answers() waits for their results."""
        pickle.dump(operations, self._orders)
        self._orders.flush()

    def answers(self) -> list[Any]:
        answers: list[Any] = pickle.load(self._answers)
        return answers

    def close(self) -> None:
        for stream in (self._orders, self._answers):
            self._streams.remove(stream.fileno())
            stream.close()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"the user's process ended badly: {os.waitstatus_to_exitcode(status)}"


def obey(top: bytes, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    hands = Hands(top)
    while True:
        try:
            operations = pickle.load(incoming)
        except EOFError:
            return
        pickle.dump([hands.do(operation) for operation in operations], outgoing)
        outgoing.flush()


class Hands:
    """The operations, named as in the model. `slot` is the test's number of a descriptor."""

    def __init__(self, top: bytes) -> None:
        self.top = top
        self.slots: dict[int, int] = {}

    def do(self, operation: Operation) -> Any:
        name, *arguments = operation
        try:
            return getattr(self, name)(*arguments)
        except OSError as error:
            return Failed(error.errno or 0)

    def path(self, path: bytes) -> bytes:
        return self.top + b"/" + path if path else self.top

    def fd(self, slot: int) -> int:
        """The descriptor of a slot; an invalid one if the open was refused, contrary to the model."""
        return self.slots.get(slot, 1 << 20)

    def put(self, slot: int, descriptor: int) -> None:
        if slot in self.slots:
            os.close(self.slots[slot])
        self.slots[slot] = descriptor

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self.path(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.path(path))

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(self.path(old), self.path(new))

    def listdir(self, path: bytes) -> list[bytes]:
        return os.listdir(self.path(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self.path(path))

    def symlink(self, path: bytes) -> None:
        os.symlink(b"target", self.path(path))

    def mknod(self, path: bytes, kind: int) -> None:
        os.mknod(self.path(path), kind | 0o644, os.makedev(1, 3))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self.path(old), self.path(new))

    def getxattr(self, path: bytes) -> None:
        os.getxattr(self.path(path), "user.fsmount")

    def setxattr(self, path: bytes) -> None:
        os.setxattr(self.path(path), "user.fsmount", b"1")

    def listxattr(self, path: bytes) -> None:
        os.listxattr(self.path(path))

    def stat(self, path: bytes) -> tuple[int, int, int, int, int]:
        return self.status(os.stat(self.path(path)))

    @staticmethod
    def status(seen: os.stat_result) -> tuple[int, int, int, int, int]:
        return seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_size

    def access(self, path: bytes, mask: int) -> bool:
        return os.access(self.path(path), mask)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self.path(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.chown(self.path(path), uid, gid)

    def utime(self, path: bytes, times: tuple[int, int] | None) -> tuple[int, int] | None:
        if times is None:
            os.utime(self.path(path))
            return None
        os.utime(self.path(path), ns=times)
        seen = os.stat(self.path(path))
        return seen.st_atime_ns, seen.st_mtime_ns

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self.path(path), size)

    def statfs(self, path: bytes) -> int:
        return os.statvfs(self.path(path)).f_namemax

    def open(self, slot: int, path: bytes, flags: int) -> None:
        self.put(slot, os.open(self.path(path), flags, 0o644))

    def dup(self, slot: int, into: int) -> None:
        self.put(into, os.dup(self.fd(slot)))

    def close(self, slot: int) -> None:
        os.close(self.slots.pop(slot, 1 << 20))

    def pread(self, slot: int, size: int, offset: int) -> bytes:
        return os.pread(self.fd(slot), size, offset)

    def read(self, slot: int, size: int) -> bytes:
        return os.read(self.fd(slot), size)

    def pwrite(self, slot: int, data: bytes, offset: int) -> int:
        return os.pwrite(self.fd(slot), data, offset)

    def poll(self, slot: int) -> int:
        poll = select.poll()
        poll.register(self.fd(slot), select.POLLIN | select.POLLOUT)
        return sum(events for _, events in poll.poll(0))

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fd(slot), mode)

    def fchown(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self.fd(slot), uid, gid)

    def fstat(self, slot: int) -> tuple[int, int, int, int, int]:
        return self.status(os.fstat(self.fd(slot)))

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.fd(slot), size)

    def cat(self, path: bytes) -> bytes:
        descriptor = os.open(self.path(path), os.O_RDONLY)
        try:
            return os.read(descriptor, WHOLE)
        finally:
            os.close(descriptor)

    def echo(self, path: bytes, data: bytes, flags: int) -> int:
        descriptor = os.open(self.path(path), os.O_WRONLY | flags)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)
