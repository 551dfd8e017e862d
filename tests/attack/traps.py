"""The traps of the attacker: mounts, false regions, links, pipes, and names that other users need."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import trio

from fsmount.filesystem import pyfuse3
from tests.attack.scene import SHM, Scene, command, process_of

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)

#: Names of directories that break a parser which trusts them.
HOSTILE_NAMES = [
    b"a\rb",
    b"a\vb",
    b"a\x1cb",
    b"a\x85b",
    b"a\nb c\\d",
    b"\xff\xfe",
    b"%s\x1b[31m",
    b"a\r24\v1\v0:99\v/\v/etc\vrw\v-\vfuse.fsmount\vx\vrw,user_id=60101",
    b"a - fuse.fsmount b",
    b"n" * 255,
]


def exchange(one: Path, other: Path) -> None:
    """Exchanges two names in one step."""
    if _libc.renameat2(_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(other), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one)


# ---- a file system with false answers


class FalseTree(pyfuse3.Operations):
    """A false mount of fsmount, in which every file has the same text."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self._text = text

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        found = pyfuse3.EntryAttributes()
        found.st_ino = pyfuse3.InodeT(inode)
        directory = inode % 2 == 1
        found.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o777 if directory else stat.S_IFREG | 0o666)
        found.st_nlink = 1
        found.st_size = 0 if directory else len(self._text)
        return found

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> pyfuse3.EntryAttributes:
        return await self.getattr(2 + 2 * (hash(name) % 1000) if b"." in name or name == b"metrics" else 3)

    async def opendir(self, inode: int, ctx: object) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, handle: int, start: int, token: object) -> None:
        return None

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        return self._text[offset : offset + size]

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        return len(data)


def serve_false_tree(path: Path, text: bytes, options: set[str]) -> None:
    pyfuse3.init(FalseTree(text), os.fsdecode(path), options)
    trio.run(pyfuse3.main)


# ---- traps on the paths of root's commands


class Traps:
    """The attacker's directory, in which root's commands work, and everything that the attacker can put there."""

    def __init__(self, scene: Scene, source: random.Random, victims: list[int]) -> None:
        self._scene = scene
        self._random = source
        self._victims = victims
        self._daemons: dict[int, Path] = {}
        #: Directories that are exchanged with the links and directories beside them; each has a mount point `m`.
        self.ways = [scene.theirs / f"way-{number}" for number in range(3)]
        self.hostile = [scene.theirs / os.fsdecode(name) for name in HOSTILE_NAMES]
        self.files = [scene.sticky / "x.toml", scene.theirs / "x.toml", *(way / "x.toml" for way in self.ways)]
        self.regions = [scene.theirs / "region", *(way / "region" for way in self.ways)]

    @property
    def mountpoints(self) -> list[Path]:
        return [*(way / "m" for way in self.ways), *self.hostile]

    def furnish(self) -> None:
        """Makes the first files and directories, as the attacker."""
        for path in [*self.ways, *self.hostile]:
            path.mkdir(parents=True, exist_ok=True)
        for way in self.ways:
            (way / "m").mkdir(exist_ok=True)
        for way in self.ways:
            for number, target in enumerate(self.targets()):
                with contextlib.suppress(FileExistsError):
                    os.symlink(target, f"{way}-link-{number}")
            os.makedirs(f"{way}-plain/m", exist_ok=True)

    def targets(self) -> list[Path]:
        """The paths of other users to which a link can lead root."""
        scene = self._scene
        return [*scene.canaries, *(mount.parent for mount in scene.mounts), scene.sticky]

    # ---- the endless work of the attacker's processes

    def swap(self) -> None:
        """Exchanges a path and back, in the time between two looks of a command of root."""
        self._do(self._random.choice([self.swap_way] * 6 + [self.swap_file] * 3 + [self.swap_mountpoint]))
        self._pause(0.004)

    def spoil(self) -> None:
        self._do(self._random.choice([self.spoil_region] * 4 + [self.take_names] * 2 + [self.swap_region_directory]))
        self._pause(0.05)

    def mount_and_unmount(self) -> None:
        path = self._random.choice([self._random.choice(self.ways) / "m", self._random.choice(self.hostile)])
        self._do(lambda: self._random.choice([self.mount, self.mount, self.mount_false])(path))
        self._pause(0.6)
        self._do(self._random.choice([self.disturb, self.disturb, lambda: self.unmount(path), self._nothing]))
        self._pause(0.1)

    def _do(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            act()

    def _pause(self, longest: float) -> None:
        time.sleep(self._random.random() * longest)

    def _nothing(self) -> None:
        """Leaves the mount as it is."""

    def swap_way(self) -> None:
        way = self._random.choice(self.ways)
        beside = [f"{way}-link-{number}" for number in range(len(self.targets()))] + [f"{way}-plain"]
        other = Path(self._random.choice(beside))
        for _ in range(self._random.choice([2, 2, 2, 20])):
            exchange(way, other)
            self._pause(0.002)

    def swap_mountpoint(self) -> None:
        way = self._random.choice(self.ways)
        link = Path(f"{way}-m")
        with contextlib.suppress(FileExistsError):
            os.symlink(self._random.choice(self.targets()) / "m", link)
        exchange(way / "m", link)
        self._pause(0.002)
        exchange(way / "m", link)

    def swap_file(self) -> None:
        """Replaces a file that root saves to, reads, or uses as a region by --region."""
        path = self._random.choice(self.files + self.regions)
        new = Path(f"{path}.new")
        target = self._random.choice(self._scene.canaries) / self._random.choice(["x.toml", "pipe", "region", "none"])
        makers: list[Callable[[], object]] = [
            lambda: os.symlink(target, new),
            lambda: os.mkfifo(new, 0o666),
            lambda: new.write_text('["/a"]\nmemory.limit = "1G"\n'),
            lambda: new.mkdir(),
            lambda: os.link(target, new),
        ]
        with contextlib.suppress(OSError):
            self._random.choice(makers)()
        with contextlib.suppress(OSError):
            exchange(path, new)
        with contextlib.suppress(OSError):
            os.rename(new, path)
        with contextlib.suppress(OSError):
            os.rmdir(new)

    def take_names(self) -> None:
        """Takes names in shared memory and of temporary files that root's commands may need."""
        uid = self._random.choice([0, os.geteuid(), 60_102])
        base = self._random.choice([SHM, Path(os.environ["TMPDIR"])])
        path = base / f"fsmount-{uid}{self._random.choice(['', '-a', '-zz'])}"
        makers: list[Callable[[], object]] = [
            lambda: path.mkdir(0o777),
            lambda: os.symlink(self._random.choice(self.targets()), path),
            lambda: os.mkfifo(path),
            lambda: path.write_text("x"),
            path.rmdir,
            path.unlink,
        ]
        self._random.choice(makers)()

    # ---- regions

    def _regions(self) -> list[Path]:
        return [*SHM.glob(f"fsmount-{os.geteuid()}*/*.region"), *(path for path in self.regions if path.is_file())]

    def spoil_region(self) -> None:
        regions = self._regions()
        if not regions:
            return
        region = self._random.choice(regions)
        spoilers = [self.name_a_victim, self.cut, self.replace_region, self.name_another_mountpoint, self.scribble]
        self._random.choice(spoilers)(region)

    def name_a_victim(self, region: Path) -> None:
        """Names a victim as the daemon in the region's header."""
        victim = self._random.choice(self._victims)
        for other in [*processes_of(os.geteuid()), *self._victims]:
            with contextlib.suppress(OSError):
                rewrite(region, numbers_of(other), numbers_of(victim))

    def name_another_mountpoint(self, region: Path) -> None:
        rewrite(region, [bytes(path) for path in self.ways], [bytes(self._scene.mount)[: len(bytes(self.ways[0]))]] * 3)

    def cut(self, region: Path) -> None:
        os.truncate(region, self._random.choice([0, 1, 100, 4096, 65536]))

    def scribble(self, region: Path) -> None:
        with region.open("r+b") as file:
            file.seek(self._random.randrange(max(region.stat().st_size, 1)) & ~7)
            file.write(self._random.randbytes(8))

    def replace_region(self, region: Path) -> None:
        canary = self._scene.canaries[0]
        targets = [self._scene.region, canary / "region", canary / "none", Path("/dev/zero")]
        new = Path(f"{region}.other")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        makers: list[Callable[[], object]] = [
            lambda: os.symlink(self._random.choice(targets), new),
            lambda: os.mkfifo(new),
            lambda: os.link(self._random.choice(targets[:2]), new),
            lambda: os.link(region, new),
        ]
        self._random.choice(makers)()
        exchange(region, new)

    def swap_region_directory(self) -> None:
        own = SHM / f"fsmount-{os.geteuid()}"
        link = SHM / f"theirs-{self._random.randrange(2)}"
        with contextlib.suppress(FileExistsError):
            os.symlink(self._random.choice([SHM / "fsmount-0", self._scene.canaries[0], SHM / "fsmount-60102"]), link)
        exchange(own, link)
        self._pause(0.01)
        exchange(own, link)

    # ---- mounts

    def mount(self, path: Path | None = None, allow_other: bool | None = None) -> int:
        """Mounts a tree of the attacker."""
        self._take_the_dead()
        if len(self._daemons) >= 5:
            return -1
        path = path or self._random.choice(self.mountpoints)
        arguments = ["mount", "-f", os.fsdecode(path), "--watchdog", "0", "--groups", "64", "--cells", "1024"]
        if allow_other or (allow_other is None and self._random.random() < 0.7):
            arguments += ["-o", "allow_other"]
        if allow_other is None and self._random.random() < 0.2:
            arguments += ["--region", os.fsdecode(self._random.choice(self.regions))]
        return self._started(path, lambda: command(arguments))

    def mount_false(self, path: Path | None = None) -> int:
        """Mounts a false tree, with the type of fsmount or another type."""
        self._take_the_dead()
        if len(self._daemons) >= 5:
            return -1
        path = path or self._random.choice(self.mountpoints)
        told = {
            "version": 1,
            "region": str(self._scene.region),
            "tree": "1",
            "group": 0,
            "server": self._random.choice(self._victims),
        }
        text = self._random.choice([json.dumps(told).encode(), b"x" * 100_000, b"", b"# EOF\n"])
        options = {f"fsname={self._random.choice(['fsmount', 'a - b', 'x'])}", "default_permissions"}
        options.add(f"subtype={self._random.choice(['fsmount', 'fsmount', 'sshfs'])}")
        if self._random.random() < 0.7:
            options.add("allow_other")
        return self._started(path, lambda: serve_false_tree(path, text, options))

    def _started(self, path: Path, serve: Callable[[], object]) -> int:
        null = os.open(os.devnull, os.O_RDWR)
        pid = process_of(os.geteuid(), serve, output=null)
        os.close(null)
        self._daemons[pid] = path
        return pid

    def _take_the_dead(self) -> None:
        for pid in list(self._daemons):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._daemons[pid]

    def disturb(self) -> None:
        """Kills a daemon, or stops it for a moment."""
        self._take_the_dead()
        if not self._daemons:
            return
        pid = self._random.choice(list(self._daemons))
        if self._random.random() < 0.2:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            os.kill(pid, signal.SIGCONT)
        else:
            os.kill(pid, signal.SIGKILL)

    def unmount(self, path: Path | None = None) -> None:
        path = path or self._random.choice(self.mountpoints)
        options = self._random.choice(["-u", "-uz"])
        subprocess.run(["fusermount3", options, "--", bytes(path)], capture_output=True, timeout=10, check=False)


def processes_of(uid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
    return found


def numbers_of(pid: int) -> list[bytes]:
    """The forms in which a region can identify a process: its start time, and its pid."""
    text = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [struct.pack("<q", int(text[19])), struct.pack("<i", pid)]


def rewrite(region: Path, old: list[bytes], new: list[bytes]) -> None:
    """Replaces values in the header of a region."""
    with region.open("r+b") as file:
        head = file.read(16384)
        changed = head
        for before, after in zip(old, new, strict=True):
            changed = changed.replace(before, after.ljust(len(before), b"\0"))
        for at in range(0, len(head), 4):  # word by word, because the daemon also writes there
            if head[at : at + 4] != changed[at : at + 4]:
                file.seek(at)
                file.write(changed[at : at + 4])


def mischief(scene: Scene, seed: int, number: int, victims: list[int]) -> None:
    """Acts as one process of the attacker until it is killed."""
    traps = Traps(scene, random.Random(seed + number), victims)
    acts = [traps.swap, traps.swap, traps.spoil, traps.mount_and_unmount, traps.mount_and_unmount]
    act = acts[number % len(acts)]
    while True:
        act()
