"""
Random operations of several users in one tree, valid and invalid: each answer must agree with a model of the tree.

The order of the operations is known, so the model runs ahead: it makes a list of operations for one user while
another user's process is still at work. After some thousand operations the test compares the whole visible state.

On a disagreement the test prints its seed, the operation and the operations before it; FSMOUNT_SEED repeats the run.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import random
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fsmount.shm import Group, Tree
from tests.filesystem.model import CHANNEL_FILE, PLAIN_FILES, WHOLE, Directory, Expected, File, Model, User, is_control
from tests.filesystem.texts import Refused, random_text
from tests.filesystem.user_process import Failed, Operation, UserProcess
from tests.footprint import Footprint, leaves_nothing
from tests.mounts import AS_ROOT, Mount, eventually, mounted

pytestmark = pytest.mark.timeout(3600)

UNITS = {"memory": "bytes", "tokens": "count"}
GROUPS, CELLS = 40, 24
COMMON_GROUP, STRANGERS_GROUP = 60_200, 60_300
# The owner of the mount, and two users that need no account; they share one group.
OWNER = User(os.geteuid(), os.getegid(), frozenset({*os.getgroups(), os.getegid()}))
ALICE = User(60_101, 60_101, frozenset({60_101, COMMON_GROUP}), umask=0o002)
BOB = User(60_102, 60_102, frozenset({60_102, COMMON_GROUP}), umask=0o077)
USERS = [OWNER, ALICE, BOB] if AS_ROOT else [OWNER]

# Errors that no operation may return under any concurrent operations.
NO_USERS_DOING = {errno.EIO, errno.ENOTCONN, errno.EUCLEAN, errno.ETIMEDOUT, errno.EAGAIN, errno.ESTALE}

# Most random operations of a user are denied, which proves the same again and again.
DENIED_LEFT_OUT = 0.8

LIST = 100  # operations of one user at a time
SLOTS = 16
NAMES = [b"a", b"b", b"c", b"d e", b"\xff\xfe", b"x" * 255]
BAD_NAMES = [b".", b"a\nb", b"x" * 256, b"x" * 1000, b"memory.events", b"memory.stat", CHANNEL_FILE, b"tokens.usage"]
DIRECTORY_MODES = [0o777, 0o755, 0o755, 0o775, 0o700, 0o1777, 0o1775, 0o2775, 0o711, 0o500, 0o733, 0o000, 0o050, 0o307]
FILE_MODES = [0o666, 0o644, 0o644, 0o664, 0o600, 0o444, 0o000, 0o060, 0o006, 0o222, 0o755]
FLAGS = [0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_NONBLOCK]
CONTROL_TEXTS = [b"holder", b"holder -1", b"holder 1 2", b"changed x", b"x", b"umounts", b"\xff\0", b"changed \n"]


class Generator:
    """Makes random operations from the state of the model, most of which can succeed."""

    def __init__(self, rng: random.Random, model: Model) -> None:
        self.rng, self.model = rng, model
        self.kinds: dict[Callable[[int], Operation], int] = {
            self.echo: 22,
            self.cat: 14,
            self.open: 8,
            self.close: 6,
            self.write: 12,
            self.read: 6,
            self.of_descriptor: 4,
            self.mkdir: 5,
            self.rmdir: 4,
            self.rename: 3,
            self.chmod: 5,
            self.chown: 5,
            self.stat: 6,
            self.attribute: 5,
            self.impossible: 4,
        }

    def next(self, actor: int) -> Operation:
        (kind,) = self.rng.choices(list(self.kinds), list(self.kinds.values()))
        return kind(actor)

    # ---- operands

    def directory(self) -> Directory:
        return self.rng.choice(self.model.directories)

    def file(self) -> File:
        return self.rng.choice(list(self.directory().files.values()))

    def below(self, directory: Directory, name: bytes) -> bytes:
        return directory.path + b"/" + name if directory.path else name

    def new_name(self) -> bytes:
        names = BAD_NAMES if self.rng.random() < 0.1 else NAMES
        return self.rng.choice(names)

    def new_path(self) -> bytes:
        return self.below(self.directory(), self.new_name())

    def file_path(self) -> bytes:
        if self.rng.random() < 0.02:
            return self.odd_path()
        directory = self.directory()
        if self.rng.random() < 0.04:
            return self.below(directory, CHANNEL_FILE)
        return self.below(directory, self.rng.choice(list(directory.files)))

    def odd_path(self) -> bytes:
        """A path through a missing name, through a file, or through `..`."""
        name = self.rng.choice([*NAMES, *BAD_NAMES])
        through = self.rng.choice([b"nowhere", b"memory.stat", b"a", b"a/..", b".", b"a/.", b"x" * 256, b"y/" * 2500])
        return self.below(self.directory(), through + b"/" + name)

    def any_path(self) -> bytes:
        pick = self.rng.random()
        if pick < 0.45:
            return self.directory().path
        return self.file_path() if pick < 0.9 else self.new_path()

    def slot(self, actor: int) -> int | None:
        slots = self.model.descriptors[actor]
        return self.rng.choice(list(slots)) if slots else None

    def free_slot(self, actor: int) -> int | None:
        free = set(range(SLOTS)) - self.model.descriptors[actor].keys()
        return min(free) if free else None

    def text(self, file: File | None) -> bytes:
        """A text to write: mostly near the current value."""
        if file is not None and is_control(file):
            return self.rng.choice(CONTROL_TEXTS)
        if self.rng.random() < 0.001:
            return b"1" * 300_000  # several requests, if the first one did not fail
        if self.rng.random() < 0.25:
            text = random_text(self.rng)
            # no command may end the mount
            return text if b"umount" not in text else b"1"
        if self.rng.random() < 0.15:
            return self.rng.choice((b"max", b"-1", b"0\n", b"1P", b"8E", b"0x7fffffffffffffff"))
        amount = b"%d\n" % self.rng.choice((0, 1, 7, 100, 1000, 4096, self.rng.randrange(20_000)))
        if file is not None and file.kind == "lease" and not file.resource and self.rng.random() < 0.8:
            return self.multi_lease(amount.strip())
        if file is not None and file.kind == "lease" and self.rng.random() < 0.7:
            words = (b"+", b"+", b"-", b"give ", b"take ", b"nofail ", b"give\t ")
            return self.rng.choice((b"keep", b"release", *(word + amount for word in words)))
        return amount

    def multi_lease(self, amount: bytes) -> bytes:
        """A request for one or several resources, sometimes unknown or repeated."""
        word = self.rng.choice((b"", b"", b"", b"", b"give ", b"take ", b"nofail ", b"keep ", b"give"))
        signs = (b"", b"", b"+", b"-") if not word else (b"",)
        names = self.rng.choices((b"memory", b"tokens", b"disk"), (12, 12, 1), k=self.rng.randrange(1, 4))
        return word + b" ".join(b"%s=%s%s" % (name, self.rng.choice(signs), amount) for name in names)

    def found(self, path: bytes) -> File | None:
        directory, _, name = path.rpartition(b"/")
        for known in self.model.directories:
            if known.path == directory:
                node = known.find(name)
                return node if isinstance(node, File) else None
        return None

    # ---- the operations

    def cat(self, actor: int) -> Operation:
        return "cat", self.file_path()

    def echo(self, actor: int) -> Operation:
        path = self.file_path()
        return "echo", path, self.text(self.found(path)), self.rng.choice(FLAGS)

    def open(self, actor: int) -> Operation:
        slot = self.free_slot(actor)
        path = self.file_path()
        if slot is None or self.found(path) is None:
            return self.stat(actor)
        if self.rng.random() < 0.4:
            path = path.rpartition(b"/")[0]
            path += (b"/" if path else b"") + self.rng.choice((b"memory.lease", b"lease"))
        mode = self.rng.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
        return "open", slot, path, mode | self.rng.choice(FLAGS)

    def close(self, actor: int) -> Operation:
        slot = self.slot(actor)
        return self.open(actor) if slot is None else ("close", slot)

    def write(self, actor: int) -> Operation:
        slot = self.slot(actor)
        if slot is None:
            return self.echo(actor)
        offset = self.rng.choice((0, 0, 0, self.rng.randrange(5000), 1 << 40))
        return "pwrite", slot, self.text(self.model.descriptors[actor][slot].file), offset

    def read(self, actor: int) -> Operation:
        slot = self.slot(actor)
        if slot is None:
            return self.cat(actor)
        opened = self.model.descriptors[actor][slot]
        # a text that the model does not know exactly is read in one piece
        whole = opened.file.kind not in (
            *PLAIN_FILES,
            "lease",
        )
        if whole or self.rng.random() < 0.5:
            return "pread", slot, WHOLE, 0
        if opened.flags & os.O_ACCMODE == os.O_RDONLY and self.rng.random() < 0.7:
            return "read", slot, self.rng.choice((1, 2, 5, 100))
        return "pread", slot, self.rng.choice((1, 3, 100)), self.rng.choice((0, 1, 2, 50))

    def of_descriptor(self, actor: int) -> Operation:
        slot = self.slot(actor)
        if slot is None:
            return self.open(actor)
        into = self.free_slot(actor)
        pick = self.rng.random()
        if pick < 0.4 and into is not None:
            return "dup", slot, into
        file = self.model.descriptors[actor][slot].file
        # a refused lease that is polled enters the queue, and is granted when others make room
        if (pick < 0.6 and getattr(file, "kind", None) != "lease") or is_control(file):
            return "poll", slot
        match self.rng.randrange(4):
            case 0:
                return "fchmod", slot, self.rng.choice(FILE_MODES)
            case 1:
                return "fchown", slot, *self.owners()
            case 2 if not file.directory.removed:  # or the kernel may show old attributes
                return "fstat", slot
        return "ftruncate", slot, self.rng.choice((0, 1, 4096))

    def mkdir(self, actor: int) -> Operation:
        path = self.odd_path() if self.rng.random() < 0.05 else self.new_path()
        return "mkdir", path, self.rng.choice((0o777, 0o777, 0o755, 0o700, 0o1777, 0o2770))

    def rmdir(self, actor: int) -> Operation:
        path = self.new_path() if self.rng.random() < 0.2 else self.directory().path
        return "rmdir", path or self.file_path()

    def rename(self, actor: int) -> Operation:
        old = self.directory().path if self.rng.random() < 0.8 else self.any_path()
        above = old.rpartition(b"/")[0]
        name = self.new_name()
        beside = above + b"/" + name if above else name
        return "rename", old or b"a", beside if self.rng.random() < 0.7 else self.any_path() or b"a"

    def chmod(self, actor: int) -> Operation:
        if self.rng.random() < 0.5:
            return "chmod", self.directory().path, self.rng.choice(DIRECTORY_MODES)
        return "chmod", self.file_path(), self.rng.choice(FILE_MODES)

    def owners(self) -> tuple[int, int]:
        users = [user.uid for user in self.model.users]
        groups = [*(user.gid for user in self.model.users), COMMON_GROUP, STRANGERS_GROUP]
        uid = self.rng.choice((-1, *users))
        return uid, self.rng.choice(groups if uid == -1 else [-1, *groups])

    def chown(self, actor: int) -> Operation:
        return "chown", self.any_path(), *self.owners()

    def stat(self, actor: int) -> Operation:
        return self.rng.choice(("stat", "stat", "listdir")), self.any_path()

    def attribute(self, actor: int) -> Operation:
        path = self.any_path()
        match self.rng.randrange(6):
            case 0:
                return "access", path, self.rng.choice((os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK))
            case 1 if not path.endswith(CHANNEL_FILE):  # the kernel remembers the owner from its last look
                time = self.rng.randrange(10**18)
                return "utime", path, self.rng.choice((None, (time, time + 1)))
            case 2:
                return "truncate", path, self.rng.choice((0, 1, 1 << 30))
            case 3:
                return "statfs", path
            case 4:
                return "listxattr", path
        return self.rng.choice(("getxattr", "setxattr")), path

    def impossible(self, actor: int) -> Operation:
        path = self.any_path() or b"new"
        match self.rng.randrange(4):
            case 0:
                return "unlink", path
            case 1:
                return "symlink", path
            case 2:
                return "link", self.file_path(), path
        return "mknod", path, self.rng.choice((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR))


class Users:
    """The users' processes, their last operations, and the number of operations so far."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.processes = [UserProcess(user, str(mount.path)) for user in USERS]
        self.done = 0
        self.before: deque[str] = deque(maxlen=25)

    def __enter__(self) -> Users:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.close()

    def compare(self, actor: int, operations: list[Operation], expected: list[Any]) -> None:
        """Waits for the results of the operations, and compares them with the expected ones."""
        for operation, wanted, seen in zip(operations, expected, self.processes[actor].answers(), strict=True):
            self.done += 1
            line = f"{self.done}: user {USERS[actor].uid}: {shown(operation)} -> {shown(seen)}"
            assert agrees(wanted, seen), "\n".join(
                [*self.before, line, f"the model says {shown(wanted)}", f"the log: {self.mount.log.read_text()}"]
            )
            self.before.append(line)


def agrees(wanted: Any, seen: Any) -> bool:
    if isinstance(wanted, Refused):
        return isinstance(seen, Failed) and seen.number in wanted.numbers
    if isinstance(wanted, Expected):
        return wanted.matches(seen)
    return bool(wanted == seen)


def shown(thing: object) -> str:
    text = re.sub(r"(x{20})x{20,}", r"\1...", repr(thing))
    return text if len(text) < 300 else f"{text[:280]}... ({len(text)} characters)"


def predict(model: Model, actor: int, operation: Operation) -> Any:
    name, *arguments = operation
    try:
        return getattr(model, name)(actor, *arguments)
    except Refused as refused:
        return refused


def denied(wanted: Any) -> bool:
    return isinstance(wanted, Refused) and wanted.numbers == (errno.EACCES,)


def everything(model: Model) -> Iterator[Operation]:
    """Operations that show the whole state of the tree."""
    for directory in list(model.directories):
        yield "stat", directory.path
        yield "listdir", directory.path
        for name, file in directory.files.items():
            path = directory.path + b"/" + name if directory.path else name
            yield "stat", path
            if file.kind in (*PLAIN_FILES, "stat", "holders"):
                yield "cat", path


def closing(model: Model, actor: int) -> Iterator[Operation]:
    for slot in list(model.descriptors[actor]):
        yield "close", slot


def work(users: Users, model: Model, rng: random.Random, operations: int) -> None:
    """Does the operations; then closes all files and compares everything."""
    generator = Generator(rng, model)
    ends = users.done + operations

    def lists() -> Iterator[tuple[int, Iterator[Operation]]]:
        compared = 0
        while users.done < ends:
            actor = rng.randrange(len(USERS))
            yield actor, (generator.next(actor) for _ in range(LIST))
            if users.done - compared > 5000:
                compared = users.done
                yield 0, everything(model)
        for actor in range(len(USERS)):
            yield actor, closing(model, actor)
        yield 0, everything(model)

    pending: tuple[int, list[Operation], list[Any]] | None = None
    for actor, source in lists():
        sent: list[Operation] = []
        expected = []
        for operation in source:
            wanted = predict(model, actor, operation)
            if denied(wanted) and rng.random() < DENIED_LEFT_OUT:
                continue
            sent.append(operation)
            expected.append(wanted)
        if pending is not None:
            users.compare(*pending)
        users.processes[actor].send(sent)
        pending = actor, sent, expected
    assert pending is not None
    users.compare(*pending)


def new_model(mount: Mount) -> Model:
    mode = stat.S_IMODE(os.stat(mount.path).st_mode)
    return Model(USERS, UNITS, groups=GROUPS, cells=CELLS, root_mode=mode)


@contextlib.contextmanager
def mount_of_users() -> Iterator[Mount]:
    options = [word for name, unit in UNITS.items() for word in ("--resource", f"{name}:{unit}")]
    options += ["--groups", str(GROUPS), "--cells", str(CELLS), *(["-o", "allow_other"] if AS_ROOT else [])]
    with mounted(*options) as mount:
        mount.expected_log.append("the share of user [0-9]+ is used up")
        yield mount


def fill_caches(mount: Mount) -> None:
    """Fills the daemon's cache of some thousand inodes with groups that have long names."""
    for _ in range(400):
        group = mount.root.mkdir("x" * 255)
        for name in os.listdir(group.path):
            readable = os.stat(group / name).st_mode & stat.S_IRUSR
            os.close(os.open(group / name, os.O_RDONLY if readable else os.O_WRONLY))
        os.rmdir(group.path)


def test_every_operation_of_every_user_agrees_with_the_model(seed: int, soak: bool) -> None:
    rng = random.Random(seed)
    with mount_of_users() as mount, Users(mount) as users:
        model = new_model(mount)
        assert mount.daemon is not None and mount.region is not None
        fill_caches(mount)
        work(users, model, rng, 200_000 if soak else 2_000)
        before = Footprint.of(mount.daemon.pid)
        work(users, model, rng, 1_000_000 if soak else 6_000)
        leaves_nothing(mount.daemon.pid, before, tolerance=0.05 if soak else 0.15)
        with Tree.open(mount.region) as tree:
            assert tree.check() == []


def test_simultaneous_operations_of_users_leave_a_sound_mount(seed: int, soak: bool) -> None:
    rng = random.Random(seed)
    with mount_of_users() as mount, Users(mount) as users:
        shared = new_model(mount)
        work(users, shared, rng, 500)
        # each user gets operations that could succeed without the others
        models = [copy.deepcopy(shared) for _ in USERS]
        generators = [Generator(rng, model) for model in models]
        unwell: list[str] = []
        for _ in range(1_000 if soak else 20):
            lists: list[list[Operation]] = [[] for _ in USERS]
            for actor, sent in enumerate(lists):
                for _ in range(100):
                    sent.append(generators[actor].next(actor))
                    predict(models[actor], actor, sent[-1])
                users.processes[actor].send(sent)
            for process, sent in zip(users.processes, lists, strict=True):
                for operation, answer in zip(sent, process.answers(), strict=True):
                    if isinstance(answer, Failed) and answer.number in NO_USERS_DOING:
                        unwell.append(f"{shown(operation)} -> {answer}")
        for process in users.processes:
            process.send([("close", slot) for slot in range(SLOTS)])
            process.answers()
        assert not unwell
        assert mount.region is not None
        with Tree.open(mount.region) as tree:
            eventually(lambda: all(adds_up(group) for group in all_below(tree.root)), what="usages that add up")
            assert tree.check() == []


def all_below(group: Group) -> Iterator[Group]:
    yield group
    for child in group.children():
        yield from all_below(child)


def adds_up(group: Group) -> bool:
    """Whether, with no open file, the usage equals the charges of the groups themselves."""
    for resource in UNITS:
        seen = group[resource].stat()
        below = sum(child[resource].usage for child in group.children())
        if seen["usage"] != seen["common"] + below or seen["holders"]:
            return False
    return True
