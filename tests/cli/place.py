"""A mount point for one test, mounted by `fsmount mount` in the background, and ways to run the command."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsmount.admin import region_path
from fsmount.cli import main
from tests.mounts import AS_ROOT, GroupFiles, eventually
from tests.process_state import state

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command fsmount in a process of its own, for at most a minute."""
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


@contextlib.contextmanager
def without_log_handlers() -> Iterator[None]:
    """Hides pytest's handlers, whose files a daemon closes at its start."""
    handlers, logging.root.handlers = logging.root.handlers, []
    try:
        yield
    finally:
        logging.root.handlers = handlers


def run_here(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, which takes a tenth of the time.

    Its children, such as the daemon of a mount, are forks of this process.
    """
    words = list(map(str, arguments))
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in range(2))
    with (
        contextlib.chdir(cwd) if cwd else contextlib.nullcontext(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        without_log_handlers(),
        pytest.raises(SystemExit) as end,
    ):
        main(words, prog_name="fsmount")
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(words, end.value.code, *(text_of(stream) for stream in (out, err)))


def text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def refused(done: subprocess.CompletedProcess[str], subject: object) -> str:
    """The error that the command prints, without its beginning; the error must be one line about the subject."""
    assert (done.returncode, done.stdout) == (1, ""), done
    start = f"fsmount: {subject}: "
    assert done.stderr.startswith(start) and done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    return done.stderr[len(start) : -1]


@contextlib.contextmanager
def untouched(file: Path) -> Iterator[Path]:
    """Makes a file that only its owner may read; the file must be the same after the block."""

    def look() -> tuple[object, ...]:
        status = file.stat()
        return status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, file.read_text()

    file.write_text("precious")
    file.chmod(0o600)
    before = look()
    yield file
    assert look() == before


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or is a zombie that waits for its parent."""
    try:
        return state(pid) in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Place:
    """A directory to mount on. destroy() removes everything, after any failure."""

    def __init__(self, name: str = "tree") -> None:
        # pytest's own directories are closed to other users, and fusermount3 must see the mount point.
        self.directory = Path(tempfile.mkdtemp(prefix="fsmount-test-"))
        self.directory.chmod(0o755)
        self.path = self.directory / name
        self.path.mkdir()
        self.daemons: set[int] = set()

    @property
    def root(self) -> GroupFiles:
        return GroupFiles(self.path)

    def mount(self, *options: object, run: Run = run_here) -> None:
        done = run("mount", self.path, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        self.daemons.add(self.daemon)

    def umount(self, *options: object, run: Run = run_here) -> None:
        done = run("umount", "--quiet", self.path, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done

    def facts(self) -> dict[str, object]:
        """The content of .fsmount: the daemon and the region of the mount."""
        answer: dict[str, object] = json.loads((self.path / ".fsmount").read_bytes())
        return answer

    @property
    def daemon(self) -> int:
        pid = self.facts()["server"]
        assert isinstance(pid, int)
        return pid

    @property
    def processes(self) -> list[int]:
        """The live processes with the mount point in their command line: daemons, commands, fusermount3."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if os.fsencode(self.path) in words and not has_ended(pid):
                    found.append(pid)
        return found

    @property
    def region(self) -> Path | None:
        """The file of the counters, mounted or not."""
        path = region_path.find(str(self.path))
        return None if path is None else Path(path)

    @property
    def mounts(self) -> list[list[str]]:
        """The fields of /proc/self/mounts for each mount here; mounts of other users may have any name."""
        lines = os.fsdecode(Path("/proc/self/mounts").read_bytes()).split("\n")
        return [fields for line in lines if (fields := line.split(" "))[1:2] == [str(self.path)]]

    def signal(self, number: signal.Signals) -> int:
        """Sends the signal to the daemon, and waits until the daemon has ended."""
        pid = self.daemon
        os.kill(pid, number)
        eventually(lambda: has_ended(pid), what=f"the end of the daemon by {number.name}")
        return pid

    def destroy(self) -> None:
        for pid in self.daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: has_ended(pid))  # type: ignore[misc]
        while self.mounts:
            unmount = ["umount", "-l"] if AS_ROOT else ["fusermount3", "-uz"]
            subprocess.run([*unmount, str(self.path)], check=True)
        if self.region is not None:
            self.region.unlink()
        region_path.forget(str(self.path))
        shutil.rmtree(self.directory)
