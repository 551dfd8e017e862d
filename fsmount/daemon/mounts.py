"""What is mounted where, whether somebody serves it, and how to unmount it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from fsmount import region_path
from fsmount.daemon.refused import Refused
from fsmount.errors import says_daemon_is_lost
from fsmount.tree import Server, Tree

FILE_SYSTEM_TYPE = "fuse.fsmount"

# A live daemon answers in well under a millisecond; one that was stopped never does.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Mount:
    path: str
    type: str
    uid: int  # whose daemon serves it
    device: str

    @property
    def ours(self) -> bool:
        """Whether this is one of fsmount's, no matter who mounted it."""
        return self.type == FILE_SYSTEM_TYPE


def mount_at(path: str) -> Mount | None:
    """The mount whose root is at this real path (the topmost one), without touching it."""
    found = None
    for mount in _mounts():
        if mount.path == path:
            found = mount
    return found


def is_over_another(mount: Mount) -> bool:
    """Whether it is mounted over another one of fsmount's, at the same path."""
    found = [other for other in _mounts() if other.path == mount.path and other.ours]
    return len(found) > 1 and found[-1] == mount


def mounts_of(uid: int) -> list[str]:
    """Where a user has mounted fsmount."""
    return sorted({mount.path for mount in _mounts() if mount.ours and mount.uid == uid})


def _mounts() -> Iterator[Mount]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split()
            separator = fields.index("-", 6)
            owner = re.search(r"(?:^|,)user_id=(\d+)", fields[separator + 3])
            yield Mount(_decode(fields[4]), fields[separator + 1], int(owner[1]) if owner else 0, fields[2])


def _decode(text: str) -> str:
    """Undoes the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def served(mount: Mount) -> bool:
    """Whether a daemon answers for the mount.  Refused if there is one that does not answer.

    Only a question that the kernel cannot answer from its caches tells.  It is asked in a thread,
    for it cannot be taken back while a stopped daemon has it.
    """
    answer: list[OSError | None] = []

    def ask() -> None:
        try:
            os.statvfs(mount.path)
            answer.append(None)
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not answer:
        server = server_of(region_path.find(mount.path, mount.uid))
        who = f"its daemon (pid {server.pid})" if server else "its daemon"
        raise Refused(f"{who} does not answer: end it with kill -9 and mount again")
    error = answer[0]
    return error is None or not says_daemon_is_lost(error)


def server_of(region: str | None) -> Server | None:
    """Who serves a region, or served it last; None if that cannot be told."""
    if region is None:
        return None
    try:
        with Tree.open(region) as tree:
            return tree.server
    except OSError:
        return None


def unmount(mount: Mount, *, lazy: bool = False) -> None:
    """Unmounts; Refused if it cannot be.  Lazy: at once, also with files open in it."""
    if os.geteuid() == 0:
        command = ["umount", "-l"] if lazy else ["umount"]
    elif shutil.which("fusermount3"):
        command = ["fusermount3", "-uz"] if lazy else ["fusermount3", "-u"]
    else:
        raise Refused("fusermount3 is missing: install fuse3, or ask root to unmount")
    done = subprocess.run(
        [*command, "--", mount.path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode == 0 or mount_at(mount.path) is None:
        return
    said = plain_words(done.stderr) or f"{command[0]} failed with status {done.returncode}"
    if "busy" in said:
        raise Refused(f"busy: {_who_uses(mount)}")
    if os.geteuid() != 0 and mount.uid != os.geteuid():
        raise Refused(f"mounted by user {mount.uid}: unmount it as that user or as root")
    raise Refused(f"cannot be unmounted: {said}")


def plain_words(stderr: str) -> str:
    """What a program said on stderr as one line, without its name in front."""
    lines = (re.sub(r"^\S+: ", "", line.strip()) for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)


def _who_uses(mount: Mount) -> str:
    """Names what keeps the mount busy, as far as we may see it."""
    below = mount.path.rstrip("/") + "/"
    inner = [other.path for other in _mounts() if other.path.startswith(below)]
    if inner:
        return f"{inner[-1]} is mounted in it; unmount that first"
    users = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid != os.getpid() and (use := _use(pid, mount.path, below)):
            users.append(f"{command_of(pid)} (pid {pid}) {use}")
    if not users:
        return "some process has a file or its current directory there; end it or let it leave"
    more = f" and {len(users) - 5} more" if len(users) > 5 else ""
    return f"{', '.join(users[:5])}{more}; end them or let them leave"


def _use(pid: int, root: str, below: str) -> str | None:
    def inside(link: str) -> bool:
        try:
            target = os.readlink(f"/proc/{pid}/{link}")
        except OSError:
            return False
        return target == root or target.startswith(below)

    if inside("cwd"):
        return "has its current directory there"
    if inside("root"):
        return "has its root directory there"
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None
    if any(inside(f"fd/{number}") for number in descriptors):
        return "has a file open there"
    return "is attached to it" if any(path == root or path.startswith(below) for path in _mapped(pid)) else None


def _mapped(pid: int) -> Iterator[str]:
    """The files that a process has in its memory, a holder's control file among them."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines,
    ):
        for line in lines:
            if len(fields := line.rstrip("\n").split(None, 5)) == 6:
                yield _decode(fields[5])


def command_of(pid: int) -> str:
    """The command of a process as ps shows it; "?" if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n") or "?"
    except OSError:
        return "?"
