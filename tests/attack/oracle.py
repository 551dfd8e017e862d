"""The oracle of an attack compares everything that does not belong to the attacker, before and after."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.attack.scene import ROOT, SHM, THIRD, Scene, process_of


class Victim:
    """A process that writes down each signal that it gets."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self._heard, pen = os.pipe()
        signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

        def listen() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            os.write(pen, b"+")
            while True:
                got = signal.sigwaitinfo(signals)
                os.write(pen, b" %d from process %d of user %d" % (got.si_signo, got.si_pid, got.si_uid))

        self.pid = process_of(uid, listen)
        os.close(pen)
        assert os.read(self._heard, 1) == b"+"

    def differences(self) -> Iterator[str]:
        who = f"the victim of user {self.uid} (pid {self.pid})"
        while select.select([self._heard], [], [], 0)[0] and (text := os.read(self._heard, 4096)):
            yield f"{who} got signal{text.decode()}"
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid:
            yield f"{who} ended or was stopped: {os.WTERMSIG(status) if os.WIFSIGNALED(status) else status}"


class Oracle:
    """Compares the scene with its state at the time when the oracle was made."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.victims = [Victim(ROOT), Victim(THIRD)]
        self._before = self._state()
        self._logged: dict[Path, int] = {}

    def differences(self) -> list[str]:
        """One line for each change since then."""
        found = [line for victim in self.victims for line in victim.differences()]
        for pid in self._scene.daemons:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
                if ended:
                    found.append(f"a daemon (pid {pid}) ended or was stopped, with wait status {status}")
        for mount in self._scene.mounts:
            log = self._scene.log_of(mount).read_text(errors="replace")
            if new := log[self._logged.get(mount, 0) :]:
                self._logged[mount] = len(log)
                found.append(f"the daemon of {mount} logged: {new}")
        now = self._state()
        for name in sorted(self._before.keys() | now.keys()):
            before, after = self._before.get(name), now.get(name)
            if before != after:
                found.append(f"{name!r} was {before} and is {after}")
        return found

    def learn(self) -> None:
        """Takes the present state as the new base, so that each difference is reported once."""
        self._before = self._state()

    def _state(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for top in self._scene.canaries:
            for path in [top, *top.rglob("*")]:
                found[str(path)] = _looks(path)
        found |= self._shared_memory() | self._mounts()
        for path in self._scene.mounts:
            try:
                found[f"groups of {path}"] = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
            except OSError as error:
                found[f"groups of {path}"] = str(error)
        return found

    def _shared_memory(self) -> dict[str, object]:
        """The files of root and of the third user in shared memory, without regions that root's commands have added."""
        found: dict[str, object] = {}
        for path in SHM.glob("*"):
            status = path.lstat()
            if status.st_uid == THIRD or path.name == "fsmount-0":
                found[str(path)] = _identity(status)
            if status.st_uid == THIRD:
                found |= {str(file): _identity(file.lstat()) for file in path.glob("*")}
        before = getattr(self, "_before", None)
        for file in SHM.glob("fsmount-0/*"):
            if before is None or str(file) in before:
                with contextlib.suppress(FileNotFoundError):
                    found[str(file)] = _identity(file.lstat())
        return found

    def _mounts(self) -> dict[str, object]:
        """The mount table without the mounts below the attacker's directories."""
        found: dict[str, object] = {}
        for fields in mount_table():
            path = fields[4]
            if not any(is_below(path, os.fsencode(top)) for top in (self._scene.theirs, self._scene.sticky)):
                found[f"mount {fields[0].decode()}"] = (os.fsdecode(path), fields[2].decode())
        return found


def mount_table() -> list[list[bytes]]:
    """The fields of each line of mountinfo."""
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    return [line.split(b" ") for line in lines if line]


def is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_nlink


def _looks(path: Path) -> tuple[object, ...]:
    """The attributes and content of a path, or its OSError: another mount may hide the path."""
    try:
        return _looks_now(path)
    except OSError as error:
        return (str(error),)


def _looks_now(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = b""
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
    times = () if stat.S_ISFIFO(status.st_mode) else (status.st_size, status.st_mtime_ns)
    return *_identity(status), *times, hashlib.sha256(content).hexdigest()[:12]
