"""Long texts: made while other requests are served, shared by readers, and kept in little memory."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from pyfuse3 import FUSEError

from fsmount import Tree
from fsmount.control_files.text import Text
from fsmount.files import group_at
from fsmount.filesystem.texts.kept_texts import KeptTexts
from fsmount.filesystem.texts.text_makers import TextMakers
from fsmount.shm import process_start_time
from tests.companions import companion
from tests.filesystem.bystander import served_while
from tests.footprint import Footprint, leaves_nothing
from tests.mounts import GroupFiles, Mount, eventually, mounted

MB = 1 << 20


def whole(fd: int) -> bytes:
    """The text of an open file, from its start."""
    text = b""
    while part := os.pread(fd, 1 << 17, len(text)):
        text += part
    return text


@contextmanager
def leases(path: Path, count: int) -> Iterator[None]:
    """Many open leases, in another process."""
    program = "import os, sys\nfor _ in range(int(sys.argv[2])): os.write(os.open(sys.argv[1], os.O_RDWR), b'1')\n"
    command = ["prlimit", f"--nofile={count + 100}", sys.executable, "-c", f"{program}print(flush=True); input()"]
    with subprocess.Popen(companion(*command, path, count), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"\n"
            yield
        finally:
            process.kill()


def daemon_of(mount: Mount) -> int:
    assert mount.daemon is not None
    return mount.daemon.pid


@pytest.fixture(scope="module")
def crowded() -> Iterator[Mount]:
    """A mount of 3,000 groups."""
    with mounted() as tree:
        for number in range(3000):
            tree.root.mkdir(f"group-{number}")
        yield tree


# ---- many holders


def test_other_requests_are_served_while_many_holders_are_listed(mount: Mount, group: GroupFiles) -> None:
    """If the event loop made the text, no request could pass between its first byte and its last."""
    with leases(group / "memory.lease", 3000):
        texts: list[list[str]] = []
        served = served_while(lambda: texts.append(group.read("holders").splitlines()), mount.path / "memory.failcnt")
        assert len(texts[0]) == 3000
        assert served > 5
    eventually(lambda: group.usage == 0, what="the leases are closed")


@pytest.mark.parametrize("count", [0, 1, 16, 17, 256, 257, 700])
def test_each_holder_is_listed_once(group: GroupFiles, count: int) -> None:
    group.charge(5)
    with leases(group / "memory.lease", count):
        lines = group.holders()
        assert len(lines) == count + 1
        assert {(line.held, line.command.startswith("lease:")) for line in lines[:-1]} <= {(1, True)}
        assert lines[-1] == (0, 0, 5, 0, "common")
    eventually(lambda: group.usage == 5, what="the leases are closed")


def test_holders_that_stay_are_listed_once_while_others_come_and_go(group: GroupFiles) -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            opened = [group.lease() for _ in range(50)]
            for lease in opened:
                lease.write("7")
            for lease in opened:
                lease.close()

    with leases(group / "memory.lease", 600):
        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            for _ in range(20):
                assert sum(line.held == 1 for line in group.holders()) == 600
        finally:
            done.set()
            thread.join()
    eventually(lambda: group.usage == 0, what="the leases are closed")


def test_the_error_of_a_busy_group_names_few_of_its_holders() -> None:
    with Tree.create() as tree:
        group = tree.root.mkdir("busy")
        own = os.getpid(), process_start_time(os.getpid())
        held = [tree.lease(group, ("memory",), *own) for _ in range(400)]
        for lease in held:
            lease.change({"memory": 1})
        with pytest.raises(OSError, match=r"many live holders, process \d+ among them") as raised:
            tree.root.rmdir("busy")
        assert len(str(raised.value)) < 300
        for lease in held:
            lease.close()


# ---- readers share


def test_simultaneous_readers_share_few_texts_and_none_is_refused(crowded: Mount) -> None:
    together = threading.Barrier(24)
    texts: list[bytes] = []
    errors: list[OSError] = []

    def read() -> None:
        together.wait()
        try:
            texts.append((crowded.path / "metrics").read_bytes())
        except OSError as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(24)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not errors
    assert all(text.count(b"fsmount_failcnt_total{") == 3001 and text.endswith(b"# EOF\n") for text in texts)
    made = {re.search(rb"^fsmount_requests_total (\S+)", text, re.MULTILINE)[1] for text in texts}  # type: ignore[index]
    assert len(made) < 12, "the count of requests differs from one text to the next"


@pytest.mark.parametrize("name", [".memory.groups", "metrics"])
def test_a_reader_never_gets_a_text_older_than_its_read(crowded: Mount, name: str) -> None:
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set():
            (crowded.path / name).read_bytes()

    readers = [threading.Thread(target=read_on) for _ in range(3)]
    group = crowded.root.child("group-2999")
    for reader in readers:
        reader.start()
    try:
        for amount in range(1, 21):
            group.charge(1)
            if name == "metrics":
                text = (crowded.path / name).read_text()
                assert f'fsmount_usage_bytes{{group="/group-2999",resource="memory"}} {amount}\n' in text
            else:
                assert group_at(str(crowded.path))["memory"].snapshot()[-1].usage == amount
    finally:
        done.set()
        for reader in readers:
            reader.join()
        group.write("force_empty", "1")


def test_one_user_cannot_take_all_places_of_readers_nor_any_of_root() -> None:
    waiting = 0
    refused = 0

    async def main() -> None:
        nonlocal waiting, refused
        makers = TextMakers()
        go = threading.Event()

        def make() -> Text:
            assert go.wait(60)
            return Text([b"text"])

        async def read(user: int, key: object) -> None:
            nonlocal waiting, refused
            waiting += 1
            try:
                assert (await makers.text(user, key, make))[:] == b"text"
            except FUSEError as error:
                assert error.errno == errno.EAGAIN
                refused += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(makers.run)
            async with trio.open_nursery() as readers:
                for number in range(2000):
                    readers.start_soon(read, 1001, number)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert 500 < refused < 2000, "the user has at most half of the places"
                before = refused
                for number in range(100):
                    readers.start_soon(read, 1002, number)
                    readers.start_soon(read, 0, number)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert refused == before
                go.set()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert waiting == 2200


def test_users_take_turns_and_a_text_for_root_never_waits_for_them() -> None:
    made: list[tuple[int, int]] = []

    async def main() -> None:
        makers = TextMakers()
        go = threading.Event()

        async def read(user: int, key: int) -> None:
            def make() -> Text:
                assert go.wait(60) if user else True
                made.append((user, key))
                return Text()

            await makers.text(user, (user, key), make)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(makers.run)
            async with trio.open_nursery() as readers:
                for number in range(20):
                    readers.start_soon(read, 1001, number)
                await trio.testing.wait_all_tasks_blocked(0.01)
                readers.start_soon(read, 1002, 0)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await read(0, 0)
                assert made == [(0, 0)]
                go.set()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert made.index((1002, 0)) <= 3, "after root's, the one that was begun, and the turn of the first user"


# ---- memory


def test_a_reader_that_has_read_one_byte_costs_kilobytes(crowded: Mount) -> None:
    """400 readers, each with a text of another moment: 3,000 lines of 100 bytes."""
    with os.fdopen(os.open(crowded.path / ".memory.groups", os.O_RDONLY), "rb", 0) as first:
        whole(first.fileno())
    before = Footprint.of(daemon_of(crowded))
    group = crowded.root.child("group-1500")
    readers = []
    try:
        for _ in range(400):
            readers.append(os.open(crowded.path / ".memory.groups", os.O_RDONLY))
            assert os.pread(readers[-1], 1, 0)
            group.charge(1)
        grown = Footprint.of(daemon_of(crowded)).memory - before.memory
        assert grown < 400 * (32 << 10), f"{grown >> 10} kB for 400 readers"
        for number in (0, 1, 200, 398, 399):
            lines = whole_after(readers[number], 1).splitlines()
            assert len(lines) == 3001
            (line,) = [line for line in lines if line.endswith(b" group-1500")]
            assert int(line.split()[2]) == number, "the text of its own moment"
    finally:
        for fd in readers:
            os.close(fd)
        group.write("force_empty", "1")
    leaves_nothing(daemon_of(crowded), before, tolerance=0.25)


def whole_after(fd: int, begun: int) -> bytes:
    """The text from its start, of which only the rest is read: one byte of the first line has been read before."""
    text = b"0" * begun
    while part := os.pread(fd, 1 << 17, len(text)):
        text += part
    return text


def test_open_directories_of_many_groups_cost_kilobytes(crowded: Mount) -> None:
    os.listdir(crowded.path)  # now the daemon knows which names the kernel has
    before = Footprint.of(daemon_of(crowded))
    opened = [os.scandir(crowded.path) for _ in range(100)]
    for entries in opened:
        next(entries)
    grown = Footprint.of(daemon_of(crowded)).memory - before.memory
    assert grown < 100 * (32 << 10), f"{grown >> 10} kB for 100 directories"
    for entries in opened[::33]:
        assert sum(entry.name.startswith("group-") for entry in entries) == 3000
    for entries in opened:
        entries.close()
    leaves_nothing(daemon_of(crowded), before, tolerance=0.25)


def test_metrics_omit_groups_with_paths_longer_than_a_system_call_takes() -> None:
    with mounted() as tree:
        assert tree.region is not None
        (tree.path / "metrics").read_bytes()
        before = Footprint.of(daemon_of(tree))
        with Tree.open(tree.region) as region:
            group = region.root
            for number in range(1020):
                group = group.mkdir(f"{number:0255}")
            text = (tree.path / "metrics").read_text()
            region.root["memory"].charge_common(1)
            shown = re.findall(r'^fsmount_usage_bytes\{group="([^"]*)"', text, re.MULTILINE)
            assert len(shown) == 16, "the root, and 15 whose paths are no longer than 4095 bytes"
            assert "\nfsmount_groups_omitted 1005" in text
            assert len((tree.path / ".memory.groups").read_bytes().splitlines()) == 1021
        leaves_nothing(daemon_of(tree), before, tolerance=0.25)


def test_refusals_in_deep_groups_show_the_end_of_the_path() -> None:
    with Tree.create() as tree:
        group = tree.root
        for number in range(1000):
            group = group.mkdir(f"{number:0200}")
        group["memory"].limit = 1
        for _ in range(3):
            assert not group["memory"].try_charge(2)
        (refusal,) = tree.root["memory"].why()
        assert refusal.asked is not None
        assert refusal.asked.startswith(".../") and refusal.asked.endswith(f"/{999:0200}")
        assert 3800 < len(refusal.asked) <= 4100
        assert refusal == type(refusal).parse(str(refusal))


class _Reader:
    def __init__(self, user: int) -> None:
        self.user = user
        self.lost = False

    def lose_text(self) -> None:
        self.lost = True


def random_text(length: int = 100_000) -> Text:
    return Text([os.urandom(1000) for _ in range(length // 1000)])


def test_the_user_with_the_most_kept_text_loses_its_oldest_text() -> None:
    kept = KeptTexts(room=1_000_000)
    modest = _Reader(1)
    modest_text = random_text()
    kept.keep(modest, "modest", modest_text)
    greedy = [_Reader(2) for _ in range(30)]
    for number, reader in enumerate(greedy):
        kept.keep(reader, number, random_text())
    assert not modest.lost and modest_text[5:9]
    assert [reader.lost for reader in greedy] == [True] * sum(reader.lost for reader in greedy) + [False] * 8
    for reader in (modest, *greedy):
        kept.drop(reader)
        kept.drop(reader)
    assert kept.taken == 0


def test_equal_pieces_are_kept_once_and_a_text_is_read_at_any_place() -> None:
    kept = KeptTexts()
    parts = [b"%d " % number * 100 for number in range(5000)]
    text = b"".join(parts)
    readers = [_Reader(1) for _ in range(50)]
    for number, reader in enumerate(readers):
        parts[number * 7] = b"x" * len(parts[number * 7])
        found = kept.keep(reader, "file", Text(parts))
    assert kept.taken < sum(Text(parts).size for _ in readers) / 10
    text = b"".join(parts)
    assert found[:] == text and found.length == len(text)
    for place in (0, 1, 24 << 10, (24 << 10) - 1, len(text) - 1, len(text), len(text) + 5, 777_777):
        for size in (0, 1, 5, 24 << 10, 100_000):
            assert found[place : place + size] == text[place : place + size]


# ---- directories


def test_a_rewound_or_sought_directory_shows_lasting_groups_once(group: GroupFiles) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.opendir.restype = library.readdir64.restype = ctypes.c_void_p
    library.telldir.restype = ctypes.c_long

    def name(directory: ctypes.c_void_p) -> str | None:
        found = library.readdir64(directory)
        return os.fsdecode(ctypes.string_at(found + 19)) if found else None  # where d_name is

    def rest(directory: ctypes.c_void_p) -> list[str]:
        return list(iter(lambda: name(directory), None))

    for number in range(700):
        group.mkdir(f"g{number}")
    directory = ctypes.c_void_p(library.opendir(os.fsencode(group.path)))
    try:
        for _ in range(300):
            name(directory)
        place = library.telldir(directory)
        following = rest(directory)
        for number in range(0, 700, 2):
            os.rmdir(group / f"g{number}")
        group.mkdir("new")
        library.seekdir(directory, ctypes.c_long(place))
        again = rest(directory)
        assert [each for each in again if each[1:].isdigit() and int(each[1:]) % 2] == [
            each for each in following if each[1:].isdigit() and int(each[1:]) % 2
        ]
        library.rewinddir(directory)
        assert sorted(each for each in rest(directory) if each[0] in "gn") == sorted(
            ["new", *(f"g{number}" for number in range(1, 700, 2))]
        )
    finally:
        library.closedir(directory)


def test_all_groups_can_be_removed_while_they_are_listed(group: GroupFiles) -> None:
    for number in range(1500):
        group.mkdir(f"g{number}")
    with os.scandir(group.path) as entries:
        for entry in entries:
            if entry.is_dir():
                os.rmdir(entry.path)
    assert group.children() == []
