"""Operations of the attacker on all files of root's mount, while root uses it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import select
import signal
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.attack import commands
from tests.attack.oracle import Oracle
from tests.attack.races import Length, Report
from tests.attack.scene import ATTACKER, Scene, end, process_of, wait_until
from tests.attack.traps import HOSTILE_NAMES, exchange

_PROCESSES = 3
_DESCRIPTORS = 64
_GROUPS = 40
_STEP = 500  # operations between two reports of a process

_NUMBERS = "0 1 5 -1 +1 -0 +0 4096 64K 1G 8191P 9223372036854775807 9223372036854775808 1e9 0x10 max ٣ 12abc".split()
_COMMANDS = (
    "wait {} | wait | nofail {} | give | take {} | keep | label x\ny | memory={} | wait memory={} | {} {} | \0 "
    "| {}\n\n | holder {} | changed {} | umount | umount keep | umount {} | - | + | {} for 10m | \x1b[2J"
).split(" | ")
_FLAGS = [
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_TRUNC,
    os.O_RDONLY | os.O_TRUNC,
    os.O_RDWR | os.O_APPEND,
    os.O_RDWR | os.O_DIRECT,
    os.O_RDWR | os.O_NONBLOCK,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDONLY | os.O_DIRECTORY,
    os.O_PATH,
    os.O_TMPFILE | os.O_RDWR,
]
_libc = ctypes.CDLL(None, use_errno=True)


class Operator:
    """One process of the attacker."""

    def __init__(self, scene: Scene, source: random.Random) -> None:
        self._top = scene.mount
        self._group = scene.group_of_the_attacker()
        self._random = source
        self._open: list[int] = []
        self._groups: list[Path] = [self._group]
        self._names: list[str] = []
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        operation = self._random.choice(_OPERATIONS)
        with contextlib.suppress(OSError, ValueError, OverflowError):
            operation(self)

    # ---- paths

    def _directory(self) -> Path:
        return self._random.choice([*self._groups, self._group, self._top, self._top / "root's"])

    def _path(self) -> Path:
        if not self._names or self._random.random() < 0.01:
            self._names = [*os.listdir(self._group), ".fsmount", ".memory.groups", "", "..", "none"]
        return self._directory() / self._random.choice(self._names)

    def _descriptor(self) -> int:
        return self._random.choice(self._open) if self._open else -1

    def _name(self) -> str:
        name = self._random.choice([*HOSTILE_NAMES, b"a", b"b", b"c", b"memory.charge", b"n" * 256, b"lease"])
        return os.fsdecode(name[:-1] + b"%d" % self._random.randrange(20) if self._random.random() < 0.5 else name)

    def _text(self) -> bytes:
        kind = self._random.randrange(4)
        number = self._random.choice(_NUMBERS)
        if kind == 0:
            return self._random.randbytes(self._random.choice([0, 1, 20, 5000]))
        if kind == 1:
            return self._random.choice(_COMMANDS).replace("{}", number).encode()
        return number.encode() if kind == 2 else str(self._random.randrange(10_000)).encode()

    # ---- operations

    def open(self) -> None:
        if len(self._open) >= _DESCRIPTORS:
            self.close()
        self._open.append(os.open(self._path(), self._random.choice(_FLAGS) | os.O_CLOEXEC, 0o666))

    def open_lease(self) -> None:
        if len(self._open) >= _DESCRIPTORS:
            self.close()
        name = self._random.choice(["memory.lease", "lease", "memory.probe", "memory.threshold"])
        self._open.append(os.open(self._random.choice(self._groups) / name, os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        if self._open:
            os.close(self._open.pop(self._random.randrange(len(self._open))))

    def read(self) -> None:
        os.pread(self._descriptor(), self._random.choice([0, 1, 100, 65536]), self._random.choice([0, 0, 1, 1 << 40]))

    def write(self) -> None:
        os.pwrite(self._descriptor(), self._text(), self._random.choice([0, 0, 7, 1 << 40]))

    def read_whole(self) -> None:
        with open(self._path(), "rb", buffering=0) as file:
            file.read(1 << 20)

    def write_whole(self) -> None:
        descriptor = os.open(self._path(), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, self._text())
        finally:
            os.close(descriptor)

    def poll(self) -> None:
        poll = select.poll()
        for descriptor in self._random.sample(self._open, min(len(self._open), 3)):
            poll.register(descriptor, select.POLLIN | select.POLLOUT | select.POLLPRI)
        poll.poll(0)

    def stat(self) -> None:
        os.stat(self._path())

    def truncate(self) -> None:
        os.truncate(self._path(), self._random.choice([0, 1, 1 << 62]))

    def mkdir(self) -> None:
        path = self._random.choice(self._groups) / self._name()
        if len(self._groups) < _GROUPS:
            os.mkdir(path, self._random.choice([0o777, 0o700, 0o2777, 0]))
            self._groups.append(path)

    def rmdir(self) -> None:
        path = self._path() if self._random.random() < 0.2 else self._random.choice(self._groups)
        if path != self._group:
            os.rmdir(path)
            self._groups.remove(path)

    def rename(self) -> None:
        old = self._random.choice([self._random.choice(self._groups), self._path()])
        new = self._directory() / self._name()
        os.rename(old, new)
        if old in self._groups:
            self._groups[self._groups.index(old)] = new

    def exchange(self) -> None:
        exchange(self._random.choice(self._groups), self._random.choice(self._groups))

    def chmod(self) -> None:
        os.chmod(self._path(), self._random.choice([0, 0o777, 0o4777, 0o644, 0o2755]))

    def chown(self) -> None:
        os.chown(self._path(), self._random.choice([-1, 0, ATTACKER, 60_102]), self._random.choice([-1, 0, ATTACKER]))

    def utime(self) -> None:
        os.utime(self._path(), self._random.choice([None, (0, 0), (-1, 1 << 40)]))

    def unlink(self) -> None:
        os.unlink(self._path())

    def link(self) -> None:
        os.link(self._path(), self._directory() / self._name())

    def symlink(self) -> None:
        os.symlink(self._path(), self._directory() / self._name())

    def mknod(self) -> None:
        os.mkfifo(self._directory() / self._name())

    def set_attribute(self) -> None:
        os.setxattr(self._path(), "user.x", self._text())

    def get_attribute(self) -> None:
        os.getxattr(self._path(), self._random.choice(["user.x", "security.capability", "system.posix_acl_access"]))

    def remove_attribute(self) -> None:
        os.removexattr(self._path(), "user.x")

    def list(self) -> None:
        os.listdir(self._directory())

    def map(self) -> None:
        protection = self._random.choice([mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE])
        kind = self._random.choice([mmap.MAP_SHARED, mmap.MAP_PRIVATE])
        mmap.mmap(self._descriptor(), 4096, flags=kind, prot=protection).close()

    def sendfile(self) -> None:
        with open(os.devnull, "wb", buffering=0) as null:
            os.sendfile(null.fileno(), self._descriptor(), 0, 65536)

    def splice(self) -> None:
        reader, writer = os.pipe()
        try:
            if self._random.random() < 0.5:
                os.splice(self._descriptor(), writer, 4096, offset_src=0)
            else:
                os.write(writer, self._text()[:4000] or b"1")
                os.splice(reader, self._descriptor(), 4096, offset_dst=0)
        finally:
            os.close(reader)
            os.close(writer)

    def ioctl(self) -> None:
        fcntl.ioctl(self._descriptor(), self._random.choice([0x5401, 0x541B, 0x80086601, 0xC0185879, 0]), bytes(64))

    def flock(self) -> None:
        fcntl.flock(
            self._descriptor(), self._random.choice([fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN]) | fcntl.LOCK_NB
        )

    def lock(self) -> None:
        fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._random.randrange(10))

    def lease_of_the_kernel(self) -> None:
        fcntl.fcntl(self._descriptor(), fcntl.F_SETLEASE, self._random.choice([fcntl.F_RDLCK, fcntl.F_UNLCK]))

    def notify(self) -> None:
        fcntl.fcntl(self._descriptor(), fcntl.F_SETSIG, signal.SIGURG)

    def seek(self) -> None:
        os.lseek(self._descriptor(), self._random.choice([0, 1, -1, 1 << 62]), self._random.choice([0, 1, 2, 3, 4]))

    def allocate(self) -> None:
        os.posix_fallocate(self._descriptor(), 0, 100)

    def copy(self) -> None:
        os.copy_file_range(self._descriptor(), self._descriptor(), 100)

    def sync(self) -> None:
        os.fsync(self._descriptor())

    def statfs(self) -> None:
        os.statvfs(self._path())

    def control(self) -> None:
        descriptor = os.open(self._directory() / ".fsmount", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, self._text())
            os.read(descriptor, 100)
        finally:
            os.close(descriptor)

    def die_in_a_child(self) -> None:
        """Kills a process that has leases and waiting requests."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                lease = os.open(self._random.choice(self._groups) / "memory.lease", os.O_RDWR)
                os.write(lease, b"7")
                os.write(lease, b"wait 900G")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)


_OFTEN = [
    Operator.open,
    Operator.open_lease,
    Operator.read,
    Operator.write,
    Operator.write_whole,
    Operator.read_whole,
] * 4
_RARE = [
    getattr(Operator, name)
    for name in vars(Operator)
    if not name.startswith("_") and name not in ("act", "die_in_a_child")
]
_OPERATIONS: list[Callable[[Operator], None]] = [*_OFTEN, *_RARE * 2, Operator.die_in_a_child]


def operate(scene: Scene, seed: int, length: Length) -> Report:
    """Does operations, while root reads, charges, snapshots and checks."""
    oracle = Oracle(scene)
    report = Report()
    news, pen = os.pipe()
    operators = [process_of(ATTACKER, partial(_operate, scene, seed + number, pen)) for number in range(_PROCESSES)]
    total = 0
    looked = 0
    try:
        while total < length.count and not length.reached(report):
            (done,) = struct.unpack("<i", os.read(news, 4))
            total += done
            if total >= looked:
                looked += max(length.count // 50, 5000)
                report.findings += oracle.differences() + _root_uses(scene, report)
    finally:
        for operator in operators:
            end(operator)
        os.close(news)
        os.close(pen)
    report.done["operations"] = total
    report.findings += oracle.differences() + _end(scene, report)
    return report


def _operate(scene: Scene, seed: int, pen: int) -> None:
    operator = Operator(scene, random.Random(seed))
    os.umask(0)
    while True:
        for _ in range(_STEP):
            operator.act()
        os.write(pen, struct.pack("<i", _STEP))


def _root_uses(scene: Scene, report: Report) -> list[str]:
    """Root works in its own group, and no act of the attacker may disturb it."""
    group = scene.mount / "root's"
    found = []
    for name, text in (("memory.charge", b"5"), ("memory.uncharge", b"5"), ("memory.limit_in_bytes", b"1G")):
        try:
            (group / name).write_bytes(text)
        except OSError as error:
            found.append(f"root cannot write {name}: {error}")
    for name in ("memory.usage_in_bytes", "memory.stat", "memory.holders", "../metrics"):
        try:
            if not (group / name).read_bytes() and name != "memory.holders":
                found.append(f"root reads nothing from {name}")
        except OSError as error:
            found.append(f"root cannot read {name}: {error}")
    if (group / "memory.usage_in_bytes").read_text() != "0\n":
        found.append("root's group has a usage that is not root's")
    for arguments in (["save", str(scene.mount), "-"], ["doctor", str(scene.mount)], ["tree", str(scene.mount)]):
        ended = commands.run(arguments)
        report.done[arguments[0]] += 1
        found += ended.differences()
        if ended.status:
            found.append(f"fsmount {arguments}: status {ended.status}: {ended.text}")
    return found


def _end(scene: Scene, report: Report) -> list[str]:
    """After the end of all processes of the attacker, only the charges of its groups themselves are left."""
    found = _root_uses(scene, report)
    top = scene.group_of_the_attacker()

    def empty() -> bool:
        for directory, _, _ in os.walk(os.fsencode(top)):
            with contextlib.suppress(FileNotFoundError):
                Path(os.fsdecode(directory), "memory.force_empty").write_text("1")
        return (scene.mount / "memory.usage_in_bytes").read_text() == "0\n"

    try:
        wait_until(empty, "nothing is charged when all processes have ended")
    except TimeoutError as error:
        found.append(f"{error}: {(scene.mount / 'memory.holders').read_text()}")
    return found
