"""
Arbitrary bytes, written into every file and used as names: counters stay the same or change as the rules say.

The test has a parser of its own for numbers, written from the rules alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.filesystem.texts import TEXT_MAX, Refused, limit_number, number, random_text, stripped
from tests.mounts import UNLIMITED, GroupFiles, Mount, eventually, fails_with, mounted, resource_files

pytestmark = pytest.mark.timeout(900)  # FSMOUNT_SOAK=1 takes minutes

COMMANDS = "usage limit soft_limit max_usage failcnt stat charge uncharge force_empty lease holders".split()


@dataclass
class Model:
    """One counter of a group without children: plain numbers, and the effect of a write on them."""

    limit: int = UNLIMITED
    soft_limit: int = UNLIMITED
    common: int = 0
    lease: int = 0
    failcnt: int = 0
    max_usage: int = field(default=0)

    @property
    def usage(self) -> int:
        return self.common + self.lease

    def write(self, name: str, text: bytes) -> None:
        if not text:
            return
        if len(text) > TEXT_MAX:
            raise Refused(errno.E2BIG)
        getattr(self, f"write_{name}", self.write_read_only)(text)
        self.max_usage = max(self.max_usage, self.usage)

    def write_read_only(self, text: bytes) -> None:
        raise Refused(errno.EINVAL)

    def write_limit(self, text: bytes) -> None:
        value = limit_number(text)
        if self.usage > value:
            raise Refused(errno.EBUSY)
        self.limit = value

    def write_soft_limit(self, text: bytes) -> None:
        self.soft_limit = limit_number(text)

    def write_max_usage(self, text: bytes) -> None:
        self.max_usage = self.usage

    def write_failcnt(self, text: bytes) -> None:
        self.failcnt = 0

    def write_force_empty(self, text: bytes) -> None:
        self.common = 0

    def grow(self, value: int) -> None:
        if self.usage + value > self.limit:
            self.failcnt += 1
            raise Refused(errno.ENOMEM)

    def write_charge(self, text: bytes) -> None:
        value = number(stripped(text))
        self.grow(value)
        self.common += value

    def write_uncharge(self, text: bytes) -> None:
        value = number(stripped(text))
        if value > self.common:
            raise Refused(errno.ERANGE)
        self.common -= value

    def write_lease(self, text: bytes) -> None:
        text = stripped(text)
        sign = text[:1] if text[:1] in (b"+", b"-") else b""
        value = number(text.removeprefix(sign))
        target = {b"": value, b"+": self.lease + value, b"-": self.lease - value}[sign]
        if target < 0:
            raise Refused(errno.ERANGE)
        if target > self.lease:
            self.grow(target - self.lease)
        self.lease = target


# ---- every file


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    with mounted("--batch", "0", "--resource", "memory", "--resource", "tokens:count") as tree:
        yield tree


class Writer:
    """All files of one counter, kept open, and a model of the counter."""

    def __init__(self, group: GroupFiles, resource: str) -> None:
        self.group, self.resource = group, resource
        self.model = Model()
        for name in COMMANDS:
            os.chmod(group.file(name, resource), 0o600)
        self.fds = {name: os.open(group.file(name, resource), os.O_RDWR) for name in COMMANDS}

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)

    def write(self, name: str, text: bytes, offset: int) -> None:
        """Writes, and compares the errno and the counters with the model."""
        expected = 0
        try:
            self.model.write(name, text)
        except Refused as refused:
            expected = refused.numbers[0]
        try:
            written = os.pwrite(self.fds[name], text, offset)
            got = 0
            assert written == len(text)
        except OSError as error:
            got = error.errno or -1
        context = f"{text[:60]!r} ({len(text)} bytes) to {self.resource}.{name}"
        names = (errno.errorcode.get(got, "no error"), errno.errorcode.get(expected, "no error"))
        assert got == expected, f"{context}: {names[0]} instead of {names[1]}"
        for key in ("usage", "limit", "soft_limit", "max_usage", "failcnt"):
            value = int(os.pread(self.fds[key], 100, 0))
            assert value == getattr(self.model, key), f"{key} after {context}"
        if name == "lease":
            assert int(os.pread(self.fds[name], 100, 0)) == self.model.lease, f"the lease after {context}"


def test_random_bytes_in_every_file_act_as_the_rules_say_or_change_nothing(
    mount: Mount, group: GroupFiles, seed: int, soak: bool
) -> None:
    rng = random.Random(seed)
    writers = [Writer(group, resource) for resource in ("memory", "tokens")]
    try:
        for _ in range(200_000 if soak else 10_000):
            writer = rng.choice(writers)
            name = rng.choice(COMMANDS)
            writer.write(name, random_text(rng), rng.choice((0, 0, rng.randrange(5000))))
            # A full counter refuses everything, which would prove little.
            if writer.model.usage > writer.model.limit // 2 and rng.random() < 0.1:
                writer.write(rng.choice(("force_empty", "lease")), b"0", 0)
                writer.write("limit", b"max", 0)
    finally:
        for writer in writers:
            writer.close()
    assert not mount.ended
    eventually(lambda: group.usage == writers[0].model.common)
    assert group.number("usage", "tokens") == writers[1].model.common


def test_random_bytes_leave_the_rest_of_the_tree_alone(mount: Mount, group: GroupFiles, seed: int) -> None:
    rng = random.Random(seed)
    sibling, target = group.mkdir("sibling"), group.mkdir("target")
    sibling.set_limit(5000)
    sibling.charge(4000)
    group.set_limit("1G")
    before = sibling.counters()
    for _ in range(300):
        name = rng.choice([name for name, mode in resource_files().items() if mode & 0o200])
        with contextlib.suppress(OSError):
            (target / name).write_bytes(random_text(rng))
        assert sibling.counters() == before
        assert group.usage <= 1 << 30


# ---- names


def random_name(rng: random.Random) -> bytes:
    length = rng.choice((1, 2, 3, 8, 30, 254, 255))
    name = rng.choice((rng.randbytes(length), bytes(rng.choices(b"\n .-*?\\'\"\tmemory", k=length))))
    name = name.replace(b"\0", b"0").replace(b"/", b"1")
    return name if name not in (b".", b"..") else b"dots"


def test_random_names_make_groups_or_fail_as_the_rules_say(group: GroupFiles, seed: int, soak: bool) -> None:
    rng = random.Random(seed)
    top = os.fsencode(group.path)
    files = {os.fsencode(name) for name in os.listdir(group.path)}
    there: set[bytes] = set()
    for _ in range(10_000 if soak else 1_000):
        name = rng.choice(sorted(files)) if rng.random() < 0.05 else random_name(rng)
        action: Callable[[], None]
        if there and rng.random() < 0.3:
            source = rng.choice(sorted(there))
            action, expected = partial(os.rename, top + b"/" + source, top + b"/" + name), 0
            if name in files:
                expected = errno.ENOTDIR
            elif name == source:
                expected = 0
            elif name in there:
                expected = errno.EEXIST
            elif b"\n" in name:
                expected = errno.EINVAL
            if not expected:
                there = there - {source} | {name}
        else:
            action, expected = partial(os.mkdir, top + b"/" + name), 0
            if name in files | there:
                expected = errno.EEXIST
            elif b"\n" in name:
                expected = errno.EINVAL
            else:
                there.add(name)
        try:
            action()
            got = 0
        except OSError as error:
            got = error.errno or -1
        assert errno.errorcode.get(got, got) == errno.errorcode.get(expected, expected), name
        if len(there) > 50:
            gone = rng.choice(sorted(there))
            os.rmdir(top + b"/" + gone)
            there.remove(gone)
        assert os.stat(top).st_nlink == 2 + len(there)
    assert set(os.listdir(top)) == files | there


@pytest.mark.parametrize("length", [256, 300, 1024, 5000])
def test_a_name_too_long_for_a_file_system_is_refused(group: GroupFiles, length: int) -> None:
    path, there = group / ("x" * length), group.mkdir("there").path
    for action in (
        partial(os.mkdir, path),
        partial(os.rename, there, path),
        partial(os.open, path, os.O_CREAT | os.O_WRONLY),
        partial(os.stat, path),
        partial(os.rmdir, path),
        partial(os.unlink, path),
    ):
        with fails_with(errno.ENAMETOOLONG):
            action()
    assert [child.path for child in group.children()] == [there]
