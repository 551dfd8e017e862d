"""
The same operations on the kernel's cgroup v1 memory files and on ours: texts and errnos must agree.

DIFFERENCES lists the intended differences with both answers, and the test checks both. The test touches only a new
directory in the kernel's hierarchy, and moves no process into it.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mounts import GroupFiles, poll_events

Step = tuple[str, Callable[[], object]]
Scenario = Callable[[Path], Iterator[Step]]

LIMIT, SOFT, USAGE, PEAK, FAILCNT, EMPTY = (
    f"memory.{name}"
    for name in "limit_in_bytes soft_limit_in_bytes usage_in_bytes max_usage_in_bytes failcnt force_empty".split()
)
NAMES = (LIMIT, SOFT, USAGE, PEAK, FAILCNT, EMPTY)
SCENARIOS: dict[str, Scenario] = {}
KERNEL_UNLIMITED, OUR_UNLIMITED = repr(b"9223372036854771712\n"), repr(b"9223372036854775807\n")
UNLIMITED = (KERNEL_UNLIMITED, OUR_UNLIMITED)

# For each scenario and label: the answer of the kernel, and ours.
DIFFERENCES: dict[str, dict[str, tuple[str, str]]] = {
    # The kernel counts pages, so its largest number is a number of whole pages.
    "new_files": {f"read {LIMIT}": UNLIMITED, f"read {SOFT}": UNLIMITED},
    "limit_texts": dict.fromkeys([repr(data) for data in (b"-1", b" -1", b"-1 ", b"-1\n", b"-1\0")], UNLIMITED)
    | {
        # Bytes are exact.
        repr(b"4097"): (repr(b"4096\n"), repr(b"4097\n")),
        repr(b"8191"): (repr(b"4096\n"), repr(b"8191\n")),
        repr(b"1"): (repr(b"0\n"), repr(b"1\n")),
        repr(b"0x1E"): (repr(b"0\n"), repr(b"30\n")),
        # An empty text is an error, not 0.
        repr(b"\n"): (repr(b"0\n"), "EINVAL"),
        repr(b" "): (repr(b"0\n"), "EINVAL"),
        repr(b"\0"): (repr(b"0\n"), "EINVAL"),
        # A leading zero is an error, not octal.
        repr(b"010000"): (repr(b"4096\n"), "EINVAL"),
        repr(b"00"): (repr(b"0\n"), "EINVAL"),
        # Overflow is an error: no wrap, and no limit other than the requested one.
        repr(b"8E"): (KERNEL_UNLIMITED, "ERANGE"),
        repr(b"16E"): (repr(b"0\n"), "ERANGE"),
        repr(b"9223372036854775808"): (KERNEL_UNLIMITED, "ERANGE"),
        repr(b"9223372036854775807"): UNLIMITED,
        # A suffix alone is no number.
        repr(b"k"): (repr(b"0\n"), "EINVAL"),
        # `max` means unlimited.
        repr(b"max"): ("EINVAL", OUR_UNLIMITED),
        # A byte that is white space only in Latin-1.
        repr(b"\xa08192"): (repr(b"8192\n"), "EINVAL"),
    },
    "long_writes": {"4096 blanks to the limit": ("4096", "EINVAL")},
    "directories": {
        "rename to another parent": ("EIO", "EPERM"),
        # Every way to make a file is EPERM.
        "create": ("EACCES", "EPERM"),
        "create O_EXCL": ("EACCES", "EPERM"),
        "mknod": ("EACCES", "EPERM"),
    },
}
DIFFERENCES["soft_limit_texts"] = DIFFERENCES["limit_texts"]


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def read(path: Path, size: int = 4096) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def write(path: Path, data: bytes, flags: int = 0) -> int:
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def stat_text(path: Path) -> str:
    """The part of a stat() with a meaning on both sides: not the size, which exceeds the length of the text here."""
    status = os.stat(path)
    kind = stat.filemode(status.st_mode)
    return f"{kind} links {status.st_nlink} owner {status.st_uid}:{status.st_gid}"


def times(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return int(status.st_atime), int(status.st_mtime)


def in_error(fd: int) -> bool:
    return bool(poll_events(fd) & (select.POLLERR | select.POLLHUP | select.POLLNVAL))


# ---- files


@scenario
def new_files(group: Path) -> Iterator[Step]:
    for name in NAMES:
        yield f"stat {name}", partial(stat_text, group / name)
        yield f"read {name}", partial(read, group / name)
    yield "stat the directory", lambda: stat_text(group)
    yield "open a directory to write", lambda: os.open(group, os.O_RDWR)
    yield "open a file as a directory", lambda: os.open(group / LIMIT, os.O_RDONLY | os.O_DIRECTORY)


TEXTS = [
    *(b"0", b"4096", b"8192\n", b" 12288 ", b"\t4096\r\n", b"\v4096\f", b"\n\n8192", b"4k", b"4K", b"4k\r\n"),
    *(b"3m", b"3M", b"1g", b"1G", b"1T", b"1t", b"1p", b"1P", b"0k", b"0x10000", b"0xABC000", b"0x10k", b"0x0"),
    *(b"4096\0", b"4096\0abc", b"4096 \0", b"8192\x00\n"),
    *(b"-1", b" -1", b"-1 ", b"-1\n", b"-1\0", b"max"),
    *(b"4097", b"8191", b"1", b"0x1E", b"\n", b" ", b"\0", b"010000", b"00", b"8E", b"16E"),
    *(b"9223372036854775807", b"9223372036854775808", b"\xa08192"),
    *(b"-2", b"-0", b"+4096", b"12 13", b"12abc", b"4kB", b"4KiB", b"1.5M", b"1e6", b"0b10", b"0o17", b"abc", b"k"),
    *(b"-1k", b"--1", b"- 1", b"4kk", b"4 k", b"1_000", b"1,000", b"0x", b"0xg", b"00x10", b"4096;", b"\xff"),
    *("٤٠٩٦".encode(), b"4096\xc2\xa0", b"08", b"09k", b"\x1c4096", b"4096 4096", b"4096\n4096"),
]


def set_and_read(path: Path, data: bytes) -> bytes:
    write(path, data)
    return read(path)


@scenario
def limit_texts(group: Path) -> Iterator[Step]:
    for data in TEXTS:
        yield repr(data), partial(set_and_read, group / LIMIT, data)


@scenario
def soft_limit_texts(group: Path) -> Iterator[Step]:
    for data in TEXTS:
        yield repr(data), partial(set_and_read, group / SOFT, data)


@scenario
def resets(group: Path) -> Iterator[Step]:
    for name in (PEAK, FAILCNT, EMPTY):
        for data in (b"0", b"1\n", b"\n", b" ", b"", b"abc", b"-1", b"\0", b"\xff", b"x" * 4096, b"x" * 4097):
            yield f"{name} {data[:9]!r} {len(data)}", partial(write, group / name, data)
    for name in (PEAK, FAILCNT, USAGE):
        yield f"then {name}", partial(read, group / name)


@scenario
def long_writes(group: Path) -> Iterator[Step]:
    for name in (LIMIT, SOFT):
        for size in (4095, 4096, 4097, 5000, 65536, 1 << 20):
            padded = b" " * (size - 4) + b"8192"
            yield f"{size} bytes to {name}", partial(write, group / name, padded)
    yield "4096 blanks to the limit", lambda: write(group / LIMIT, b" " * 4096)
    yield "5000 nuls to the limit", lambda: write(group / LIMIT, b"\0" * 5000)
    yield "5000 bytes to the usage", lambda: write(group / USAGE, b"x" * 5000)


@scenario
def files_only_to_be_read(group: Path) -> Iterator[Step]:
    for data in (b"", b"0", b"\n", b"4096", b"abc"):
        yield repr(data), partial(write, group / USAGE, data)


@scenario
def open_flags(group: Path) -> Iterator[Step]:
    flags = {
        "O_TRUNC": os.O_TRUNC,
        "O_APPEND": os.O_APPEND,
        "O_CREAT": os.O_CREAT,
        "O_CREAT|O_EXCL": os.O_CREAT | os.O_EXCL,
        "O_CREAT|O_TRUNC": os.O_CREAT | os.O_TRUNC,
        "O_SYNC": os.O_SYNC,
        "O_NONBLOCK": os.O_NONBLOCK,
    }
    for name in (LIMIT, SOFT, PEAK, FAILCNT, EMPTY):
        for label, bits in flags.items():
            yield f"{name} {label}", partial(write, group / name, b"8192", bits)
    yield "then the limit", lambda: read(group / LIMIT)
    yield "O_EXCL without O_CREAT", lambda: write(group / LIMIT, b"4096", os.O_EXCL)
    for name in (LIMIT, USAGE, FAILCNT, EMPTY):
        for size in (0, 1, 1 << 30):
            yield f"truncate {name} {size}", partial(os.truncate, group / name, size)
        yield f"then {name}", partial(stat_text, group / name)
    yield "then the limit again", lambda: read(group / LIMIT)


@scenario
def offsets(group: Path) -> Iterator[Step]:
    fd = os.open(group / LIMIT, os.O_RDWR)
    try:
        yield "write", lambda: os.write(fd, b"8192")
        yield "position", lambda: os.lseek(fd, 0, os.SEEK_CUR)
        yield "read on", lambda: os.read(fd, 100)
        yield "write on", lambda: os.write(fd, b"12288")
        yield "position after", lambda: os.lseek(fd, 0, os.SEEK_CUR)
        yield "a refused write", lambda: os.write(fd, b"nonsense")
        yield "position after a refused write", lambda: os.lseek(fd, 0, os.SEEK_CUR)
        yield "pread at 0", lambda: os.pread(fd, 100, 0)
        yield "pwrite at 999", lambda: os.pwrite(fd, b"16384", 999)
        yield "pread 2 at 0", lambda: os.pread(fd, 2, 0)
        yield "pwrite at 0", lambda: os.pwrite(fd, b"65536", 0)
        yield "pread at 2 of the old", lambda: os.pread(fd, 100, 2)
        yield "pread at 0 of the new", lambda: os.pread(fd, 100, 0)
        yield "pread at the end", lambda: os.pread(fd, 100, 6)
        yield "pread after the end", lambda: os.pread(fd, 100, 1 << 40)
        yield "writev", lambda: os.writev(fd, [b"40", b"", b"96", b"\n"])
        yield "pread of it", lambda: os.pread(fd, 100, 0)
        yield "pwritev", lambda: os.pwritev(fd, [b"8", b"k"], 3)
        yield "preadv of it", lambda: os.preadv(fd, [bytearray(3), bytearray(3)], 0)
        yield "SEEK_SET", lambda: os.lseek(fd, 0, os.SEEK_SET)
        yield "read after SEEK_SET", lambda: os.read(fd, 3)
        yield "another limit", lambda: write(group / LIMIT, b"1M")
        yield "read continued", lambda: os.read(fd, 100)
        yield "read at the end", lambda: os.read(fd, 100)
        yield "SEEK_SET 1000", lambda: os.lseek(fd, 1000, os.SEEK_SET)
        yield "read at 1000", lambda: os.read(fd, 100)
        yield "SEEK_SET below 0", lambda: os.lseek(fd, -1, os.SEEK_SET)
        yield "SEEK_CUR", lambda: os.lseek(fd, -1000, os.SEEK_CUR)
        yield "read from the start", lambda: os.read(fd, 100)
        yield "ftruncate", lambda: os.ftruncate(fd, 3)
        yield "fsync", lambda: os.fsync(fd)
        yield "fdatasync", lambda: os.fdatasync(fd)
        yield "fstat", lambda: stat_text(group / LIMIT)
        yield "poll for errors", lambda: in_error(fd)
        yield "write of nothing", lambda: os.write(fd, b"")
        yield "zero bytes at an offset", lambda: os.pwrite(fd, b"", 77)
        yield "read of nothing", lambda: os.read(fd, 0)
    finally:
        os.close(fd)


@scenario
def a_first_read_at_an_offset(group: Path) -> Iterator[Step]:
    write(group / LIMIT, b"122880")
    fd = os.open(group / LIMIT, os.O_RDONLY)
    try:
        yield "pread", lambda: os.pread(fd, 2, 3)
        yield "write to it", lambda: os.write(fd, b"1")
    finally:
        os.close(fd)


@scenario
def appending(group: Path) -> Iterator[Step]:
    fd = os.open(group / LIMIT, os.O_RDWR | os.O_APPEND)
    try:
        yield "write", lambda: os.write(fd, b"4096\n")
        yield "again", lambda: os.write(fd, b"8192\n")
        yield "pread", lambda: os.pread(fd, 100, 0)
    finally:
        os.close(fd)


@scenario
def attributes(group: Path) -> Iterator[Step]:
    for name in (".", LIMIT, USAGE, EMPTY):
        before = stat.S_IMODE(os.stat(group / name).st_mode)
        for bits in (0o640, 0o400, 0o000, 0o777, 0o4751, 0o1777, before):
            yield f"chmod {name} {bits:o}", partial(os.chmod, group / name, bits)
            yield f"{name} is {bits:o}", partial(stat_text, group / name)
        yield f"chown {name}", partial(os.chown, group / name, 60_101, 60_102)
        yield f"chowned {name}", partial(stat_text, group / name)
        yield f"utime {name}", partial(os.utime, group / name, (1, 2))
        yield f"times of {name}", partial(times, group / name)
        yield f"chown {name} back", partial(os.chown, group / name, 0, 0)


# ---- directories


@scenario
def directories(group: Path) -> Iterator[Step]:
    names = ["a", "b c", ".d", "...", "é", "\udcff", "x" * 255, "memory", "memory.new", "*"]
    for name in names:
        yield f"mkdir {name!a}", partial(os.mkdir, group / name)
    yield "links", lambda: stat_text(group)
    yield "stat of a child", lambda: stat_text(group / "a")
    yield "files of a child", lambda: stat_text(group / "a" / LIMIT)
    yield "listed", lambda: sorted(ascii(entry.name) for entry in os.scandir(group) if entry.is_dir())
    yield "mkdir with a mode", lambda: os.mkdir(group / "mode", 0o700)
    yield "its mode", lambda: stat_text(group / "mode")
    yield "mkdir again", lambda: os.mkdir(group / "a")
    yield "mkdir newline", lambda: os.mkdir(group / "a\nb")
    yield "mkdir of a file's name", lambda: os.mkdir(group / LIMIT)
    yield "mkdir below nothing", lambda: os.mkdir(group / "nothing" / "a")
    yield "mkdir below a file", lambda: os.mkdir(group / LIMIT / "a")
    yield "mkdir in a child", lambda: os.mkdir(group / "a" / "b")
    yield "links of the child", lambda: stat_text(group / "a")
    yield "rmdir with a child", lambda: os.rmdir(group / "a")
    yield "rename", lambda: os.rename(group / "a", group / "z")
    yield "the child moved along", lambda: stat_text(group / "z" / "b" / LIMIT)
    yield "rename to itself", lambda: os.rename(group / "z", group / "z")
    yield "rename onto a directory", lambda: os.rename(group / "z", group / ".d")
    yield "rename to another parent", lambda: os.rename(group / ".d", group / "z" / "d")
    yield "rename into its own child", lambda: os.rename(group / "z", group / "z" / "b" / "z")
    yield "rename to a newline", lambda: os.rename(group / "z", group / "z\nz")
    yield "rename onto a file", lambda: os.rename(group / "z", group / FAILCNT)
    yield "rename of a file", lambda: os.rename(group / FAILCNT, group / "new")
    yield "rename of a file onto a file", lambda: os.rename(group / FAILCNT, group / LIMIT)
    yield "rename of a file onto a directory", lambda: os.rename(group / FAILCNT, group / "z")
    yield "rename of nothing", lambda: os.rename(group / "nothing", group / "new")
    yield "create", lambda: write(group / "new", b"1", os.O_CREAT)
    yield "create O_EXCL", lambda: write(group / "memory.other", b"1", os.O_CREAT | os.O_EXCL)
    yield "unlink of a file", lambda: os.unlink(group / LIMIT)
    yield "unlink of a directory", lambda: os.unlink(group / "z")
    yield "unlink of nothing", lambda: os.unlink(group / "nothing")
    yield "link", lambda: os.link(group / LIMIT, group / "new")
    yield "symlink", lambda: os.symlink("z", group / "new")
    yield "mkfifo", lambda: os.mkfifo(group / "new")
    yield "mknod", lambda: os.mknod(group / "new", stat.S_IFREG | 0o600)
    yield "rmdir of a file", lambda: os.rmdir(group / LIMIT)
    yield "rmdir of nothing", lambda: os.rmdir(group / "nothing")
    yield "rmdir of the grandchild", lambda: os.rmdir(group / "z" / "b")
    yield "rmdir of the child", lambda: os.rmdir(group / "z")
    yield "links in the end", lambda: stat_text(group)


@scenario
def a_removed_group(group: Path) -> Iterator[Step]:
    child = group / "child"
    os.mkdir(child)
    fds = {name: os.open(child / name, os.O_RDWR) for name in NAMES}
    directory = os.open(child, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.read(fds[LIMIT], 1)
        os.rmdir(child)
        for again in ("", " though one of its name is there"):
            for name, fd in fds.items():
                yield f"read {name}{again}", partial(os.pread, fd, 100, 0)
                yield f"write {name}{again}", partial(os.pwrite, fd, b"4096", 0)
                yield f"poll {name}{again}", partial(in_error, fd)
            yield f"open in it{again}", lambda: os.open(LIMIT, os.O_RDONLY, dir_fd=directory)
            yield f"mkdir in it{again}", lambda: os.mkdir("below", dir_fd=directory)
            yield f"list it{again}", lambda: os.listdir(directory)
            if not again:
                os.mkdir(child)
        yield "rmdir", lambda: os.rmdir(child)
        yield "rmdir again", lambda: os.rmdir(child)
    finally:
        for fd in [*fds.values(), directory]:
            os.close(fd)


@scenario
def times_of_a_directory(group: Path) -> Iterator[Step]:
    def moved(action: Callable[[], object]) -> bool:
        os.utime(group, (1, 1))
        action()
        return os.stat(group).st_mtime > 1

    yield "a write to a file", lambda: moved(lambda: write(group / LIMIT, b"-1"))
    yield "mkdir", lambda: moved(lambda: os.mkdir(group / "child"))
    yield "rmdir", lambda: moved(lambda: os.rmdir(group / "child"))


# ---- both sides


def kernel_hierarchy() -> Path | None:
    """The mount point of the cgroup v1 memory hierarchy, if a test can make a directory there."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split(" ")
        if kind == "cgroup" and "memory" in options.split(","):
            path = Path(where)
            return path if os.access(path, os.W_OK) and "rw" in options.split(",") else None
    return None


@pytest.fixture
def kernel_group(request: pytest.FixtureRequest) -> Iterator[Path]:
    hierarchy = kernel_hierarchy()
    if hierarchy is None:
        pytest.skip("no cgroup v1 memory hierarchy that can be written to is mounted here")
    path = hierarchy / f"fsmount-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"{hierarchy} takes no new directory: {error.strerror}")
    yield path
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)


def answers(steps: Iterator[Step]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, action in steps:
        assert label not in found, label
        try:
            found[label] = repr(action())
        except OSError as error:
            found[label] = errno.errorcode[error.errno or 0]
    return found


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_operations_get_the_answers_of_the_kernel(kernel_group: Path, group: GroupFiles, name: str) -> None:
    theirs = answers(SCENARIOS[name](kernel_group))
    ours = answers(SCENARIOS[name](group.path))
    different = {label: (theirs[label], ours.get(label, "")) for label in theirs if theirs[label] != ours.get(label)}
    assert different == DIFFERENCES.get(name, {})
    assert list(ours) == list(theirs)
