"""A mounted tree as the tests see it: the daemon from outside, a group through its files, and open leases."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fsmount.control_files import table

UNLIMITED = 2**63 - 1
COUNTER_NAMES = ("usage", "limit", "soft_limit", "max_usage")
STAT_KEYS = (
    "usage usage_local common reserved stock holders limit soft_limit hierarchical_limit margin hierarchical_margin "
    "soft_limit_excess max_usage min_usage failcnt global batch error_bound refills drains"
).split()
# Keys that depend on the stock, so draining changes them; the other keys are the counters proper.
STOCK_KEYS = {"refills", "drains", "stock", "reserved", "global", "batch", "error_bound"}

AS_ROOT = os.geteuid() == 0


def eventually(condition: Callable[[], Any], *, within: float = 60.0, what: str = "") -> None:
    """Waits until the condition holds; the test fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what or condition}")
        time.sleep(0.002)


@contextlib.contextmanager
def fails_with(*numbers: int) -> Iterator[pytest.ExceptionInfo[OSError]]:
    """The block must raise an OSError with one of these errnos."""
    with pytest.raises(OSError) as raised:
        yield raised
    wanted = [errno.errorcode[number] for number in numbers]
    assert errno.errorcode.get(raised.value.errno or 0, raised.value.errno) in wanted, raised.value


def as_user(uid: int, action: Callable[[], Any], *, gid: int | None = None) -> Any:
    """The result of the action in a process of that user; raises its OSError."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            try:
                answer = {"value": action()}
            except OSError as error:
                answer = {"errno": error.errno, "text": str(error)}
            os.write(writer, json.dumps(answer).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the other user's process failed without an OSError"
    answer = json.loads(text)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    return answer["value"]


#: The files of a resource that are newer than the list below, whose names and modes are fixed.
_NEWER = [kind for kind in table.KINDS if kind.number > 19 and kind.scope == "resource" and not kind.hidden]


def resource_files(resource: str = "memory", unit: str = "bytes") -> dict[str, int]:
    """The files of a group for one resource, with their initial modes."""
    ending = "_in_bytes" if unit == "bytes" else ""
    return {
        f"{resource}.usage{ending}": 0o444,
        f"{resource}.limit{ending}": 0o644,
        f"{resource}.soft_limit{ending}": 0o644,
        f"{resource}.max_usage{ending}": 0o644,
        f"{resource}.failcnt": 0o644,
        f"{resource}.stat": 0o444,
        f"{resource}.charge": 0o200,
        f"{resource}.uncharge": 0o200,
        f"{resource}.force_empty": 0o200,
        f"{resource}.lease": 0o600,
        f"{resource}.holders": 0o444,
        f"{resource}.events": 0o444,
        f"{resource}.threshold": 0o644,
        f"{resource}.why": 0o444,
        f"{resource}.probe": 0o666,
        **{kind.file_name(resource, unit): kind.mode for kind in _NEWER},
    }


#: The files of a group for all resources, with their initial modes.
GROUP_FILES = {"lease": 0o600}


class HolderLine(NamedTuple):
    """A line of R.holders."""

    pid: int
    start_time: int
    held: int
    stock: int
    command: str


class Lease:
    """An open lease file."""

    def __init__(self, path: Path, flags: int = os.O_RDWR) -> None:
        self.fd = os.open(path, flags)

    def write(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        assert os.write(self.fd, data) == len(data)

    @property
    def held(self) -> int:
        text = os.pread(self.fd, 100, 0)
        assert re.fullmatch(rb"\d+\n", text), text
        return int(text)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GroupFiles:
    """A group, through its files only. Plain attributes belong to the memory counter."""

    def __init__(self, path: Path | str, units: dict[str, str] | None = None) -> None:
        self.path = Path(path)
        self.units = units or {"memory": "bytes"}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __repr__(self) -> str:
        return f"GroupFiles({str(self.path)!r})"

    def file(self, name: str, resource: str = "memory") -> Path:
        """The file of a counter: `limit` is memory.limit_in_bytes, or tokens.limit."""
        ending = "_in_bytes" if name in COUNTER_NAMES and self.units[resource] == "bytes" else ""
        return self.path / f"{resource}.{name}{ending}"

    def read(self, name: str, resource: str = "memory") -> str:
        return self.file(name, resource).read_text()

    def number(self, name: str, resource: str = "memory") -> int:
        text = self.read(name, resource)
        assert re.fullmatch(r"\d+\n", text), text
        return int(text)

    def write(self, name: str, value: str | bytes | int, resource: str = "memory", flags: int = 0) -> None:
        """Writes the value with one write(), which must take all of it."""
        data = value if isinstance(value, bytes) else str(value).encode()
        fd = os.open(self.file(name, resource), os.O_WRONLY | flags)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    @property
    def usage(self) -> int:
        return self.number("usage")

    @property
    def limit(self) -> int:
        return self.number("limit")

    @property
    def soft_limit(self) -> int:
        return self.number("soft_limit")

    @property
    def max_usage(self) -> int:
        return self.number("max_usage")

    @property
    def failcnt(self) -> int:
        return self.number("failcnt")

    def set_limit(self, value: int | str, resource: str = "memory") -> None:
        self.write("limit", value, resource)

    def charge(self, amount: int | str, resource: str = "memory") -> None:
        """Charges the group itself."""
        self.write("charge", amount, resource)

    def uncharge(self, amount: int | str, resource: str = "memory") -> None:
        self.write("uncharge", amount, resource)

    def lease(self, resource: str = "memory", flags: int = os.O_RDWR) -> Lease:
        return Lease(self.file("lease", resource), flags)

    def stat(self, resource: str = "memory") -> dict[str, int]:
        lines = self.read("stat", resource).splitlines()
        return {key: int(value) for key, value in (line.split(" ") for line in lines)}

    def counters(self, resource: str = "memory") -> dict[str, int]:
        """The stat of the counter, without the keys that depend on the stock."""
        return {key: value for key, value in self.stat(resource).items() if key not in STOCK_KEYS}

    def tree_counters(self) -> dict[tuple[str, str], dict[str, int]]:
        """The counters of this group and of all groups below."""
        return {
            (str(group.path.relative_to(self.path)), resource): group.counters(resource)
            for group in self.walk()
            for resource in self.units
        }

    def holders(self, resource: str = "memory") -> list[HolderLine]:
        lines = (line.split(" ", 4) for line in self.read("holders", resource).splitlines())
        return [HolderLine(int(p), int(s), int(h), int(k), command) for p, s, h, k, command in lines]

    def mkdir(self, name: str, mode: int = 0o777) -> GroupFiles:
        os.mkdir(self.path / name, mode)
        return self.child(name)

    def child(self, name: str) -> GroupFiles:
        return GroupFiles(self.path / name, self.units)

    def children(self) -> list[GroupFiles]:
        with os.scandir(self.path) as entries:
            return [self.child(entry.name) for entry in entries if entry.is_dir()]

    def walk(self) -> list[GroupFiles]:
        """This group and all groups below, children before parents."""
        return [group for child in self.children() for group in child.walk()] + [self]

    def empty(self, resource: str = "memory") -> bool:
        return self.number("usage", resource) == 0

    def remove(self) -> None:
        """Removes the group and all groups below, after all holders have released their charges."""
        for group in self.walk():
            for resource in self.units:
                group.write("force_empty", "1", resource)
            eventually(lambda group=group: removed(group.path), what=f"rmdir {group.path}")  # type: ignore[misc]


def removed(path: Path) -> bool:
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class Mount:
    """
    A tree mounted by `fsmount mount` with the daemon in the foreground, so that a test sees its log and its exit
    status. At the end the log may contain only lines that the test expects.
    """

    def __init__(self, *options: str) -> None:
        self.options = options
        # pytest's own directories are closed to other users, who need access in some tests.
        self.directory = Path(tempfile.mkdtemp(prefix="fsmount-test-"))
        self.directory.chmod(0o755)
        self.path = self.directory / "tree"
        self.path.mkdir()
        self.log = self.directory / "log"
        self.log.touch()
        self.expected_log: list[str] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self.region: Path | None = None

    @property
    def units(self) -> dict[str, str]:
        given = [value for option, value in zip(self.options, self.options[1:], strict=False) if option == "--resource"]
        parts = (resource.partition(":") for resource in given or ["memory"])
        return {name: unit or "bytes" for name, _, unit in parts}

    @property
    def root(self) -> GroupFiles:
        return GroupFiles(self.path, self.units)

    def start(self, *options: str, under: Sequence[str] = ()) -> None:
        """Mounts, optionally under another command, and waits for the files."""
        command = [*under, sys.executable, "-m", "fsmount", "mount", str(self.path), "-f", *self.options, *options]
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(lambda: self.ended or self.answers(), what=f"mounted: {command}")
        assert not self.ended, f"{command}: exit status {self.daemon.returncode}: {self.log.read_text()}"
        self.region = Path(json.loads((self.path / ".fsmount").read_bytes())["region"])

    def answers(self) -> bool:
        """Whether the files are there. A stat() proves nothing: the kernel caches the answers of a dead daemon."""
        try:
            self.root.read("usage", next(iter(self.units)))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTCONN):
                raise
            return False
        return True

    def requests(self) -> int:
        """The number of requests that the daemon has served."""
        found = re.search(rb"^fsmount_requests_total (\d+)", (self.path / "metrics").read_bytes(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    @property
    def ended(self) -> bool:
        return self.daemon is None or self.daemon.poll() is not None

    def unexpected_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not any(re.search(text, line) for text in self.expected_log))

    def check(self) -> None:
        """Checks that the daemon lives and has logged nothing unexpected."""
        assert not self.unexpected_log(), f"the daemon of {self.path} logged:\n{self.unexpected_log()}"
        assert not self.ended, f"the daemon of {self.path} ended: {self.daemon and self.daemon.returncode}"
        assert self.path.is_dir()

    def umount(self, *options: str) -> None:
        """Unmounts with `fsmount umount`; the command and the daemon must both succeed."""
        command = [sys.executable, "-m", "fsmount", "umount", "--quiet", str(self.path), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert self.daemon is not None
        assert self.daemon.wait(60) == 0, f"the daemon's exit status: {self.daemon.returncode}"
        assert not os.path.ismount(self.path)
        assert not self.unexpected_log(), f"the daemon of {self.path} logged:\n{self.unexpected_log()}"
        self.daemon = None

    @contextlib.contextmanager
    def without_region(self) -> Iterator[None]:
        """In the block no new process finds the region, as inside a container."""
        assert self.region is not None
        aside = self.region.with_suffix(".aside")
        self.region.rename(aside)
        try:
            yield
        finally:
            aside.rename(self.region)

    def kill(self) -> None:
        """Kills the daemon; the mount point is stale afterwards."""
        assert self.daemon is not None
        os.kill(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()
        self.daemon = None

    def destroy(self) -> None:
        """Removes everything, after any failure."""
        if self.daemon is not None and not self.ended:
            self.daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(5)
        if not self.ended:
            self.kill()
        unmount = ["umount", "-l"] if AS_ROOT else ["fusermount3", "-uz"]
        subprocess.run([*unmount, str(self.path)], capture_output=True, check=False)
        if self.region is not None:
            self.region.unlink(missing_ok=True)
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def mounted(*options: str) -> Iterator[Mount]:
    """A mount for the block; the unmount afterwards must succeed."""
    mount = Mount(*options)
    try:
        mount.start()
        yield mount
        if mount.daemon is not None:
            mount.check()
            mount.umount()
            assert mount.region is None or not mount.region.exists(), "the region is left behind"
    finally:
        mount.destroy()


def poll_events(fd: int, mask: int = select.POLLIN | select.POLLOUT | select.POLLPRI) -> int:
    """The events that poll() reports at once."""
    poll = select.poll()
    poll.register(fd, mask)
    events = poll.poll(0)
    return events[0][1] if events else 0
