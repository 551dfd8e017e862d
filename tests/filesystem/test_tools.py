"""Programs that copy: each gets the whole current text, or reports a failure; docs/programs.md has the table."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import resource
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from tests.mounts import GroupFiles, Lease, Mount, eventually, fails_with, mounted

from .copiers import (
    COMMANDS,
    MOVES,
    PROGRAMS,
    SIZED,
    Copier,
    Copiers,
    Failed,
    by_command,
    by_sendfile,
    by_splice,
    moved,
)

PAGE = Path(__file__).parents[2] / "fsmount/docs/programs.md"
#: Makes the tests write the table of the page instead of comparing it.
WRITE = "FSMOUNT_WRITE_TOOLS"

SHORT = ["usage", "limit", "stat", "events", "holders", "why"]
MANY = 300
#: The files that each program copies, as the table names them.
COPIED = [*(f"`{name}`" for name in SHORT), f"`holders`, {MANY} lines", f"`.R.groups`, {MANY} lines", "`metrics`"]
WHOLE, FAILS, SIZE = "whole", "fails", "the size"


@pytest.fixture(scope="module")
def copiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copiers]:
    made = Copiers(tmp_path_factory.mktemp("copiers"))
    yield made
    made.end()


class Furnished:
    """A tree with short and long texts, and changes that make all of them longer and shorter."""

    def __init__(self, tree: Mount) -> None:
        self.short = tree.root.mkdir("short")
        self.long = tree.root.mkdir("long")
        for number in range(MANY):
            self.long.mkdir(f"{number:0200}")
        self.leases = [self.long.lease() for _ in range(MANY)]
        self.files = [
            *(self.short.file(name) for name in SHORT),
            self.long.file("holders"),
            self.long.path / ".memory.groups",
            tree.path / "metrics",
        ]
        self.region = fsmount.attach(self.short.path)
        for lease in self.leases:
            lease.write("1")
        self.changes: list[Callable[[], None]] = [self.through_files, self.through_region, self.through_files_back]

    def through_files(self) -> None:
        self.short.set_limit(9_876_543_210)
        self.short.charge(1_234_567_890)
        self.leases[0].write("123456789")
        with fails_with(errno.ENOMEM):
            self.short.charge(9_999_999_999)

    def through_region(self) -> None:
        """Makes texts longer: a charge through a file belongs to another holder than the process."""
        self.region["memory"].charge(8_000_000_000)
        with pytest.raises(fsmount.LimitExceeded):
            self.region["memory"].charge(9_000_000_000)

    def through_files_back(self) -> None:
        """Restores the tree, except for the refusals, which stay."""
        self.region["memory"].uncharge(8_000_000_000)
        self.short.uncharge(1_234_567_890)
        self.leases[0].write("1")
        self.short.set_limit(10)

    def end(self) -> None:
        self.region.close()
        for lease in self.leases:
            lease.close()


@pytest.fixture(scope="module")
def furnished() -> Iterator[Furnished]:
    with mounted("--resource", "memory") as tree:
        made = Furnished(tree)
        yield made
        made.end()
        tree.root.child("short").remove()
        tree.root.child("long").remove()


def settled(text: bytes) -> list[bytes]:
    """The lines, without the figures of the daemon in `metrics`, which change with every request."""
    own = re.compile(rb"((?:fsmount|process|python)_[^ ]*) [^ ]*")
    return [
        found[1] if b"group=" not in line and (found := own.fullmatch(line)) else line for line in text.split(b"\n")
    ]


def outcome(program: str, copy: Copier, source: Path, target: Path) -> str:
    """The program's result with a file: one of the words above, or the text that it got."""
    target.unlink(missing_ok=True)
    expected = source.read_bytes()
    try:
        text = copy(source, target)
    except (Failed, OSError):
        return FAILS
    if "wc -c" in program:
        counted = int(text.split()[0])
        if counted == os.stat(source).st_size:
            return SIZE
        near = 64 if source.name == "metrics" else 0  # metrics count their own requests
        return WHOLE if abs(counted - len(expected)) <= near else f"counted {counted} of {len(expected)}"
    if program == "git hash-object":
        right = hashlib.sha1(b"blob %d\0" % len(expected) + expected).hexdigest()
        return WHOLE if text.decode().strip() == right else f"got {text!r}, not {right}"
    if program == "tar":
        with tarfile.open(fileobj=io.BytesIO(text)) as archive:
            [member] = archive.getmembers()
        text = text[member.offset_data :][: member.size]
    if settled(text) == settled(expected):
        return WHOLE
    return f"got {len(text)} of {len(expected)} bytes: {text[:40]!r}...{text[-40:]!r}"


def outcomes(program: str, copy: Copier, furnished: Furnished, target: Path) -> list[str]:
    """The outcome for each file, after each change."""
    found: list[set[str]] = [set() for _ in furnished.files]
    for change in furnished.changes:
        change()
        for seen, source in zip(found, furnished.files, strict=True):
            seen.add(outcome(program, copy, source, target))
    return [" or ".join(sorted(seen)) for seen in found]


MARK = "<!-- the table -->\n\n"


def page() -> tuple[str, str, str]:
    """The text before the table, the table, and the text after it."""
    before, _, rest = PAGE.read_text().partition(MARK)
    table, _, after = rest.partition("\n\n") if rest.startswith("|") else ("", "", rest)
    return before + MARK, table, after


def rows() -> dict[str, str]:
    """The lines of the table in the page."""
    return {line.split("`")[1]: line for line in page()[1].splitlines()[2:]}


def write(program: str, row: str) -> None:
    """Puts a row into the table of the page."""
    found = rows() | {program: row}
    before, _, after = page()
    table = ["| program | result |", "|---|---|", *(found[name] for name in PROGRAMS if name in found)]
    PAGE.write_text(before + "\n".join(table) + "\n\n" + after)


def result(found: list[str]) -> str:
    """One word if it is the same for all files, otherwise one for each."""
    return (
        found[0]
        if len(set(found)) == 1
        else ", ".join(f"{name}: {word}" for name, word in zip(COPIED, found, strict=True))
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_copies_the_whole_text_after_each_change_as_documented(
    copiers: Copiers, furnished: Furnished, tmp_path: Path, program: str
) -> None:
    found = outcomes(program, copiers[program], furnished, tmp_path / "copy")
    if program not in SIZED:
        assert dict(zip(COPIED, found, strict=True)) == dict.fromkeys(COPIED, WHOLE)
    elif "wc" not in program:
        assert {word for words in found for word in words.split(" or ")} <= {WHOLE, FAILS}
    row = f"| `{program}` | {result(found)} |"
    if os.environ.get(WRITE):
        write(program, row)
    assert rows()[program] == row


def test_the_page_has_a_row_for_every_program() -> None:
    assert list(rows()) == PROGRAMS


# ---- one open file


@pytest.mark.parametrize("move", MOVES)
def test_an_open_file_is_copied_again_from_its_start_after_a_write(
    group: GroupFiles, move: Callable[[int, int], None]
) -> None:
    source = os.open(group.file("limit"), os.O_RDONLY)
    try:
        for limit in (7, 123_456_789_012, 10, 5_000_000, 8):
            group.set_limit(limit)
            os.lseek(source, 0, os.SEEK_SET)
            assert moved(move, source) == b"%d\n" % limit
            assert os.pread(source, 4096, 0) == b"%d\n" % limit
    finally:
        os.close(source)


@pytest.mark.parametrize("move", [by_sendfile, by_splice])
def test_a_newly_opened_file_shows_the_latest_charge_in_the_region(
    group: GroupFiles, move: Callable[[int, int], None]
) -> None:
    with fsmount.attach(group.path) as attached:
        held = 0
        for usage in (7, 123_456_789_012, 10, 5_000_000, 0, 99):
            attached["memory"].charge(usage - held) if usage > held else attached["memory"].uncharge(held - usage)
            held = usage
            source = os.open(group.file("usage"), os.O_RDONLY)
            try:
                assert moved(move, source) == b"%d\n" % usage
            finally:
                os.close(source)
        attached["memory"].uncharge(held)


def test_an_open_file_soon_shows_a_charge_in_the_region(group: GroupFiles) -> None:
    source = os.open(group.file("usage"), os.O_RDONLY)

    def text() -> bytes:
        os.lseek(source, 0, os.SEEK_SET)
        found = moved(by_sendfile, source)
        assert found in (before, after), found
        return found

    try:
        with fsmount.attach(group.path) as attached:
            before = after = b"0\n"
            text()
            for amount in (5, 1_234_567_890_123, -1_234_567_890_128):
                before, after = after, b"%d\n" % (int(after) + amount)
                attached["memory"].charge(amount) if amount > 0 else attached["memory"].uncharge(-amount)
                eventually(lambda wanted=after: text() == wanted)  # type: ignore[misc]
    finally:
        os.close(source)


def test_a_copy_right_after_an_echo_has_its_text(group: GroupFiles) -> None:
    path = group.file("limit")
    script = 'echo "$2" >"$1"; busybox cat "$1"; echo "$3" >"$1"; busybox cat "$1"'
    for first, second in [("7", "123456789"), ("123456789", "7")] * 5:
        found = subprocess.run(["sh", "-c", script, "sh", path, first, second], stdout=subprocess.PIPE, check=True)
        assert found.stdout.decode().split() == [first, second]


@pytest.mark.parametrize("move", [by_sendfile, by_splice])
def test_copies_are_complete_between_writes_with_o_trunc(group: GroupFiles, move: Callable[[int, int], None]) -> None:
    for limit in [7, 123_456_789_012, 10, 5_000_000] * 10:
        group.write("limit", limit, flags=os.O_TRUNC)
        source = os.open(group.file("limit"), os.O_RDONLY)
        try:
            assert moved(move, source) == b"%d\n" % limit
        finally:
            os.close(source)


# ---- at the same moment


def in_threads(actions: list[Callable[[], None]]) -> None:
    """Runs all actions at once; raises the first failure."""
    failures: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def copies(path: Path, expected: bytes, times: int, seen: list[bytes] | None = None) -> None:
    """Copies several times.  seen: collects the texts; without it each text is compared."""
    for _ in range(times):
        source = os.open(path, os.O_RDONLY)
        try:
            text = moved(by_sendfile, source)
            if seen is None:
                assert text == expected
            else:
                seen.append(text)
        except OSError as error:
            assert error.errno == errno.EINVAL
        finally:
            os.close(source)


def test_two_simultaneous_copies_of_a_file_are_complete_or_einval(group: GroupFiles) -> None:
    for limit in (7, 123_456_789_012, 10):
        group.set_limit(limit)
        copies(group.file("limit"), b"%d\n" % limit, 1)
        seen: list[bytes] = []
        in_threads([lambda seen=seen: copies(group.file("limit"), b"", 50, seen)] * 2)  # type: ignore[misc]
        assert_whole_but_for_few(seen, b"%d\n" % limit)


def assert_whole_but_for_few(seen: list[bytes], expected: bytes) -> None:
    """docs/programs.md: a simultaneous copy can have NULs behind the text; that is rare, and no copy is ever cut."""
    wrong = [text for text in seen if text != expected]
    assert [text for text in wrong if text.rstrip(b"\0") != expected] == []
    assert len(wrong) <= max(2, len(seen) // 50)


def test_programs_that_copy_a_file_simultaneously_get_the_whole_text(group: GroupFiles, tmp_path: Path) -> None:
    for program in ("cp", "busybox cat", "rust-coreutils cat"):
        if shutil.which(COMMANDS[program][0]) is None:
            continue
        for limit in (7, 123_456_789_012, 10):
            group.set_limit(limit)
            seen: list[bytes] = []

            def run(number: int, program: str = program, seen: list[bytes] = seen) -> None:
                for _ in range(10):
                    seen.append(by_command(COMMANDS[program])(group.file("limit"), tmp_path / f"{program} {number}"))

            in_threads([lambda number=number, run=run: run(number) for number in range(3)])  # type: ignore[misc]
            assert_whole_but_for_few(seen, b"%d\n" % limit)


@pytest.mark.parametrize("name", ["limit", "usage", "stat"])
def test_a_copy_is_complete_beside_a_loop_of_stat(group: GroupFiles, name: str) -> None:
    path = group.file(name)
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            os.stat(path)

    def copy() -> None:
        try:
            for limit in [7, 123_456_789_012, 10] * 5:
                group.set_limit(limit)
                group.charge(limit)
                copies(path, path.read_bytes(), 1)
                assert by_command(["busybox", "cat", "FROM"])(path, path.parent / "none") == path.read_bytes()
                group.uncharge(limit)
        finally:
            ended.set()

    in_threads([look, copy])


# ---- many lines


@pytest.mark.slow
def test_thousands_of_holders_are_copied_completely(copiers: Copiers, group: GroupFiles, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    leases: list[Lease] = []
    try:
        for count in (1000, 5000):
            while len(leases) < count:
                leases.append(group.lease())
                leases[-1].write("1")
            for program in PROGRAMS:
                if program not in SIZED:
                    assert outcome(program, copiers[program], group.file("holders"), tmp_path / "copy") == WHOLE
    finally:
        for lease in leases:
            lease.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
