"""The scene of the attack: the users, their trees, and the things that the attacker must not change."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsmount.cli import main

ROOT, ATTACKER, THIRD = 0, 60_101, 60_102
SHM = Path("/dev/shm")
CHECKOUT = Path(__file__).parents[2]
SECRET = "precious"

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
attacker:x:60101:60101::/nonexistent:/bin/sh
third:x:60102:60102::/nonexistent:/bin/sh
"""
_GROUP = "root:x:0:\nattacker:x:60101:\nthird:x:60102:\n"


class Scene:
    """Root makes the scene in its own mount and pid namespaces, and it vanishes with them."""

    def __init__(self) -> None:
        os.umask(0o022)
        # Copies of outside mounts would stay here after their unmount, and vanish when their directories are removed.
        subprocess.run(["umount", "--lazy", "--all", "--types", "fuse.fsmount"], capture_output=True, check=False)
        base = Path(tempfile.mkdtemp(prefix="fsmount-attack-"))
        base.chmod(0o755)
        self.base = base
        for target, options in ((SHM, "mode=1777"), (base, "mode=755")):
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target], check=True)
        self._replace("/etc/passwd", _PASSWD)
        self._replace("/etc/group", _GROUP)
        self._replace("/etc/fuse.conf", "user_allow_other\n")
        #: A directory of the attacker, and a directory that everybody may write to.
        self.theirs = self._directory("theirs", ATTACKER, 0o755)
        self.sticky = self._directory("sticky", ROOT, 0o1777)
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._directory("tmp", ROOT, 0o1777))
        os.environ["XDG_RUNTIME_DIR"] = ""
        #: The trees that must stay as they are.
        self.canaries = [self._canary("of root", ROOT), self._canary("of a third", THIRD)]
        #: Mounts of root and of the third user, and the processes that serve them.
        self.mounts = [base / "mounts of root" / "m", base / "mounts of a third" / "m"]
        self.daemons: list[int] = []
        for path, uid in zip(self.mounts, (ROOT, THIRD), strict=True):
            path.mkdir(parents=True)
            os.chown(path, uid, uid)
            self.daemons.append(self._mounted(path, uid))
        self.region = Path(json.loads((self.mount / ".fsmount").read_bytes())["region"])

    @property
    def mount(self) -> Path:
        """The mount of root that everybody may use."""
        return self.mounts[0]

    def _replace(self, path: str, text: str) -> None:
        file = self.base / path.replace("/", "-")
        file.write_text(text)
        if not os.path.exists(path):
            Path(path).touch()
        subprocess.run(["mount", "--bind", file, path], check=True)

    def _directory(self, name: str, uid: int, mode: int) -> Path:
        path = self.base / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, uid, uid)
        return path

    def _canary(self, name: str, uid: int) -> Path:
        """Files with the names that commands open; a link of the attacker may lead a command to each of them."""
        top = self._directory(f"canary {name}", uid, 0o755)
        for directory in (top, top / "m", top / "m" / "m"):
            directory.mkdir(exist_ok=True)
            for file in ("x.toml", "region", "metrics", ".fsmount", "memory.limit_in_bytes", "memory.charge"):
                (directory / file).write_text(f"{SECRET} {uid}\n")
                (directory / file).chmod(0o600)
            os.mkfifo(directory / "pipe", 0o600)
        for path in [*top.rglob("*"), top]:
            os.lchown(path, uid, uid)
        return top

    def _mounted(self, path: Path, uid: int) -> int:
        arguments = ["mount", "-f", str(path), "--watchdog", "0", "--groups", "4096", "--cells", "65536"]
        arguments += ["-o", "allow_other"]
        log = os.open(self.log_of(path), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        daemon = process_of(uid, lambda: command(arguments), output=log)
        os.close(log)
        wait_until(lambda: (path / "memory.limit_in_bytes").exists(), f"{path} is mounted")
        if uid == ROOT:
            for name in ("root's", "theirs"):
                (path / name).mkdir()
                (path / name / "memory.limit_in_bytes").write_text("1G")
            for entry in ("", *os.listdir(path / "theirs")):
                os.chown(path / "theirs" / entry, ATTACKER, ATTACKER)
        return daemon

    def log_of(self, mount: Path) -> Path:
        """The log of a mount's daemon."""
        return mount.parent / "log"

    def group_of_the_attacker(self) -> Path:
        """The group of the attacker in root's mount."""
        return self.mount / "theirs"


def command(arguments: list[str]) -> int:
    """Runs the command fsmount in this process, and returns its exit status."""
    try:
        main(arguments, prog_name="fsmount")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def process_of(uid: int, function: Callable[[], object], *, output: int | None = None) -> int:
    """Forks a process of that user, whose exit status is the result of the function; returns its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
        if uid != os.geteuid():
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.environ["HOME"] = "/nonexistent"
        os.setpgid(0, 0)
        result = function()
        status = result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait_until(condition: Callable[[], bool], what: str, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        time.sleep(0.005)


def end(pid: int) -> None:
    """Kills a process of the scene with its process group, and reaps it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
